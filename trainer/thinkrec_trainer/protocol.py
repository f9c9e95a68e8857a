# SPDX-License-Identifier: Apache-2.0
"""The stage protocol (design.md): stage.json in; published artifact, termination message and exit code out.

Idempotent by key: what is already published is not run again. The stage itself is a function and knows none of this.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType

import pydantic

from thinkrec_crds.artifact import ExitCode, TerminationMessage
from thinkrec_crds.stages import StageSpec
from thinkrec_inference.engine.digests import cache_folder
from thinkrec_trainer import store, termination
from thinkrec_trainer.checkpoint import Checkpoints, open_checkpoints
from thinkrec_trainer.context import LocalArtifact, ProgressSink, StageContext
from thinkrec_trainer.errors import BadInput, StageError, Temporary
from thinkrec_trainer.fetch import source_fetcher
from thinkrec_trainer.launch import launch, world_size
from thinkrec_trainer.progress import ProgressLines
from thinkrec_trainer.publication import produce, published_already
from thinkrec_trainer.registry import sharded_stage, stage_function
from thinkrec_trainer.shards import Shard, run_shard, shard_of

DEFECT = 1
"""Exit code of an unexpected exception: not in ExitCode, because no caller may rely on it meaning anything."""

_log = logging.getLogger(__name__)


def run_stage(path: Path) -> int:
    """Run the stage that `path` describes; return the exit code. Never raises."""
    termination.announce()
    code, message = _guarded(path, _published_or_run)
    termination.leave(code, message)
    return code


def launch_stage(path: Path) -> int:
    """Run the stage in the processes that torchrun's variables ask for; return the exit code. Never raises."""
    launched: list[int] = []

    def run(spec: StageSpec) -> TerminationMessage | None:
        blobs = store.open_blobs(spec.output_uri, spec.store)
        if (published := published_already(spec, blobs)) is not None:
            return termination.success(spec, published)
        launched.append(launch(path, spec))
        return None

    code, message = _guarded(path, run)
    if message is not None:
        termination.write(message)
    return launched[0] if launched and code == ExitCode.DONE else code


def _guarded(path: Path, run: Callable[[StageSpec], TerminationMessage | None]) -> tuple[int, str | None]:
    """Return the exit code and the termination message of running a stage, whatever happens."""
    try:
        spec = read_spec(path)
    except BadInput as error:
        _log.error("%s", error)
        return error.exit_code, None
    try:
        message = run(spec)
    except StageError as error:
        _log.error("%s", error)
        reason = error.reason if isinstance(error, BadInput) else None
        return error.exit_code, termination.fitted(termination.failure(spec, str(error), reason))
    except Exception as error:  # the last line of defence: a defect must reach the log and the termination message
        _log.exception("stage %s failed unexpectedly", spec.name)
        told = f"unexpected {type(error).__name__}: {error}; see the log's traceback"
        return DEFECT, termination.fitted(termination.failure(spec, told))
    return ExitCode.DONE, None if message is None else termination.fitted(message)


def read_spec(path: Path) -> StageSpec:
    """Parse stage.json. BadInput lists every wrong field with its path and the value received."""
    try:
        return StageSpec.from_json(path.read_bytes())
    except OSError as error:
        raise BadInput(f"stage file {path} cannot be read: {error.strerror}") from error
    except pydantic.ValidationError as error:
        raise BadInput(described(f"stage file {path}", error)) from error


def described(what: str, error: pydantic.ValidationError) -> str:
    """Return every wrong field of a file with its path and the value received."""
    lines = [f"  {_field(e['loc'])}: {e['msg']} (got {_shown(e['input'])})" for e in error.errors()]
    return f"{what} has {len(lines)} wrong field(s):\n" + "\n".join(lines)


def _published_or_run(spec: StageSpec) -> TerminationMessage:
    if spec.parameters.stage != spec.kind:
        raise BadInput(
            f"stage {spec.name}: kind is {spec.kind.value!r} but parameters.stage is {spec.parameters.stage!r}"
        )
    shard = shard_of(spec, os.environ)
    blobs = store.open_blobs(spec.output_uri, spec.store)
    if (published := published_already(spec, blobs)) is not None:
        _log.info("stage %s is already published at %s", spec.name, blobs.uri)
        return termination.success(spec, published)
    with tempfile.TemporaryDirectory(prefix=f"thinkrec-{spec.key[:8]}-", ignore_cleanup_errors=True) as work:
        return _run_in(Path(work), spec, blobs, shard)


def _run_in(work: Path, spec: StageSpec, blobs: store.Blobs, shard: Shard | None) -> TerminationMessage:
    checkpoints = open_checkpoints(spec, work / "checkpoints", part=shard.name if shard else None)
    progress = ProgressLines(spec.kind, spec.key)
    with _interrupting(checkpoints):
        try:
            if shard is not None:
                halves = sharded_stage(spec.kind)
                message = run_shard(spec, shard, halves, lambda: _prepared(work, spec, checkpoints, progress))
            elif world_size(spec, os.environ) > 1:
                return _run_together(work, spec, blobs, checkpoints, progress)
            else:
                context = _prepared(work, spec, checkpoints, progress)
                message = termination.success(spec, _produced(context, blobs))
        finally:
            progress.flush()
    checkpoints.discard()
    return message


def _produced(context: StageContext, blobs: store.Blobs) -> store.Published:
    return produce(context, blobs, lambda: stage_function(context.spec.kind)(context))


def _run_together(
    work: Path, spec: StageSpec, blobs: store.Blobs, checkpoints: Checkpoints, progress: ProgressLines
) -> TerminationMessage:
    """Run one of several processes; only the first one has progress and publishes, and all end well or none."""
    from thinkrec_trainer.distributed import SharedCheckpoints, Silence, joined  # torch only where it is needed

    with joined(spec.compute) as world:
        prepared = _prepared(work, spec, checkpoints, progress if world.leads else Silence())
        context = replace(prepared, world=world, checkpoint=SharedCheckpoints(checkpoints, world))
        if world.leads:
            _produced(context, blobs)
            checkpoints.discard()
        else:
            stage_function(spec.kind)(context)
    published = published_already(spec, blobs)
    if published is None:
        raise Temporary(f"{blobs.uri} was published a moment ago and is not there: try again")
    return termination.success(spec, published)


def _prepared(work: Path, spec: StageSpec, checkpoints: Checkpoints, progress: ProgressSink) -> StageContext:
    output = work / "output"
    output.mkdir()
    context = StageContext(
        spec=spec,
        inputs=_fetch_inputs(spec),
        output=output,
        progress=progress,
        checkpoint=checkpoints,
        fetch=source_fetcher(spec.store),
    )
    checkpoints.raise_if_interrupted()
    return context


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


def _field(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location) or "(the whole file)"


def _shown(value: object) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
