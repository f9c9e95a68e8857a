# SPDX-License-Identifier: Apache-2.0
"""Builders for tests of stages: specs, contexts without a store, publication into a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from thinkrec_crds.artifact import ArtifactManifest, Lineage
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_crds.stages import Parameters, StageSpec, stage_key
from thinkrec_trainer import store
from thinkrec_trainer.checkpoint import Checkpoints
from thinkrec_trainer.context import LocalArtifact, StageContext, StageResult
from thinkrec_trainer.fetch import fetch_source
from thinkrec_trainer.progress import ProgressLines


def make_spec(parameters: Parameters, storage: Path | str, *, seed: int = 0, name: str | None = None) -> StageSpec:
    """Return a spec without inputs whose artifact lies under `storage`."""
    kind = StageKind(parameters.stage)
    key = stage_key(parameters, kind, seed, ())
    root = storage.as_uri() if isinstance(storage, Path) else storage
    return StageSpec(
        kind=kind,
        name=name or kind.value,
        key=key,
        semantics_version=1,
        seed=seed,
        parameters=parameters,
        output_uri=f"{root}/{kind.value}/{key}",
    )


def make_context(
    parameters: Parameters, folder: Path, *, inputs: Mapping[str, LocalArtifact] | None = None, seed: int = 0
) -> StageContext:
    """Return a context that works below `folder`; its output is `folder/output`."""
    spec = make_spec(parameters, folder / "store", seed=seed)
    output = folder / "output"
    output.mkdir(parents=True, exist_ok=True)
    return StageContext(
        spec=spec,
        inputs=dict(inputs or {}),
        output=output,
        progress=ProgressLines(spec.kind, spec.key),
        checkpoint=Checkpoints(store.open_blobs(str(folder / "checkpoints")), folder / "scratch", 300.0),
        fetch=fetch_source,
    )


def as_artifact(context: StageContext, result: StageResult) -> LocalArtifact:
    """Return what `context.output` holds as an input for another stage."""
    blobs = store.open_blobs(str(context.output))
    lineage = Lineage(
        code_version="0",
        seed=0,
        created_time="2026-01-01T00:00:00Z",
        duration_seconds=0.0,
        device="cpu",
        precision="Float32",
    )
    manifest = ArtifactManifest(
        kind=context.spec.kind,
        key=context.spec.key,
        semantics_version=1,
        files=store.describe_files(context.output, blobs),
        metrics=dict(result.metrics),
        counts=dict(result.counts),
        lineage=lineage,
    )
    return LocalArtifact(context.output, manifest, "sha256:" + "0" * 64)
