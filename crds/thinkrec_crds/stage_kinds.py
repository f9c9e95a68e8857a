# SPDX-License-Identifier: Apache-2.0
"""The stages of the method (method.md) and the version of what each one's output means."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema


class StageKind(StrEnum):
    """One content-addressed unit of work."""

    DATASET = "dataset"
    KEYWORDS = "keywords"
    COLLABORATIVE = "collaborative"
    TRACES = "traces"
    ADAPTER = "adapter"
    PROJECTOR = "projector"
    GATE = "gate"
    EXPERT = "expert"
    BUNDLE = "bundle"
    EVALUATE = "evaluate"
    SCORE = "score"
    """Of an experiment: one variant on the rows that all are compared on."""
    COMPARE = "compare"
    """Of an experiment: how the variants' scores differ."""
    SIMULATE = "simulate"
    """Of an experiment on a laptop: users who behave as the test rows say, in place of real ones."""
    ANALYSE = "analyse"
    """Of an experiment: one look at what its users did."""


EXPERIMENT_KINDS = (StageKind.SCORE, StageKind.COMPARE, StageKind.SIMULATE, StageKind.ANALYSE)
MODEL_KINDS = tuple(kind for kind in StageKind if kind not in EXPERIMENT_KINDS)
"""The stages of a model, in the order of work."""


def _of_a_model(kind: StageKind) -> StageKind:
    if kind not in MODEL_KINDS:
        raise ValueError(f"is a stage of experiments; a model has {', '.join(MODEL_KINDS)}")
    return kind


ModelStage = Annotated[
    StageKind,
    AfterValidator(_of_a_model),
    WithJsonSchema({"type": "string", "enum": [kind.value for kind in MODEL_KINDS]}),
]
"""A stage of a model, as in its spec and status."""


SEMANTICS_VERSION: dict[StageKind, int] = dict.fromkeys(StageKind, 1) | {StageKind.SIMULATE: 2}
"""Raise a stage's number only when its output changes meaning: that, and nothing else, retrains after an upgrade."""
