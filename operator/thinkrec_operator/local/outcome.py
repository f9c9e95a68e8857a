# SPDX-License-Identifier: Apache-2.0
"""How a local run ends."""

from __future__ import annotations

from enum import StrEnum

from thinkrec_crds.conditions import Reason


class Outcome(StrEnum):
    """How a run ended."""

    DONE = "Done"
    """Everything that was asked for is there."""
    BAD_INPUT = "BadInput"
    FAILED = "Failed"
    GATE_FAILED = "GateFailed"
    INTERRUPTED = "Interrupted"
    SUSPENDED = "Suspended"
    NOTHING_TO_SERVE = "NothingToServe"


def stalled_outcome(reason: str) -> Outcome:
    """Return how a run ends that stalled for this reason."""
    if reason == Reason.GATE_FAILED:
        return Outcome.GATE_FAILED
    failed = (Reason.TRAINING_FAILED, Reason.EVALUATION_FAILED)
    return Outcome.FAILED if reason in failed else Outcome.BAD_INPUT
