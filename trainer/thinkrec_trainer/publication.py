# SPDX-License-Identifier: Apache-2.0
"""From a stage function to a published artifact: it runs, its files are described, the manifest goes last."""

from __future__ import annotations

import datetime
import importlib.metadata
import time
from collections.abc import Callable

from thinkrec_crds.artifact import ArtifactManifest, Lineage
from thinkrec_crds.stages import StageSpec
from thinkrec_trainer import store
from thinkrec_trainer.context import StageContext, StageResult
from thinkrec_trainer.errors import BadInput


def produce(context: StageContext, blobs: store.Blobs, make: Callable[[], StageResult]) -> store.Published:
    """Run `make`, which fills `context.output`, and publish what it left there under `blobs`."""
    start = time.monotonic()
    result = make()
    manifest = _manifest(context, result, blobs, time.monotonic() - start)
    return store.publish(blobs, context.output, manifest)


def published_already(spec: StageSpec, blobs: store.Blobs) -> store.Published | None:
    """Return what is published there, or None; raise BadInput when it is of another kind or key."""
    published = store.read_manifest(blobs)
    if published is None:
        return None
    found = published.manifest
    if (found.kind, found.key) != (spec.kind, spec.key):
        raise BadInput(
            f"outputUri {blobs.uri} already holds {found.kind.value} {found.key}, "
            f"not {spec.kind.value} {spec.key}: give every key a folder of its own"
        )
    return published


def code_version() -> str:
    """Return the version of the installed distribution."""
    return importlib.metadata.version("thinkrec")


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
