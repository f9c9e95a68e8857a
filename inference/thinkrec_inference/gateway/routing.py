# SPDX-License-Identifier: Apache-2.0
"""A recommendation within experiments: assign, ask the variant, let control answer for one that fails, tell of it.

Every variant gets the same share of the deadline, control too, so that none has more time than another, and what is
left lets control answer for a variant that failed.

Experiments are layers over the same users, independent of each other. A request can go to one place, so the first
experiment that moves it from control decides. Whoever two experiments have moved, or is control of one and moved by
another, tells nothing about either: an exposure is for analysis only if all other experiments left the user with their
control. That holds for all variants of an experiment alike, so it biases none.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from thinkrec_crds.event_log import Exposure, FallbackReason
from thinkrec_crds.traffic import TrafficVariant
from thinkrec_inference.gateway.assignment import Assigned, Assigner, Draw, draw_bucket
from thinkrec_inference.gateway.events import EventLog
from thinkrec_inference.gateway.forwarding import ROUTED_HEADER, Forwarder, Passed, Unanswered, given_deadline
from thinkrec_inference.gateway.metrics import GatewayMetrics
from thinkrec_inference.gateway.mirroring import Mirror
from thinkrec_inference.gateway.recommend import Recommender
from thinkrec_inference.gateway.schemas import RecommendRequest, RecommendResponse
from thinkrec_inference.gateway.traffic_file import TrafficFile
from thinkrec_inference.refusal import Refused

VARIANT_SHARE = 0.85
"""Of the deadline, for whichever variant is asked first."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request, as it came."""

    request: RecommendRequest
    body: bytes
    """The caller's own bytes: forwarded, they are answered in the caller's case."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """By lower-case name."""
    cookies: Mapping[str, str] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def spent(self) -> float:
        """Return the seconds since it came."""
        return time.monotonic() - self.started


Answer = RecommendResponse | Passed
"""Of one's own model, or of another gateway."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One experiment's part in a request."""

    assigner: Assigner
    assigned: Assigned
    mixed: bool = False
    """Another experiment has moved the user, so this one learns nothing."""

    @property
    def moves(self) -> bool:
        """Return whether the user belongs to another variant than control."""
        return self.assigned.variant is not self.assigner.control


@dataclass(frozen=True, slots=True)
class Plan:
    """Who answers a request, and who if that one fails."""

    layers: tuple[Layer, ...]
    server: TrafficVariant
    control: TrafficVariant


def plan(assigners: Sequence[Assigner], call: Call, draw: Draw = draw_bucket) -> Plan:
    """Return who answers; `assigners` has at least one."""
    layers = []
    for assigner in assigners:
        unit = assigner.unit(call.request.user_id, call.headers, call.cookies)
        layers.append(Layer(assigner, assigner.assign(unit, draw)))
    decisive = next((layer for layer in layers if layer.moves), layers[0])
    server = decisive.assigned.served_by
    return Plan(tuple(_judged(layer, layers, server) for layer in layers), server, decisive.assigner.control)


def _judged(layer: Layer, layers: Sequence[Layer], server: TrafficVariant) -> Layer:
    """Return the layer, marked as mixed when another one moved the user, or answers for it from another place."""
    moved = any(other.moves for other in layers if other is not layer)
    if moved or layer.assigned.served_by.url != server.url:
        return Layer(layer.assigner, layer.assigned, mixed=True)
    return layer


@dataclass(frozen=True, slots=True)
class Router:
    """Answers POST /v1/recommend."""

    recommender: Recommender
    traffic: TrafficFile
    forwarder: Forwarder
    mirror: Mirror
    events: EventLog
    metrics: GatewayMetrics

    async def recommend(self, call: Call) -> Answer:
        """Return the answer of the user's variant, or of control for it; raise Refused for what cannot be served."""
        seconds = given_deadline(call.headers, self.recommender.settings.deadline_seconds)
        assigners = self.traffic.assigners
        if not assigners or ROUTED_HEADER in call.headers:
            return await self.recommender.recommend(call.request, seconds)
        chosen = plan(assigners, call)
        served, failed = chosen.server, True
        try:
            served, answer = await self._serve(chosen, call, seconds)
            failed = isinstance(answer, Passed) and answer.status >= 400
        finally:
            if failed:
                self._record(chosen, served, call, error=True, empty=True)
        if not failed:
            self._record(chosen, served, call, error=False, empty=not _items(answer))
            self._copy(chosen, served, call, answer)
        return answer

    async def _serve(self, chosen: Plan, call: Call, seconds: float) -> tuple[TrafficVariant, Answer]:
        """Return (who answered, the answer)."""
        if chosen.server is chosen.control:
            return chosen.control, await self._ask(chosen.control, call, seconds * VARIANT_SHARE)
        try:
            answer = await self._ask(chosen.server, call, seconds * VARIANT_SHARE)
            if not (isinstance(answer, Passed) and answer.failed):
                return chosen.server, answer
        except Refused as refusal:
            if refusal.detail.status < 500:
                raise
        self.metrics.fallbacks.labels(chosen.server.name, "Failed").inc()
        return chosen.control, await self._ask(chosen.control, call, max(0.01, seconds - call.spent()))

    async def _ask(self, variant: TrafficVariant, call: Call, seconds: float) -> Answer:
        if variant.url is None:
            return await self.recommender.recommend(call.request, seconds)
        try:
            return await self.forwarder.recommend(variant.url, call.body, seconds)
        except Unanswered as error:
            remedy = "Try again; the log of that variant's gateway says more."
            raise Refused(503, f"variant {variant.name} gave no answer: {error}", remedy, retry_after=1) from error

    def _record(self, chosen: Plan, served: TrafficVariant, call: Call, *, error: bool, empty: bool) -> None:
        now, latency = datetime.now(UTC), 1000 * call.spent()
        for layer in chosen.layers:
            if layer.assigner.experiment.mode == "Mirror":
                continue  # nobody is exposed to anything
            reason = _reason(layer, chosen, served)
            if reason == "NotReady":
                self.metrics.fallbacks.labels(layer.assigned.variant.name, reason).inc()
            told = self.events.offer(
                Exposure(
                    exposure_id=secrets.token_hex(8),
                    experiment=layer.assigner.experiment.uid,
                    variant=layer.assigned.variant.name,
                    user_id=call.request.user_id,
                    bucket=layer.assigned.bucket,
                    weights=layer.assigner.weights,
                    served_by=served.name,
                    revision=served.revision,
                    fallback=reason is not None,
                    fallback_reason=reason,
                    degraded=layer.assigner.degraded,
                    at=now,
                    latency_milliseconds=round(latency, 2),
                    error=error,
                    empty=empty,
                )
            )
            self.metrics.exposures.labels("recorded" if told else "dropped").inc()

    def _copy(self, chosen: Plan, served: TrafficVariant, call: Call, answer: Answer) -> None:
        """Send copies for the Mirrors whose control has answered."""
        for layer in chosen.layers:
            if served.url == layer.assigner.control.url:
                for variant in layer.assigner.mirrors():
                    self.mirror.copy(layer.assigner.experiment.uid, variant, call.request, answer)


def _reason(layer: Layer, chosen: Plan, served: TrafficVariant) -> FallbackReason | None:
    """Return why an exposure is not to be analysed, or None."""
    if layer.mixed:
        return "OtherExperiment"
    if layer.assigned.fallback:
        return "NotReady"
    return "Failed" if served is not chosen.server else None


def _items(answer: Answer) -> int:
    if isinstance(answer, Passed):
        return 0 if answer.view is None else len(answer.view.items)
    return len(answer.items)
