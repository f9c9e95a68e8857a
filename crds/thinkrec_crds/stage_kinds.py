# SPDX-License-Identifier: Apache-2.0
"""The stages of the method (method.md) and the version of what each one's output means."""

from __future__ import annotations

from enum import StrEnum


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


SEMANTICS_VERSION: dict[StageKind, int] = dict.fromkeys(StageKind, 1)
"""Raise a stage's number only when its output changes meaning: that, and nothing else, retrains after an upgrade."""
