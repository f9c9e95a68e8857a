# SPDX-License-Identifier: Apache-2.0
"""Which module runs which stage. Imported only when the stage runs: the dataset stage must not wait for torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import cast

from thinkrec_crds.stage_kinds import StageKind
from thinkrec_trainer.context import StageContext, StageResult
from thinkrec_trainer.shards import ShardedStage

StageFunction = Callable[[StageContext], StageResult]

MODULES: dict[StageKind, str] = {
    StageKind.DATASET: "thinkrec_trainer.dataset",
    StageKind.KEYWORDS: "thinkrec_trainer.keywords",
    StageKind.COLLABORATIVE: "thinkrec_trainer.collaborative",
    StageKind.TRACES: "thinkrec_trainer.traces",
    StageKind.ADAPTER: "thinkrec_trainer.adapter",
    StageKind.PROJECTOR: "thinkrec_trainer.projector",
    StageKind.GATE: "thinkrec_trainer.gate",
    StageKind.EXPERT: "thinkrec_trainer.expert",
    StageKind.BUNDLE: "thinkrec_trainer.bundle",
    StageKind.EVALUATE: "thinkrec_trainer.evaluate",
    StageKind.SCORE: "thinkrec_trainer.score",
    StageKind.COMPARE: "thinkrec_trainer.compare",
    StageKind.SIMULATE: "thinkrec_trainer.simulate",
    StageKind.ANALYSE: "thinkrec_trainer.analyse",
}


def stage_function(kind: StageKind) -> StageFunction:
    """Import the stage's module and return its `run`."""
    module = importlib.import_module(MODULES[kind])
    return cast(StageFunction, module.run)


def sharded_stage(kind: StageKind) -> ShardedStage:
    """Import the module of a stage that several pods may do together, and return its `share` and `merge`."""
    module = importlib.import_module(MODULES[kind])
    return ShardedStage(share=module.share, merge=module.merge)
