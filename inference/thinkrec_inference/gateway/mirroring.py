# SPDX-License-Identifier: Apache-2.0
"""Copies of requests for other variants, after the caller has its answer; how the answers differ goes to the event log.

The load is bounded: so many copies at a time, further ones are skipped and counted, and a copy asks for no reasons,
which are most of a request's work.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from thinkrec_crds.event_log import Mirrored
from thinkrec_crds.gateway_api import RecommendationView
from thinkrec_crds.traffic import TrafficVariant
from thinkrec_inference.gateway.events import EventLog
from thinkrec_inference.gateway.forwarding import Forwarder, Passed, Unanswered
from thinkrec_inference.gateway.metrics import GatewayMetrics
from thinkrec_inference.gateway.recommend import Recommender
from thinkrec_inference.gateway.schemas import RecommendRequest, RecommendResponse
from thinkrec_inference.refusal import Refused

log = logging.getLogger(__name__)
Ranking = Sequence[tuple[str, float]]
"""(item, score), best first."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a variant's ranking differs from control's."""

    overlap: float | None = None
    """Share of control's items that the other has too; None where control has none."""
    rank_correlation: float | None = None
    score_shift: float | None = None


def compare(control: Ranking, other: Ranking) -> Comparison:
    """Return how the rankings differ.

    Correlation and shift are those of the items in both. Spearman's rho, without ties since places are unique:
    1 - 6 sum d^2 / (n (n^2 - 1)), with d the difference of an item's places among those n items.
    """
    theirs = dict(other)
    common = [(item, score) for item, score in control if item in theirs]
    places = {item: place for place, item in enumerate(item for item, _ in other if item in dict(common))}
    n = len(common)
    squares = sum((place - places[item]) ** 2 for place, (item, _) in enumerate(common))
    return Comparison(
        overlap=n / len(control) if control else None,
        rank_correlation=1 - 6 * squares / (n * (n * n - 1)) if n >= 2 else None,
        score_shift=sum(theirs[item] - score for item, score in common) / n if n else None,
    )


@dataclass(slots=True)
class Mirror:
    """Sends copies in the background."""

    recommender: Recommender
    forwarder: Forwarder
    events: EventLog
    metrics: GatewayMetrics
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def copy(
        self, uid: str, variant: TrafficVariant, request: RecommendRequest, answer: RecommendResponse | Passed
    ) -> None:
        """Begin one copy, unless enough are under way. Returns at once."""
        if len(self.tasks) >= self.recommender.settings.mirror_concurrency:
            self.metrics.mirrored.labels("skipped").inc()
            return
        task = asyncio.create_task(self._copy(uid, variant, request, answer))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def close(self) -> None:
        """Give up the copies under way."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _copy(
        self, uid: str, variant: TrafficVariant, request: RecommendRequest, answer: RecommendResponse | Passed
    ) -> None:
        begun = time.monotonic()
        theirs = await self._ask(variant, request.model_copy(update={"explain": False}))
        latency = 1000 * (time.monotonic() - begun)
        control = _ranking(answer)
        found = Comparison() if theirs is None else compare(control, theirs)
        self.metrics.mirrored.labels("failed" if theirs is None else "compared").inc()
        self.events.offer(
            Mirrored(
                mirror_id=secrets.token_hex(8),
                experiment=uid,
                variant=variant.name,
                revision=variant.revision,
                user_id=request.user_id,
                at=datetime.now(UTC),
                branch=_branch(answer),
                error=theirs is None,
                latency_milliseconds=round(latency, 2),
                items=len(control),
                overlap=found.overlap,
                rank_correlation=found.rank_correlation,
                score_shift=found.score_shift,
            )
        )

    async def _ask(self, variant: TrafficVariant, request: RecommendRequest) -> Ranking | None:
        """Return the variant's ranking, or None when it gave none."""
        seconds = self.recommender.settings.deadline_seconds
        try:
            if variant.url is None:
                return _ranking(await self.recommender.recommend(request, seconds))
            body = request.model_dump_json(by_alias=True, exclude_unset=True).encode()
            answer = await self.forwarder.recommend(variant.url, body, seconds)
        except (Unanswered, Refused) as error:
            log.info("no copy of a request was answered by %s: %s", variant.name, error)
            return None
        return None if answer.view is None else _ranking(answer)


def _ranking(answer: RecommendResponse | Passed) -> Ranking:
    found: RecommendResponse | RecommendationView | None = answer.view if isinstance(answer, Passed) else answer
    return [] if found is None else [(item.item_id, item.score) for item in found.items]


def _branch(answer: RecommendResponse | Passed) -> str:
    if isinstance(answer, Passed):
        return "" if answer.view is None else answer.view.branch
    return answer.branch.value
