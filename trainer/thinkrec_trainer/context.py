# SPDX-License-Identifier: Apache-2.0
"""What a stage module sees: everything the protocol prepared, and what it hands back.

A stage is `run(context: StageContext) -> StageResult`. It reads `context.inputs`, writes files into `context.output`
and returns; fetching, verifying, publishing, signals and exit codes are the protocol's (protocol.py). No torch here, so
that the dataset stage stays light.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from thinkrec_crds.artifact import ArtifactManifest
from thinkrec_crds.stages import StageSpec
from thinkrec_trainer.errors import BadInput

if TYPE_CHECKING:
    from thinkrec_trainer.distributed import World


@dataclass(frozen=True, slots=True)
class LocalArtifact:
    """A published artifact on this machine; every file's digest was verified."""

    path: Path
    """Folder that holds the manifest's files. Read-only: it may be the store's own folder."""
    manifest: ArtifactManifest
    digest: str = ""
    """`sha256:<hex>` of the manifest's bytes."""

    def file(self, name: str) -> Path:
        """Return the path of one file; raise BadInput when the manifest does not name it."""
        if all(entry.path != name for entry in self.manifest.files):
            named = sorted(entry.path for entry in self.manifest.files)
            raise BadInput(f"artifact {self.manifest.kind} {self.manifest.key} has no file {name!r}; it has {named}")
        return self.path / name


class ProgressSink(Protocol):
    """Takes progress; throttling and the estimate of the time left are its own business."""

    def update(
        self, step: int, total: int, message: str = "", metrics: Mapping[str, float] | None = None
    ) -> None:  # pragma: no cover - protocol
        """Report that `step` of `total` units are done (any unit, but the same one throughout the stage)."""


class CheckpointStore(Protocol):
    """Unfinished work of this key, kept in the store.

    The pattern in a loop::

        if (folder := context.checkpoint.load()) is not None: ...restore from the files in folder
        for step in ...:
            if context.checkpoint.due() or context.checkpoint.interrupted:
                context.checkpoint.save(write)          # write(folder) puts files into an empty folder
                context.checkpoint.raise_if_interrupted()
    """

    @property
    def interrupted(self) -> bool:
        """True once SIGTERM or SIGINT has arrived: save and raise Interrupted soon."""

    def load(self) -> Path | None:
        """Return a folder with the newest whole checkpoint (verified), or None when there is none to resume from."""

    def due(self) -> bool:
        """True when `checkpoint.period_seconds` have passed since the start or the last save."""

    def save(self, write: Callable[[Path], None]) -> None:
        """Call `write` with an empty folder and keep what it left there as the newest checkpoint."""

    def raise_if_interrupted(self) -> None:
        """Raise Interrupted when `interrupted` is set."""


@dataclass(frozen=True, slots=True)
class StageContext:
    """Everything a stage may use."""

    spec: StageSpec
    inputs: Mapping[str, LocalArtifact]
    """Role name (`dataset`, `expert-0`, …) -> fetched and verified artifact."""
    output: Path
    """Empty local folder; the files in it at the end are published."""
    progress: ProgressSink
    checkpoint: CheckpointStore
    fetch: Callable[[str], Path]
    """Bring an outside source (`file://`, a plain path, `s3://`, `hf://org/name@revision`) here; return its path."""
    world: World | None = None
    """The processes that train together, where there are several."""

    def input(self, name: str) -> LocalArtifact:
        """Return the input of that role; raise BadInput naming the roles there are."""
        if name not in self.inputs:
            raise BadInput(f"stage {self.spec.name} needs an input named {name!r}; it was given {sorted(self.inputs)}")
        return self.inputs[name]


@dataclass(frozen=True, slots=True)
class StageResult:
    """What goes into the manifest beside the files."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    source_digests: Mapping[str, str] = field(default_factory=dict)
    """Outside source (`ratings`, `items`, `base_model`) -> digest of its bytes (fetch.source_digest)."""
    device: str = "cpu"
    precision: str = "Float32"
