# SPDX-License-Identifier: Apache-2.0
"""A scoring engine whose answers are known by construction, for tests of what lies around the engine.

The score of an item is the sum of its id's code points plus the length of the user's id; an explanation spells the
item's id, one letter per step. Items called `unknown…` are refused, `crash…` raises a defect.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from thinkrec_crds.engine_api import Branch, EngineError, ExplainEvent, ExplainRequest, ScoreRequest, ScoreResponse
from thinkrec_inference.refusal import Refused


def expected_score(user_id: str, item_id: str) -> float:
    """Return the score that the arithmetic engine gives."""
    return float(sum(map(ord, item_id)) + len(user_id))


@dataclass
class Spelling:
    """An explanation that spells a word, one letter per step."""

    word: str
    written: int = 0
    taken: int = 0

    @property
    def done(self) -> bool:
        """Return whether the whole word is written."""
        return self.written == len(self.word)

    def next_letter(self) -> str:
        """Write one letter."""
        self.written += 1
        return self.word[self.written - 1]

    def take(self) -> ExplainEvent | None:
        """Return the letters since the last call; the last event has the decision."""
        text, self.taken = self.word[self.taken : self.written], self.written
        if self.done:
            return ExplainEvent(text=text, done=True, finish_reason="stop", decision="Yes")
        return ExplainEvent(text=text) if text else None


class ArithmeticEngine:
    """Records the batches it was asked for and the order of its work; a test may hold it in the middle of it."""

    def __init__(self, *, seconds_per_batch: float = 0.0, seconds_per_step: float = 0.0, held: bool = False) -> None:
        self.seconds_per_batch = seconds_per_batch
        self.seconds_per_step = seconds_per_step
        self.batches: list[tuple[str, ...]] = []
        self.work: list[str] = []
        self.threads: set[str] = set()
        self.entered = threading.Event()
        """Set once a batch or a step has begun."""
        self.go = threading.Event()
        """While it is clear, what has begun does not go on."""
        if not held:
            self.go.set()
        self.generation = "sha256:" + "0" * 64

    prefix_hit_ratio = 0.5

    def tokens(self, request: ScoreRequest) -> int:
        """Return 100 for the prefix and 10 per candidate."""
        return 100 + 10 * len(request.item_ids)

    def score(self, requests: Sequence[ScoreRequest]) -> list[ScoreResponse | EngineError]:
        """Score by arithmetic; a defect takes the whole batch with it, as in a forward pass."""
        self.threads.add(threading.current_thread().name)
        self._take_time(self.seconds_per_batch)
        self.work.append("score")
        self._crash(*requests)
        self.batches.append(tuple(request.user_id for request in requests))
        return [self._refusal(request) or self._answer(request) for request in requests]

    def _take_time(self, seconds: float) -> None:
        self.entered.set()
        assert self.go.wait(60), "nobody lets the engine go on"
        time.sleep(seconds)

    def _crash(self, *requests: ScoreRequest) -> None:
        if any(item.startswith("crash") for request in requests for item in request.item_ids):
            raise ZeroDivisionError("a defect")

    def _refusal(self, request: ScoreRequest) -> EngineError | None:
        unknown = [item for item in request.item_ids if item.startswith("unknown")]
        return EngineError(status=404, error=f"item {unknown[0]!r} is not in the catalogue") if unknown else None

    def _answer(self, request: ScoreRequest) -> ScoreResponse:
        return ScoreResponse(
            user_id=request.user_id,
            item_ids=request.item_ids,
            scores=tuple(expected_score(request.user_id, item) for item in request.item_ids),
            gates=(0.75, 0.25, 0.0),
            branch=Branch.FUSED,
            cold_start=False,
            generation=self.generation,
        )

    def begin(self, requests: Sequence[ExplainRequest]) -> list[Spelling | EngineError]:
        """Begin to spell each item's id."""
        asked = [ScoreRequest(user_id=request.user_id, item_ids=(request.item_id,)) for request in requests]
        self._crash(*asked)
        self.work.append(f"begin {len(requests)}")
        return [self._refusal(request) or Spelling(request.item_ids[0]) for request in asked]

    def step(self, explanations: Sequence[Spelling]) -> None:
        """Write one more letter of each."""
        self._take_time(self.seconds_per_step)
        self.work.append("".join(e.next_letter() for e in explanations))

    def swap(self, bundle: Path) -> None:
        """Take the folder's name as generation; a folder that does not exist is refused."""
        if not bundle.is_dir():
            raise Refused(422, f"no bundle at {bundle}", "Give a folder.")
        self.generation = bundle.name
