# SPDX-License-Identifier: Apache-2.0
"""The HTTP routes: parse, ask the recommender or the event log, answer. No decision is taken here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse
from prometheus_client import generate_latest

from thinkrec_crds.contract import Contract
from thinkrec_crds.engine_api import ExplainEvent
from thinkrec_inference.gateway.events import EventLog
from thinkrec_inference.gateway.forwarding import Passed
from thinkrec_inference.gateway.metrics import GatewayMetrics
from thinkrec_inference.gateway.recommend import Recommender
from thinkrec_inference.gateway.routing import Call, Router
from thinkrec_inference.gateway.schemas import (
    ErrorBody,
    EventsAnswer,
    EventsRequest,
    Id,
    ReadyAnswer,
    RecommendRequest,
    RecommendResponse,
    ScoreAnswer,
    ScoreBody,
)
from thinkrec_inference.refusal import Refused
from thinkrec_inference.triton_launcher import MODELS

_MEANINGS = {
    400: "The body is not JSON",
    404: "An item is not in the catalogue",
    409: "An eventId was used before with other content",
    413: "The body is bigger than maxBodyBytes",
    422: "A field is wrong; all wrong fields are named",
    503: "Triton or the engine is away or overloaded; see Retry-After",
    504: "The deadline passed",
}


def _errors(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {code: {"model": ErrorBody, "description": _MEANINGS[code]} for code in codes}


async def snake_case(request: Request) -> bool:
    """Return whether the caller writes snake_case, and so wants to read it."""
    try:
        body = json.loads(await request.body())
    except ValueError:
        return False
    return isinstance(body, dict) and any("_" in key for key in body)


Snake = Annotated[bool, Depends(snake_case)]


def render(answer: Contract, snake: bool) -> Response:
    """Return the answer in the caller's case; absent optional fields are left out."""
    body = answer.model_dump(mode="json", by_alias=not snake, exclude_none=True)
    return Response(json.dumps(body, ensure_ascii=False), media_type="application/json")


def recommend_routes(variants: Router, metrics: GatewayMetrics) -> APIRouter:
    """Return the route that experiments share out among variants."""
    router = APIRouter(tags=["ranking"])

    @router.post("/v1/recommend", response_model=RecommendResponse, responses=_errors(400, 404, 413, 422, 503, 504))
    async def recommend(body: RecommendRequest, snake: Snake, request: Request) -> Response:
        """Return the best k items for a user, with gate weights and, when asked, reasons."""
        answer = await variants.recommend(Call(body, await request.body(), request.headers, request.cookies))
        if isinstance(answer, Passed):
            wait = {} if answer.retry_after is None else {"Retry-After": answer.retry_after}
            return Response(answer.content, answer.status, wait, media_type="application/json")
        metrics.branches.labels(answer.branch.value).inc()
        metrics.retrievals.labels(answer.retrieval).inc()
        for item in answer.items:
            if item.finish_reason is not None:
                metrics.explanations.labels(item.finish_reason).inc()
        return render(answer, snake)

    return router


def ranking_routes(recommender: Recommender, metrics: GatewayMetrics) -> APIRouter:
    """Return the other routes that ask the model; experiments do not reach them."""
    router = APIRouter(tags=["ranking"])

    @router.post("/v1/score", response_model=ScoreAnswer, responses=_errors(400, 404, 413, 422, 503, 504))
    async def score(body: ScoreBody, snake: Snake) -> Response:
        """Return the score of each given item, in the given order."""
        answer = await recommender.score(body)
        metrics.branches.labels(answer.branch.value).inc()
        return render(answer, snake)

    @router.get("/v1/explain", responses=_errors(404, 422, 503), response_class=StreamingResponse)
    async def explain(
        user_id: Annotated[Id, Query(alias="userId")], item_id: Annotated[Id, Query(alias="itemId")]
    ) -> Response:
        """Stream one explanation as server-sent events; each `data:` is an ExplainEvent, the last one has `done`."""
        events = recommender.explain_one(user_id, item_id)
        first = await anext(events, None)
        return StreamingResponse(_sse(first, events), media_type="text/event-stream")

    return router


async def _sse(first: ExplainEvent | None, events: AsyncIterator[ExplainEvent]) -> AsyncIterator[str]:
    """Yield the events; the status is sent already, so an error becomes an event of its own name."""
    try:
        if first is not None:
            yield f"data: {first.to_json()}\n\n"
        async for event in events:
            yield f"data: {event.to_json()}\n\n"
    except Refused as refusal:
        yield f"event: error\ndata: {refusal.detail.to_json()}\n\n"


def event_routes(events: EventLog, metrics: GatewayMetrics) -> APIRouter:
    """Return the route that takes feedback."""
    router = APIRouter(tags=["feedback"])

    @router.post("/v1/events", response_model=EventsAnswer, responses=_errors(400, 409, 413, 422, 503))
    async def append(body: EventsRequest, snake: Snake) -> Response:
        """Store feedback. The answer comes after the events are on disk; sending them again is harmless."""
        durable = await asyncio.to_thread(events.submit, body.events)  # a thousand events take 10 ms to write as JSON
        accepted, duplicates = await asyncio.wrap_future(durable)
        metrics.events.labels("accepted").inc(accepted)
        metrics.events.labels("duplicate").inc(duplicates)
        return render(EventsAnswer(accepted=accepted, duplicates=duplicates), snake)

    return router


def health_routes(recommender: Recommender, metrics: GatewayMetrics) -> APIRouter:
    """Return the routes for probes and Prometheus."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Say that this process lives; it says nothing about Triton."""
        return {"status": "ok"}

    @router.get("/readyz", response_model=ReadyAnswer, responses=_errors(503))
    async def readyz() -> Response:
        """Say that the whole path answers: both Triton models are ready and the engine behind them replies."""
        ready = await recommender.scorer.models_ready()
        missing = sorted(set(MODELS) - set(ready))
        if missing:
            raise Refused(
                503, f"Triton is up, not ready: {', '.join(missing)}", "Wait, or read Triton's log.", retry_after=2
            )
        generation = await recommender.scorer.generation()
        return render(ReadyAnswer(ready=True, generation=generation, models=ready), snake=False)

    @router.get("/metrics", response_class=Response)
    async def prometheus() -> Response:
        """Return the gateway's metrics in Prometheus' text format."""
        return Response(generate_latest(metrics.registry), media_type="text/plain; version=0.0.4")

    return router
