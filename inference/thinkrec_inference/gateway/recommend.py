# SPDX-License-Identifier: Apache-2.0
"""From a user to a ranking with reasons: retrieve, score, sort, explain. Knows neither HTTP nor Triton."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from thinkrec_crds.engine_api import ExplainEvent, ExplainRequest, HistoryItem, ScoreRequest, ScoreResponse
from thinkrec_inference.gateway.errors import refuse_field
from thinkrec_inference.gateway.retrieval import Candidates, Catalogue, given, retrieve
from thinkrec_inference.gateway.schemas import (
    GateWeight,
    RecommendedItem,
    RecommendRequest,
    RecommendResponse,
    ScoreAnswer,
    ScoreBody,
    ScoredItem,
)
from thinkrec_inference.refusal import Refused
from thinkrec_inference.settings import GatewaySettings

log = logging.getLogger(__name__)
EXPLAIN_RESERVE_SECONDS = 0.2
"""Kept back from the deadline: the engine itself ends a reason so much earlier, so that it reaches the caller."""


class Scorer(Protocol):
    """What ranks and explains: the Triton client."""

    async def score(self, request: ScoreRequest, *, timeout_seconds: float | None = None) -> ScoreResponse:
        """Return scores in the order of the request."""

    def explain(self, request: ExplainRequest, *, timeout_seconds: float | None = None) -> AsyncGenerator[ExplainEvent]:
        """Yield the explanation piece by piece."""

    async def models_ready(self) -> tuple[str, ...]:
        """Return the names of the ready models."""

    async def generation(self) -> str:
        """Return the generation of the engine, through the whole path."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One explanation, whole or cut."""

    text: str = ""
    decision: Literal["Yes", "No"] | None = None
    finish_reason: Literal["stop", "length", "cancelled"] = "cancelled"


@dataclass(frozen=True, slots=True)
class Deadline:
    """When the caller stops waiting."""

    seconds: float
    started: float = field(default_factory=time.monotonic)

    def left(self) -> float:
        """Return the remaining seconds, never less than a moment (a timeout of 0 would mean none)."""
        return max(0.001, self.seconds - self.spent())

    def spent(self) -> float:
        """Return the seconds since the request came."""
        return time.monotonic() - self.started


@dataclass(frozen=True, slots=True)
class Recommender:
    """Answers for one bundle."""

    catalogue: Catalogue
    scorer: Scorer
    settings: GatewaySettings

    async def recommend(self, request: RecommendRequest, seconds: float | None = None) -> RecommendResponse:
        """Return the best k items within `seconds` (None: the deadline); raise Refused for what cannot be served."""
        deadline = Deadline(self.settings.deadline_seconds if seconds is None else seconds)
        if "k" not in request.model_fields_set:
            request = request.model_copy(update={"k": min(request.k, self.settings.max_candidates)})
        candidates = self._candidates(request)
        answer = await self._score(request.user_id, candidates.item_ids, request.history, deadline)
        items = self._rank(request, candidates, answer)
        if request.explain:
            items = await self._explain(request, items, deadline)
        return RecommendResponse(
            user_id=request.user_id,
            items=tuple(items),
            gates=self._gates(answer),
            branch=answer.branch,
            cold_start=answer.cold_start,
            generation=answer.generation,
            retrieval=candidates.source,
            candidates_scored=len(answer.item_ids),
            took_milliseconds=_milliseconds(deadline),
        )

    async def score(self, body: ScoreBody) -> ScoreAnswer:
        """Return the score of each given item; raise Refused for what cannot be served."""
        deadline = Deadline(self.settings.deadline_seconds)
        self._check_items("itemIds", body.item_ids)
        answer = await self._score(body.user_id, body.item_ids, body.history, deadline)
        seen = self.catalogue.has_seen(body.user_id)
        items = [
            ScoredItem(item_id=item, title=self._title(item), score=score, seen=item in seen)
            for item, score in zip(answer.item_ids, answer.scores, strict=True)
        ]
        return ScoreAnswer(
            user_id=body.user_id,
            items=tuple(items),
            gates=self._gates(answer),
            branch=answer.branch,
            cold_start=answer.cold_start,
            generation=answer.generation,
            took_milliseconds=_milliseconds(deadline),
        )

    def explain_one(self, user_id: str, item_id: str) -> AsyncGenerator[ExplainEvent]:
        """Return the stream of one explanation; raise Refused (404) for an unknown item."""
        self._check_items("itemId", (item_id,))
        request = ExplainRequest(
            user_id=user_id,
            item_id=item_id,
            max_tokens=self.settings.max_explanation_tokens,
            max_seconds=self.settings.deadline_seconds,
        )
        return self.scorer.explain(request, timeout_seconds=self.settings.deadline_seconds + 1)

    def _candidates(self, request: RecommendRequest) -> Candidates:
        most = self.settings.max_candidates
        if request.k > most:
            raise refuse_field(
                "k",
                f"k is {request.k}; at most {most} items can be returned",
                f"Ask for k between 1 and {most}.",
                request.k,
            )
        if request.candidates is not None:
            self._check_items("candidates", request.candidates)
            return given(self.catalogue, request.user_id, request.candidates)
        found = retrieve(self.catalogue, request.user_id, min(most, request.k * self.settings.retrieve_factor))
        if not found.item_ids:
            raise Refused(404, f"user {request.user_id!r} has seen every item", "Send candidates to rank seen items.")
        return found

    def _check_items(self, name: str, item_ids: Sequence[str]) -> None:
        most = self.settings.max_candidates
        if len(item_ids) > most:
            raise refuse_field(
                name,
                f"{name} has {len(item_ids)} items; at most {most} are scored",
                f"Send at most {most}.",
                len(item_ids),
            )
        for item in item_ids:
            if item not in self.catalogue.item_row:
                raise refuse_field(
                    name,
                    f"item {item!r} is not in the catalogue of this bundle",
                    "Use an itemId of the training data; new items need a new bundle.",
                    item,
                    status=404,
                )

    async def _score(
        self, user_id: str, item_ids: Sequence[str], history: Sequence[HistoryItem] | None, deadline: Deadline
    ) -> ScoreResponse:
        request = ScoreRequest(
            user_id=user_id, item_ids=tuple(item_ids), history=None if history is None else tuple(history)
        )
        return await self.scorer.score(request, timeout_seconds=deadline.left())

    def _rank(self, request: RecommendRequest, candidates: Candidates, answer: ScoreResponse) -> list[RecommendedItem]:
        """Sort by score, ties by the order of the candidates, and keep k."""
        scores = dict(zip(answer.item_ids, answer.scores, strict=True))
        seen = self.catalogue.has_seen(request.user_id)
        best = sorted(candidates.item_ids, key=lambda item: -scores[item])[: request.k]
        return [
            RecommendedItem(
                rank=place,
                item_id=item,
                title=self._title(item),
                score=scores[item],
                cf_rank=candidates.cf_rank.get(item),
                seen=item in seen,
            )
            for place, item in enumerate(best, 1)
        ]

    async def _explain(
        self, request: RecommendRequest, items: list[RecommendedItem], deadline: Deadline
    ) -> list[RecommendedItem]:
        """Write the reasons of the first items side by side; the deadline cuts them."""
        top = items[: request.explain_top]
        reasons = await asyncio.gather(*(self._reason(request, item.item_id, deadline) for item in top))
        explained = [
            item.model_copy(update={"reason": r.text.strip(), "decision": r.decision, "finish_reason": r.finish_reason})
            for item, r in zip(top, reasons, strict=True)
        ]
        return explained + items[len(top) :]

    async def _reason(self, request: RecommendRequest, item_id: str, deadline: Deadline) -> Reason:
        asked = ExplainRequest(
            user_id=request.user_id,
            item_id=item_id,
            history=request.history,
            max_tokens=self.settings.max_explanation_tokens,
            max_seconds=max(0.001, deadline.left() - EXPLAIN_RESERVE_SECONDS),
        )
        reason = Reason()
        try:
            async with contextlib.aclosing(self.scorer.explain(asked, timeout_seconds=deadline.left())) as events:
                async for event in events:
                    reason = add(reason, event)
        except Refused as refusal:  # the ranking stands without its reasons
            log.warning("no reason for item %s: %s", item_id, refusal)
        return reason

    def _gates(self, answer: ScoreResponse) -> tuple[GateWeight, ...]:
        return tuple(
            GateWeight(expert=name, weight=weight)
            for name, weight in zip(self.catalogue.slots, answer.gates, strict=True)
        )

    def _title(self, item_id: str) -> str:
        return self.catalogue.titles[self.catalogue.item_row[item_id]]


def add(reason: Reason, event: ExplainEvent) -> Reason:
    """Return the reason with one more piece."""
    return replace(
        reason,
        text=reason.text + event.text,
        decision=event.decision or reason.decision,
        finish_reason=event.finish_reason or ("stop" if event.done else reason.finish_reason),
    )


def _milliseconds(deadline: Deadline) -> float:
    return round(1000 * deadline.spent(), 1)
