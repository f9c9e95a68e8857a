# SPDX-License-Identifier: Apache-2.0
"""Stands where the Triton client stands: answers from the arithmetic engine, or with a refusal set by the test."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator

from support.arithmetic_engine import ArithmeticEngine
from thinkrec_crds.engine_api import EngineError, ExplainEvent, ExplainRequest, ScoreRequest, ScoreResponse
from thinkrec_inference.refusal import Refused
from thinkrec_inference.triton_launcher import MODELS


class DirectScorer:
    """A scorer without a network."""

    def __init__(self) -> None:
        self.engine = ArithmeticEngine()
        self.requests: list[ScoreRequest] = []
        self.explained: list[ExplainRequest] = []
        self.refusal: Refused | None = None
        """Raised instead of any answer."""
        self.seconds_per_event = 0.0
        self.ready: tuple[str, ...] = MODELS

    async def score(self, request: ScoreRequest, *, timeout_seconds: float | None = None) -> ScoreResponse:
        """Score by arithmetic."""
        self._refuse()
        self.requests.append(request)
        (answer,) = self.engine.score([request])
        if isinstance(answer, EngineError):
            raise Refused.of(answer)
        return answer

    async def explain(
        self, request: ExplainRequest, *, timeout_seconds: float | None = None
    ) -> AsyncGenerator[ExplainEvent]:
        """Spell the item's id."""
        self._refuse()
        self.explained.append(request)
        (spelling,) = self.engine.begin([request])
        if isinstance(spelling, EngineError):
            raise Refused.of(spelling)
        ends = time.monotonic() + (math.inf if request.max_seconds is None else request.max_seconds)
        while not spelling.done:
            left = ends - time.monotonic()
            await asyncio.sleep(min(self.seconds_per_event, max(0.0, left)))
            if left < self.seconds_per_event:
                yield ExplainEvent(text="", done=True, finish_reason="cancelled")
                return
            self.engine.step([spelling])
            event = spelling.take()
            assert event is not None
            yield event

    async def models_ready(self) -> tuple[str, ...]:
        """Return the models that the test calls ready."""
        self._refuse()
        return self.ready

    async def generation(self) -> str:
        """Return the engine's generation."""
        self._refuse()
        return self.engine.generation

    def _refuse(self) -> None:
        if self.refusal is not None:
            raise self.refusal
