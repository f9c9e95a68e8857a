# SPDX-License-Identifier: Apache-2.0
"""What a stage publishes and how it reports: artifact manifest, termination message, progress line, exit codes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from thinkrec_crds.contract import Contract
from thinkrec_crds.exit_codes import ExplainedCode
from thinkrec_crds.stage_kinds import StageKind

MANIFEST_NAME = "manifest.json"
TERMINATION_MESSAGE_BYTES = 4096
"""Kubernetes truncates a container's termination message beyond this size."""

Key = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class ExitCode(ExplainedCode):
    """How a stage process ends; the Job's podFailurePolicy and the local driver read it."""

    DONE = 0, "The artifact is published, or it was there already."
    USAGE = (
        2,
        "The stage's command line was refused: the image is of another version, or does not take these arguments.",
        "Correct `spec.training.image` and `spec.training.args`; the operator's own image takes no arguments.",
    )
    BAD_INPUT = (
        64,
        "The input cannot work, whatever is retried: the stage fails at once.",
        "Change what the termination message names: a field, a file, a Secret.",
    )
    TEMPORARY = (
        75,
        "Network, store or teacher are out of reach: another attempt follows, up to `spec.training.backoffLimit`.",
        "Nothing, unless it goes on; then check the address that the message names.",
    )
    INTERRUPTED = (
        143,
        "Stopped by SIGTERM after a checkpoint: the next attempt continues and costs no retry.",
    )


class FileEntry(Contract):
    """One file of an artifact."""

    path: str
    """Path inside the artifact, forward slashes, no `..`."""
    sha256: str
    size: int
    """Bytes."""
    object: str | None = None
    """Name of the stored object when it is not `path`: named by content there, so that racing writers never mix."""


class Lineage(Contract):
    """Where an artifact came from."""

    inputs: dict[str, Digest] = Field(default_factory=dict)
    """Input name -> digest of that input's manifest."""
    source_digests: dict[str, str] = Field(default_factory=dict)
    """Outside sources (ratings file, item file, base model) -> digest of their bytes."""
    code_version: str
    seed: int
    created_time: str
    """RFC 3339, UTC."""
    duration_seconds: float
    device: str
    precision: str


class ArtifactManifest(Contract):
    """The last file of an artifact: a reader trusts only what it names and verifies each digest."""

    schema_version: Literal[1] = 1
    kind: StageKind
    key: Key
    semantics_version: int
    files: tuple[FileEntry, ...]
    metrics: dict[str, float] = Field(default_factory=dict)
    counts: dict[str, int] = Field(default_factory=dict)
    lineage: Lineage


class TerminationMessage(Contract):
    """What the operator learns from a finished stage container (at most 4 KiB of JSON)."""

    key: Key
    kind: StageKind
    digest: Digest | None = None
    """Digest of the published manifest; absent when the stage failed, and where this pod made only a share of it."""
    uri: str | None = None
    shard: str | None = None
    """`<index>-of-<count>` from a pod that published its share and left the whole to another one; then no digest."""
    metrics: dict[str, float] = Field(default_factory=dict)
    counts: dict[str, int] = Field(default_factory=dict)
    error: str | None = None
    """One sentence: what was wrong, the value received, the remedy. Never a secret."""
    reason: str | None = None
    """Why it failed, as a reason of conditions.py (for example DatasetNotFound), where the stage can tell."""


class Progress(Contract):
    """One JSON line on a stage's standard output, at most one a second."""

    event: Literal["progress"] = "progress"
    stage: StageKind
    key: Key
    step: int
    total: int
    eta_seconds: float | None = None
    message: str = ""
    metrics: dict[str, float] = Field(default_factory=dict)
