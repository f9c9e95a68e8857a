# SPDX-License-Identifier: Apache-2.0
"""Conditions as one decision collects them, with the times of the transitions before. Pure, but for its own list."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from thinkrec_crds.conditions import ConditionType, Reason
from thinkrec_crds.model_status import Condition, ConditionStatus

MAX_MESSAGE = 4096


@dataclass(slots=True)
class Board:
    """Collects conditions; keeps the time of the last transition where the status did not change."""

    now: datetime
    generation: int
    previous: dict[str, Condition]
    found: list[Condition] = field(default_factory=list)

    def put(self, kind: ConditionType, status: ConditionStatus, reason: str, message: str = "") -> None:
        """Put a condition; one that says what it said before stays the same object."""
        before = self.previous.get(kind)
        same = before is not None and before.status == status
        told = (status, reason, message[:MAX_MESSAGE], self.generation)
        if before is not None and told == (before.status, before.reason, before.message, before.observed_generation):
            self.found.append(before)  # a steady model makes no new objects
            return
        self.found.append(
            Condition(
                type=kind.value,
                status=status,
                observed_generation=self.generation,
                last_transition_time=before.last_transition_time if before is not None and same else self.now,
                reason=reason,
                message=message[:MAX_MESSAGE],
            )
        )

    def when(self, kind: ConditionType, holds: bool, good: Reason, bad: tuple[str, str]) -> None:
        """Put True with its reason, or False with the given reason and message."""
        if holds:
            self.put(kind, "True", good.value, good.meaning)
        else:
            self.put(kind, "False", *bad)
