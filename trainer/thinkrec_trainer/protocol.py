# SPDX-License-Identifier: Apache-2.0
"""The stage protocol (design.md): stage.json in; published artifact, termination message and exit code out.

Idempotent by key: what is already published is not run again. The stage itself is a function and knows none of this.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import logging
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pydantic

from thinkrec_crds.artifact import (
    TERMINATION_MESSAGE_BYTES,
    ArtifactManifest,
    ExitCode,
    Lineage,
    TerminationMessage,
)
from thinkrec_crds.conditions import Reason
from thinkrec_crds.stages import StageSpec
from thinkrec_inference.engine.digests import cache_folder
from thinkrec_trainer import store
from thinkrec_trainer.checkpoint import Checkpoints, open_checkpoints
from thinkrec_trainer.context import LocalArtifact, StageContext, StageResult
from thinkrec_trainer.errors import BadInput, StageError
from thinkrec_trainer.fetch import source_fetcher
from thinkrec_trainer.logs import masked, secret_values
from thinkrec_trainer.progress import ProgressLines
from thinkrec_trainer.registry import stage_function

TERMINATION_VARIABLE = "THINKREC_TERMINATION_PATH"
TERMINATION_DEFAULT = "/dev/termination-log"
DEFECT = 1
"""Exit code of an unexpected exception: not in ExitCode, because no caller may rely on it meaning anything."""
_ERROR_CHARACTERS = 1500

_log = logging.getLogger(__name__)


def run_stage(path: Path) -> int:
    """Run the stage that `path` describes; return the exit code. Never raises."""
    try:
        spec = read_spec(path)
    except BadInput as error:
        _log.error("%s", error)
        return error.exit_code
    try:
        published = _published_or_run(spec)
    except StageError as error:
        _log.error("%s", error)
        _terminate(_failure(spec, str(error), error.reason if isinstance(error, BadInput) else None))
        return error.exit_code
    except Exception as error:  # the last line of defence: a defect must reach the log and the termination message
        _log.exception("stage %s failed unexpectedly", spec.name)
        _terminate(_failure(spec, f"unexpected {type(error).__name__}: {error}; see the log's traceback"))
        return DEFECT
    _terminate(_success(spec, published))
    return ExitCode.DONE


def read_spec(path: Path) -> StageSpec:
    """Parse stage.json. BadInput lists every wrong field with its path and the value received."""
    try:
        return StageSpec.from_json(path.read_bytes())
    except OSError as error:
        raise BadInput(f"stage file {path} cannot be read: {error.strerror}") from error
    except pydantic.ValidationError as error:
        lines = [f"  {_field(e['loc'])}: {e['msg']} (got {_shown(e['input'])})" for e in error.errors()]
        raise BadInput(f"stage file {path} has {len(lines)} wrong field(s):\n" + "\n".join(lines)) from error


def _published_or_run(spec: StageSpec) -> store.Published:
    if spec.parameters.stage != spec.kind:
        raise BadInput(
            f"stage {spec.name}: kind is {spec.kind.value!r} but parameters.stage is {spec.parameters.stage!r}"
        )
    blobs = store.open_blobs(spec.output_uri, spec.store)
    if (published := store.read_manifest(blobs)) is not None:
        _check_key(spec, published.manifest)
        _log.info("stage %s is already published at %s", spec.name, blobs.uri)
        return published
    with tempfile.TemporaryDirectory(prefix=f"thinkrec-{spec.key[:8]}-", ignore_cleanup_errors=True) as work:
        return _run_in(Path(work), spec, blobs)


def _run_in(work: Path, spec: StageSpec, blobs: store.Blobs) -> store.Published:
    checkpoints = open_checkpoints(spec, work / "checkpoints")
    output = work / "output"
    output.mkdir()
    progress = ProgressLines(spec.kind, spec.key)
    start = time.monotonic()
    with _interrupting(checkpoints):
        context = StageContext(
            spec=spec,
            inputs=_fetch_inputs(spec),
            output=output,
            progress=progress,
            checkpoint=checkpoints,
            fetch=source_fetcher(spec.store),
        )
        checkpoints.raise_if_interrupted()
        try:
            result = stage_function(spec.kind)(context)
        finally:
            progress.flush()
    manifest = _manifest(context, result, blobs, time.monotonic() - start)
    published = store.publish(blobs, output, manifest)
    checkpoints.discard()
    return published


def _fetch_inputs(spec: StageSpec) -> dict[str, LocalArtifact]:
    cache = cache_folder() / "artifacts"
    found: dict[str, LocalArtifact] = {}
    for ref in spec.inputs:
        artifact = store.fetch_artifact(store.open_blobs(ref.uri, spec.store), cache, ref.digest)
        if (artifact.manifest.kind, artifact.manifest.key) != (ref.kind, ref.key):
            got = f"{artifact.manifest.kind.value} {artifact.manifest.key}"
            raise BadInput(f"input {ref.name} at {ref.uri} is {got}, expected {ref.kind.value} {ref.key}")
        found[ref.name] = artifact
    return found


def _manifest(context: StageContext, result: StageResult, blobs: store.Blobs, seconds: float) -> ArtifactManifest:
    spec = context.spec
    files = store.describe_files(context.output, blobs)
    if not files:
        raise RuntimeError(f"stage {spec.name} wrote no file into its output folder")
    lineage = Lineage(
        inputs={ref.name: ref.digest for ref in spec.inputs},
        source_digests=dict(result.source_digests),
        code_version=code_version(),
        seed=spec.seed,
        created_time=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        duration_seconds=round(seconds, 3),
        device=result.device,
        precision=result.precision,
    )
    return ArtifactManifest(
        kind=spec.kind,
        key=spec.key,
        semantics_version=spec.semantics_version,
        files=files,
        metrics=dict(result.metrics),
        counts=dict(result.counts),
        lineage=lineage,
    )


def code_version() -> str:
    """Return the version of the installed distribution."""
    return importlib.metadata.version("thinkrec")


def _check_key(spec: StageSpec, manifest: ArtifactManifest) -> None:
    if (manifest.kind, manifest.key) != (spec.kind, spec.key):
        raise BadInput(
            f"outputUri {spec.output_uri} already holds {manifest.kind.value} {manifest.key}, "
            f"not {spec.kind.value} {spec.key}: give every key a folder of its own"
        )


@contextlib.contextmanager
def _interrupting(checkpoints: Checkpoints) -> Iterator[None]:
    """Turn SIGTERM and SIGINT into `checkpoint.interrupted`; a second signal kills the process as usual."""

    def stop(number: int, frame: FrameType | None) -> None:
        checkpoints.interrupt()
        signal.signal(number, previous[signal.Signals(number)])

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _success(spec: StageSpec, published: store.Published) -> TerminationMessage:
    return TerminationMessage(
        key=spec.key,
        kind=spec.kind,
        digest=published.digest,
        uri=spec.output_uri,
        metrics=published.manifest.metrics,
        counts=published.manifest.counts,
    )


def _failure(spec: StageSpec, error: str, reason: Reason | None = None) -> TerminationMessage:
    line = masked(" ".join(error.split()), secret_values())
    return TerminationMessage(key=spec.key, kind=spec.kind, error=line[:_ERROR_CHARACTERS], reason=reason)


def fitted(message: TerminationMessage, limit: int = TERMINATION_MESSAGE_BYTES) -> str:
    """Return the message's JSON within `limit` bytes: counts are dropped first, then metrics, longest names first."""
    text = message.to_json()
    while len(text.encode()) > limit and (message.counts or message.metrics):
        name = "counts" if message.counts else "metrics"
        rest: dict[str, float] = dict(message.counts or message.metrics)
        rest.pop(max(rest, key=len))
        message = message.model_copy(update={name: rest})
        text = message.to_json()
    if len(text.encode()) > limit and message.error:
        return fitted(message.model_copy(update={"error": message.error[: len(message.error) // 2]}), limit)
    return text


def _terminate(message: TerminationMessage) -> None:
    path = Path(os.environ.get(TERMINATION_VARIABLE) or TERMINATION_DEFAULT)
    text = fitted(message)
    try:
        path.write_text(text)
    except OSError as error:
        # Outside Kubernetes there may be no such place; the log still has the whole message.
        _log.warning("termination message not written to %s (%s): %s", path, error.strerror, text)


def _field(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location) or "(the whole file)"


def _shown(value: object) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
