# SPDX-License-Identifier: Apache-2.0
"""What `python -m thinkrec_trainer clean` is told: which artifacts of a store nobody needs any more."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from thinkrec_crds.artifact import Key
from thinkrec_crds.contract import Contract
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_crds.stages import StoreOptions

CLEAN_FILE = "clean.json"
MOST_ARTIFACTS = 5000
"""Of one clean-up: a list of them fits a ConfigMap with room to spare."""


class ArtifactName(Contract):
    """One artifact of the store: the folder `<rootUri>/<kind>/<key>`."""

    kind: StageKind
    key: Key


class CleanSpec(Contract):
    """The content of /etc/thinkrec/clean.json."""

    schema_version: Literal[1] = 1
    root_uri: str = Field(min_length=1)
    """`spec.artifacts.storageUri`: every artifact lies below it."""
    checkpoint_uri: str | None = None
    """`spec.training.checkpoint.storageUri`; None: checkpoints lie beside their artifacts."""
    store: StoreOptions = StoreOptions()
    artifacts: tuple[ArtifactName, ...] = Field(max_length=MOST_ARTIFACTS)
    """Their checkpoints and shards go too; the keyword cache, which all models of a store share, stays."""


class CleanMessage(Contract):
    """The termination message of a clean-up."""

    counts: dict[str, int] = Field(default_factory=dict)
    """artifacts (asked for), removed (had something to remove), absent (had nothing), files."""
    error: str | None = None


class CleanProgress(Contract):
    """One JSON line on standard output, at most one a second."""

    event: Literal["progress"] = "progress"
    stage: Literal["clean"] = "clean"
    step: int
    total: int
    message: str = ""
