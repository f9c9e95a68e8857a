# SPDX-License-Identifier: Apache-2.0
"""ASGI middleware: refuses a body beyond the limit before it is read whole, and measures every request."""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from thinkrec_inference.gateway.errors import respond
from thinkrec_inference.gateway.metrics import GatewayMetrics
from thinkrec_inference.gateway.schemas import ErrorBody


class BodyLimit:
    """Answers 413 as soon as Content-Length or the bytes received exceed the limit."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body up to the limit, then hand it on as one message."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = await self._read(scope, receive)
        if body is None:
            await respond(413, self._too_big())(scope, receive, send)
            return
        await self.app(scope, _replay(body, receive), send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """Return the body, or None when it is too big."""
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self.max_bytes:
            return None
        chunks, size, more = [], 0, True
        while more:
            message = await receive()
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            more = message.get("more_body", False)
            if size > self.max_bytes:
                return None
        return b"".join(chunks)

    def _too_big(self) -> ErrorBody:
        return ErrorBody(
            error=f"the body is bigger than {self.max_bytes} bytes",
            remedy=f"Send at most {self.max_bytes} bytes, for events in several requests.",
        )


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a receive that yields the body first and then whatever comes (the disconnect)."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again


class Measure:
    """Counts requests by route template and status, those in hand, and their duration."""

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and observe its end."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = "500"

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        started, counted = time.perf_counter(), scope["path"].startswith("/v1/")  # probes and scrapes are no load
        self.metrics.pending.inc(counted)
        try:
            await self.app(scope, receive, watch)
        finally:
            self.metrics.pending.dec(counted)
            route = getattr(scope.get("route"), "path", "unmatched")  # never the raw path: unbounded label values
            self.metrics.requests.labels(route, status).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - started)
