# SPDX-License-Identifier: Apache-2.0
"""The ports: /healthz and /readyz for the kubelet, /metrics for Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from thinkrec_operator.cluster.echo import Echo
from thinkrec_operator.cluster.metrics import Metrics

LAG_SECONDS = 0.5
_Handler = Callable[[web.Request], Awaitable[web.Response]]


@dataclass(slots=True)
class Health:
    """What the two probes answer."""

    echo: Echo
    ready: bool = False
    """The first LIST is done and the workers run."""
    ending: bool = False

    async def live(self, request: web.Request) -> web.Response:
        """Answer 503 when a watch is dead: only a restart brings it back."""
        dead = self.echo.dead()
        if dead:
            return web.Response(status=503, text=f"the watch of {', '.join(dead)} is dead\n")
        return web.Response(text="ok\n")

    async def readiness(self, request: web.Request) -> web.Response:
        """Answer 503 until the first LIST is done, and while ending."""
        if self.ready and not self.ending:
            return web.Response(text="ok\n")
        return web.Response(status=503, text="ending\n" if self.ending else "the first list is not done\n")


@asynccontextmanager
async def serving(health: Health, metrics: Metrics, *, health_port: int, metrics_port: int) -> AsyncIterator[None]:
    """Serve both ports while inside; 0 serves none. OSError names a port that is taken."""

    async def exposition(request: web.Request) -> web.Response:
        names = request.query.getall("name[]", [])  # as Prometheus's own clients take it: only these series
        registry = metrics.registry.restricted_registry(names) if names else metrics.registry
        text = await asyncio.to_thread(generate_latest, registry)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    runners = [
        await _listen(health_port, {"/healthz": health.live, "/readyz": health.readiness}),
        await _listen(metrics_port, {"/metrics": exposition}),
    ]
    try:
        yield
    finally:
        for runner in runners:
            await runner.cleanup()


async def _listen(port: int, routes: dict[str, _Handler]) -> web.AppRunner:
    app = web.Application()
    app.add_routes([web.get(path, handler) for path, handler in routes.items()])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    if port:
        await web.TCPSite(runner, host=None, port=port).start()
    return runner


async def measure_lag(metrics: Metrics) -> None:
    """Measure for ever how late the event loop is."""
    loop = asyncio.get_running_loop()
    while True:
        start = loop.time()
        await asyncio.sleep(LAG_SECONDS)
        metrics.loop_lag.set(max(0.0, loop.time() - start - LAG_SECONDS))
