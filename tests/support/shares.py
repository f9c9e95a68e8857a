# SPDX-License-Identifier: Apache-2.0
"""A stage done by several pods in one process: every share, then the merge, without a store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from support.llm_stages import seal
from thinkrec_trainer.context import LocalArtifact, StageContext, StageResult
from thinkrec_trainer.shards import Shard
from thinkrec_trainer.store import open_blobs


def in_shares(
    stage: ModuleType, count: int, root: Path, context: Callable[[Path], StageContext], *, order: int = 1
) -> tuple[StageResult, Path]:
    """Run `count` pods one after the other (backwards with `order` -1), merge; return the result and its folder."""
    parts: dict[int, LocalArtifact] = {}
    for index in range(count)[::order]:
        shard = Shard(index, count, open_blobs(str(root / "board")))
        given = context(root / f"part-{index}")
        result = stage.share(given, shard)
        made = seal(given.output, given.spec.kind)
        lineage = made.manifest.lineage.model_copy(update={"source_digests": dict(result.source_digests)})
        update = {"counts": dict(result.counts), "lineage": lineage}
        parts[index] = LocalArtifact(made.path, made.manifest.model_copy(update=update), made.digest)
    whole = context(root / "whole")
    return stage.merge(whole, [parts[index] for index in range(count)]), whole.output


def same_files(one: Path, other: Path) -> None:
    """Fail on the first file that differs in a byte."""
    names = [
        sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        for folder in (one, other)
    ]
    assert names[0] == names[1]
    assert names[0], "no file is no equality"
    for name in names[0]:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def _names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
