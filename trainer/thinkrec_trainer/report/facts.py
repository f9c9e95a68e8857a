# SPDX-License-Identifier: Apache-2.0
"""What the page says of data, groups, training and lineage, read from the input artifacts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from thinkrec_trainer.context import LocalArtifact

_ORDER = (
    "dataset",
    "keywords",
    "collaborative",
    "traces",
    "adapter",
    "projector",
    "gate",
    "expert",
    "bundle",
    "serving",
)


@dataclass(frozen=True, slots=True)
class Group:
    """One group of users."""

    name: str
    users: int
    items: tuple[tuple[str, float], ...]
    """(title, lift)"""


@dataclass(frozen=True, slots=True)
class StageLine:
    """One input artifact."""

    role: str
    seconds: float
    device: str
    key: str
    digest: str
    code_version: str
    notes: str
    """Its metrics, in short."""


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it."""

    statistics: Mapping[str, Any] | None
    """statistics.json, where the dataset artifact has one."""
    threshold: float | None
    """Smallest rating that is a like."""
    groups: tuple[Group, ...]
    curves: Mapping[str, Sequence[Mapping[str, float]]]
    stages: tuple[StageLine, ...]
    later_train_share: float | None = None
    """Share of train rows that are later than the earliest test row; None without test rows."""

    @property
    def absent(self) -> tuple[str, ...]:
        """Kinds of stages that this page knows nothing of."""
        given = {stage.role.split("-")[0] for stage in self.stages}
        return tuple(kind for kind in _ORDER if kind not in given and kind != "serving")

    @property
    def seconds(self) -> float:
        """Time of all stages listed."""
        return sum(stage.seconds for stage in self.stages)


def gather(inputs: Mapping[str, LocalArtifact], experts: Sequence[str]) -> Facts:
    """Read the inputs of an evaluation."""
    roles = sorted(inputs, key=_place)
    dataset = inputs["dataset"]
    return Facts(
        statistics=_json(dataset, "statistics.json"),
        threshold=_threshold(dataset),
        groups=_groups(inputs.get("gate"), experts),
        curves={role: curve for role in roles if (curve := _json(inputs[role], "curve.json"))},
        stages=tuple(_line(role, inputs[role]) for role in roles),
        later_train_share=_later_train_share(dataset),
    )


def _place(role: str) -> tuple[int, str]:
    family = role.split("-")[0]
    return (_ORDER.index(family) if family in _ORDER else len(_ORDER), role)


def _json(artifact: LocalArtifact, name: str) -> Any:
    if all(entry.path != name for entry in artifact.manifest.files):
        return None
    return json.loads(artifact.file(name).read_text(encoding="utf-8"))


def _threshold(dataset: LocalArtifact) -> float | None:
    """Return the smallest liked rating of the train split, if no disliked one reaches it."""
    rows = pl.read_parquet(dataset.file("train.parquet"), columns=["rating", "liked"])
    lowest = rows.filter(pl.col("liked"))["rating"].min()
    highest = rows.filter(~pl.col("liked"))["rating"].max()
    if not isinstance(lowest, float) or (isinstance(highest, float) and highest >= lowest):
        return None
    return lowest


def _later_train_share(dataset: LocalArtifact) -> float | None:
    times = {
        name: pl.read_parquet(dataset.file(f"{name}.parquet"), columns=["timestamp"]) for name in ("train", "test")
    }
    earliest = times["test"]["timestamp"].min()
    if earliest is None or not times["train"].height:
        return None
    return times["train"].filter(pl.col("timestamp") > earliest).height / times["train"].height


def _groups(gate: LocalArtifact | None, experts: Sequence[str]) -> tuple[Group, ...]:
    found = _json(gate, "groups.json") if gate is not None else None
    return tuple(
        Group(
            name=experts[entry["group"]] if entry["group"] < len(experts) else f"group {entry['group']}",
            users=entry["users"],
            items=tuple((item["title"], item["lift"]) for item in entry.get("typical_items", [])),
        )
        for entry in found or []
    )


def _line(role: str, artifact: LocalArtifact) -> StageLine:
    lineage, manifest = artifact.manifest.lineage, artifact.manifest
    notes = [f"{name.replace('_', ' ')} {value:.3f}" for name, value in sorted(manifest.metrics.items())]
    return StageLine(
        role=role,
        seconds=lineage.duration_seconds,
        device=f"{lineage.device}, {lineage.precision}",
        key=manifest.key[:12],
        digest=(artifact.digest or "").removeprefix("sha256:")[:12],
        code_version=lineage.code_version,
        notes=", ".join(notes[:3]),
    )
