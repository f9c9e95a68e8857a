# SPDX-License-Identifier: Apache-2.0
"""Puts the gateway together: settings and parts in, an ASGI application out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI

from thinkrec_inference.client import TritonClient
from thinkrec_inference.gateway import errors
from thinkrec_inference.gateway.events import EventLog
from thinkrec_inference.gateway.forwarding import Forwarder
from thinkrec_inference.gateway.limits import BodyLimit, Measure
from thinkrec_inference.gateway.metrics import GatewayMetrics
from thinkrec_inference.gateway.mirroring import Mirror
from thinkrec_inference.gateway.recommend import Recommender
from thinkrec_inference.gateway.retrieval import load_catalogue
from thinkrec_inference.gateway.routes import event_routes, health_routes, ranking_routes, recommend_routes
from thinkrec_inference.gateway.routing import Router
from thinkrec_inference.gateway.traffic_file import TrafficFile
from thinkrec_inference.settings import GatewaySettings

DESCRIPTION = """Recommendations by a language model with thinking traces and per-user fused experts.

Keys are camelCase; snake_case is accepted and then answered. Every error is
`{error, remedy, field?, received?, details?}`.
"""


def create_app(
    recommender: Recommender, events: EventLog, close: Callable[[], Awaitable[None]] | None = None
) -> FastAPI:
    """Return the application; `close` is awaited at the end, inside the event loop."""

    metrics = GatewayMetrics()
    traffic = TrafficFile(recommender.settings.traffic_file)
    forwarder = Forwarder.open()
    mirror = Mirror(recommender, forwarder, events, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(traffic.refresh)
        watching = asyncio.create_task(traffic.watch())
        yield
        watching.cancel()
        await mirror.close()
        await forwarder.close()
        await asyncio.to_thread(events.close)
        if close is not None:
            await close()

    metrics.event_log_bytes.set_function(lambda: events.bytes_used)
    metrics.traffic_valid.set_function(lambda: float(traffic.valid))
    app = FastAPI(title="thinkrec gateway", version="1", description=DESCRIPTION, lifespan=lifespan)
    app.include_router(recommend_routes(Router(recommender, traffic, forwarder, mirror, events, metrics), metrics))
    app.include_router(ranking_routes(recommender, metrics))
    app.include_router(event_routes(events, metrics))
    app.include_router(health_routes(recommender, metrics))
    errors.install(app)
    app.add_middleware(BodyLimit, max_bytes=recommender.settings.max_body_bytes)
    app.add_middleware(Measure, metrics=metrics)
    return app


def open_log(settings: GatewaySettings) -> EventLog:
    """Return the event log that the settings describe."""
    return EventLog(
        settings.events_dir,
        segment_bytes=settings.events_segment_bytes,
        segment_seconds=settings.events_segment_seconds,
        max_bytes=settings.events_max_bytes,
    )


async def serve(settings: GatewaySettings) -> None:
    """Load the catalogue, connect to Triton and answer until SIGTERM or SIGINT."""
    catalogue = load_catalogue(settings.bundle_dir)
    triton = TritonClient(settings.triton_grpc, timeout_seconds=settings.deadline_seconds)
    recommender = Recommender(catalogue, triton, settings)
    app = create_app(recommender, open_log(settings), triton.close)
    config = uvicorn.Config(
        app,
        host=settings.gateway_host,
        port=settings.gateway_port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=int(settings.deadline_seconds) + 1,
    )
    await uvicorn.Server(config).serve()
