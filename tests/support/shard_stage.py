# SPDX-License-Identifier: Apache-2.0
"""A stage in shares whose merge does what a test wants: `python -m support.shard_stage CONTROL STAGE_JSON`.

It stands for the keywords stage; everything around it is the real protocol. Files in the folder CONTROL: every share
and every merge leaves one; `kill` ends the process by SIGKILL at the beginning of a merge (once); `hold` keeps merges
waiting until it is removed.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from thinkrec_crds.stage_kinds import StageKind
from thinkrec_trainer import registry
from thinkrec_trainer.context import LocalArtifact, StageContext, StageResult
from thinkrec_trainer.protocol import run_stage
from thinkrec_trainer.shards import Shard, combined

ITEMS = 10
_CONTROL = "SHARD_STAGE_CONTROL"


def run(context: StageContext) -> StageResult:
    """All items."""
    return _write(context, range(ITEMS))


def share(context: StageContext, shard: Shard) -> StageResult:
    """Every N-th item."""
    _note(f"share-{shard.name}")
    return _write(context, shard.stride(range(ITEMS)))


def merge(context: StageContext, parts: Sequence[LocalArtifact]) -> StageResult:
    """All items, sorted."""
    _note(f"merge-{os.getpid()}")
    kill, hold = _control() / "kill", _control() / "hold"
    if kill.exists():
        kill.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    deadline = time.monotonic() + 60
    while hold.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    items = sorted(int(line) for part in parts for line in part.file("items.txt").read_text().split())
    _write(context, items)
    return combined(parts)


def _write(context: StageContext, items: Sequence[int]) -> StageResult:
    (context.output / "items.txt").write_text("".join(f"{item}\n" for item in items))
    return StageResult(counts={"items": len(items)})


def _note(name: str) -> None:
    with (_control() / name).open("a") as handle:
        handle.write("once\n")


def _control() -> Path:
    return Path(os.environ[_CONTROL])


if __name__ == "__main__":
    os.environ[_CONTROL] = sys.argv[1]
    registry.MODULES[StageKind.KEYWORDS] = "support.shard_stage"
    raise SystemExit(run_stage(Path(sys.argv[2])))
