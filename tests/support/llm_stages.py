# SPDX-License-Identifier: Apache-2.0
"""Small artifacts whose truth is known, and a context to run a language-model stage on them.

Items with an even index are comedies and are always liked, odd ones are horror and never are: a model that reads the
candidate's words, or its CF vector, can be perfect, and one that reads neither has an AUC of one half.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors.numpy import save_file

from thinkrec_crds.artifact import ArtifactManifest, FileEntry, Lineage
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_crds.stages import ComputeOptions, InputRef, StageSpec
from thinkrec_trainer.context import LocalArtifact, StageContext
from thinkrec_trainer.errors import Interrupted

USERS, ITEMS, DIMENSION, GROUPS = 12, 30, 4, 2
TRAIN, VALIDATION, TEST = 16, 6, 4
KEY, DIGEST = "0" * 40, "sha256:" + "0" * 64


def liked(item: int) -> bool:
    """The truth."""
    return item % 2 == 0


def seal(folder: Path, kind: StageKind) -> LocalArtifact:
    """Return the artifact of what lies in `folder`."""
    files = tuple(
        FileEntry(path=path.relative_to(folder).as_posix(), sha256="0" * 64, size=path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    )
    lineage = Lineage(
        code_version="test",
        seed=0,
        created_time="2026-01-01T00:00:00Z",
        duration_seconds=0.0,
        device="cpu",
        precision="Float32",
    )
    manifest = ArtifactManifest(kind=kind, key=KEY, semantics_version=1, files=files, lineage=lineage)
    return LocalArtifact(folder, manifest, DIGEST)


def interactions(user: int) -> list[int]:
    """Items of one user in time order, both classes in every split."""
    order: list[int] = np.random.default_rng(user).permutation(ITEMS).tolist()
    return order[: TRAIN + VALIDATION + TEST]


def write_dataset(folder: Path) -> None:
    """Write a `dataset` artifact."""
    rows = [
        {"user_index": user, "item_index": item, "liked": liked(item), "position": position}
        for user in range(USERS)
        for position, item in enumerate(interactions(user))
    ]
    table = pl.DataFrame(rows).with_columns(
        pl.col("user_index", "item_index", "position").cast(pl.Int32),
        pl.when("liked").then(5.0).otherwise(1.0).cast(pl.Float32).alias("rating"),
        pl.col("position").cast(pl.Int64).alias("timestamp"),
    )
    bounds = {"train": (0, TRAIN), "validation": (TRAIN, TRAIN + VALIDATION), "test": (TRAIN + VALIDATION, 1000)}
    for name, (low, high) in bounds.items():
        table.filter(pl.col("position").is_between(low, high, closed="left")).write_parquet(folder / f"{name}.parquet")
    pl.DataFrame(
        {
            "user_index": range(USERS),
            "user_id": [f"u{user}" for user in range(USERS)],
            "train_rows": [TRAIN] * USERS,
            "validation_rows": [VALIDATION] * USERS,
            "test_rows": [TEST] * USERS,
            "warm": [True] * USERS,
        }
    ).write_parquet(folder / "users.parquet")
    pl.DataFrame(
        {
            "item_index": range(ITEMS),
            "item_id": [f"i{item}" for item in range(ITEMS)],
            "title": [title(item) for item in range(ITEMS)],
            "attributes": [[kind(item)] for item in range(ITEMS)],
            "warm": [True] * ITEMS,
        }
    ).write_parquet(folder / "items.parquet")


def title(item: int) -> str:
    """Title of an item, unique and without a hint of its kind."""
    names = ("Amber Road", "Blue Harbour", "Copper Sky", "Distant Bell", "Eastern Gate", "Fallen Leaf")
    return f"{names[item % len(names)]} {item}"


def kind(item: int) -> str:
    """Genre of an item."""
    return "comedy" if liked(item) else "horror"


def write_keywords(folder: Path) -> None:
    """Write a `keywords` artifact."""
    pl.DataFrame(
        {
            "item_index": range(ITEMS),
            "digest": [str(item) for item in range(ITEMS)],
            "keywords": [[kind(item)] for item in range(ITEMS)],
        }
    ).write_parquet(folder / "keywords.parquet")


def write_collaborative(folder: Path) -> None:
    """Write CF vectors whose first dimension tells comedies from horror."""
    rng = np.random.default_rng(1)
    users = rng.normal(size=(USERS, DIMENSION)).astype(np.float32)
    items = rng.normal(scale=0.3, size=(ITEMS, DIMENSION)).astype(np.float32)
    users[:, 0] = np.where(np.arange(USERS) % GROUPS == 0, 2.0, -2.0)
    items[:, 0] = np.where(np.arange(ITEMS) % 2 == 0, 1.0, -1.0)
    biases = {
        "user_bias": np.zeros(USERS, np.float32),
        "item_bias": items[:, 0].copy(),
        "offset": np.zeros(1, np.float32),
    }
    save_file({"user_vectors": users, "item_vectors": items, **biases}, folder / "collaborative.safetensors")


def write_gate(folder: Path) -> None:
    """Write two groups: even and odd users."""
    centroids = np.zeros((GROUPS, DIMENSION), np.float32)
    centroids[:, 0] = (1.0, -1.0)
    mean, std = np.zeros(DIMENSION, np.float32), np.ones(DIMENSION, np.float32)
    save_file({"centroids": centroids, "mean": mean, "std": std}, folder / "gate.safetensors")
    groups = np.arange(USERS, dtype=np.int32) % GROUPS
    pl.DataFrame({"user_index": np.arange(USERS, dtype=np.int32), "group": groups}).write_parquet(
        folder / "assignment.parquet"
    )
    (folder / "groups.json").write_text(json.dumps([{"group": group, "users": USERS // 2} for group in range(GROUPS)]))


def write_traces(folder: Path, count: int = 4) -> None:
    """Write `count` reasons of the first user, all for the history before position 8."""
    items = interactions(0)
    rows = [
        {
            "user_index": 0,
            "item_index": items[position],
            "position": position,
            "history_end": 8,
            "liked": liked(items[position]),
            "rounds": 1,
            "decision": "Yes" if liked(items[position]) else "No",
            "reason": f"The user enjoys {kind(0)} and this is {kind(items[position])}.",
        }
        for position in range(8, 8 + count)
    ]
    schema = {
        "user_index": pl.Int32,
        "item_index": pl.Int32,
        "position": pl.Int32,
        "history_end": pl.Int32,
        "liked": pl.Boolean,
        "rounds": pl.Int32,
        "decision": pl.String,
        "reason": pl.String,
    }
    pl.DataFrame(rows, schema=schema).write_parquet(folder / "traces.parquet")


WRITERS: Mapping[StageKind, Callable[[Path], None]] = {
    StageKind.DATASET: write_dataset,
    StageKind.KEYWORDS: write_keywords,
    StageKind.COLLABORATIVE: write_collaborative,
    StageKind.GATE: write_gate,
    StageKind.TRACES: write_traces,
}


def basic_artifacts(root: Path) -> dict[str, LocalArtifact]:
    """Write and seal every artifact that comes before the language-model stages."""
    made = {}
    for stage, write in WRITERS.items():
        folder = root / stage.value
        folder.mkdir(parents=True)
        write(folder)
        made[stage.value] = seal(folder, stage)
    return made


@dataclass(slots=True)
class MemoryCheckpoints:
    """A checkpoint store in one folder that is due, or interrupted, after a given number of calls."""

    folder: Path
    due_at: int | None = None
    interrupt_at: int | None = None
    asked: int = 0
    saves: int = 0

    @property
    def interrupted(self) -> bool:
        """As after a signal, from the given step on."""
        return self.interrupt_at is not None and self.asked >= self.interrupt_at

    def load(self) -> Path | None:
        """The newest one."""
        path = self.folder / str(self.saves)
        return path if path.is_dir() else None

    def due(self) -> bool:
        """Counts its calls: the loop asks once a step."""
        self.asked += 1
        return self.asked == self.due_at

    def save(self, write: Callable[[Path], None]) -> None:
        """Keep what `write` wrote."""
        path = self.folder / str(self.saves + 1)
        path.mkdir(parents=True)
        write(path)
        self.saves += 1

    def raise_if_interrupted(self) -> None:
        """As the protocol's."""
        if self.interrupted:
            raise Interrupted("stopped")


@dataclass(slots=True)
class ProgressList:
    """Remembers every update."""

    updates: list[tuple[int, int, dict[str, float]]] = field(default_factory=list)

    def update(self, step: int, total: int, message: str = "", metrics: Mapping[str, float] | None = None) -> None:
        """Append."""
        self.updates.append((step, total, dict(metrics or {})))


def stage_context(
    output: Path, parameters: Any, inputs: Mapping[str, LocalArtifact], *, checkpoint: MemoryCheckpoints | None = None
) -> StageContext:
    """Return the context of a stage that writes into the new folder `output`; base models are local paths."""
    output.mkdir(parents=True)
    spec = StageSpec(
        kind=parameters.stage,
        name=parameters.stage.value,
        key=KEY,
        semantics_version=1,
        seed=3,
        parameters=parameters,
        inputs=tuple(
            InputRef(name=name, kind=artifact.manifest.kind, key=KEY, uri="file:///nowhere", digest=DIGEST)
            for name, artifact in inputs.items()
        ),
        output_uri="file:///nowhere",
        compute=ComputeOptions(device="Cpu", precision="Float32", threads=1),
    )
    return StageContext(
        spec=spec,
        inputs=inputs,
        output=output,
        progress=ProgressList(),
        checkpoint=checkpoint or MemoryCheckpoints(output.parent / f"{output.name}-checkpoints"),
        fetch=Path,
    )
