# SPDX-License-Identifier: Apache-2.0
"""An OpenAI-compatible HTTP server for tests, which answers and misbehaves as told."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, dict[str, str], dict[str, Any]]
"""Status, headers, body."""


def answered(text: str) -> Reply:
    """Return a good completion: seven prompt tokens, three new ones."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return (
        200,
        {},
        {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage},
    )


def failed(status: int, message: str = "no", **headers: str) -> Reply:
    """Return an error in the API's own form."""
    return status, headers, {"error": {"message": message, "type": "t", "code": None}}


@dataclass
class Endpoint:
    """Answers each request by `script(number, body)`; records bodies, keys, times and the most requests at once."""

    script: Callable[[int, dict[str, Any]], Reply] = lambda number, body: answered(
        body["messages"][-1]["content"].upper()
    )
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    delay: float = 0.0
    most: int = 0
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""

    def handle(self, request: BaseHTTPRequestHandler) -> Reply:
        """Record a request and answer it."""
        body = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
            number = len(self.bodies)
            self.bodies.append(body)
            self.keys.append(request.headers.get("Authorization", ""))
            self.times.append(time.monotonic())
        time.sleep(self.delay)
        with self._lock:
            self._now -= 1
        return self.script(number, body)


@contextlib.contextmanager
def serving() -> Iterator[Endpoint]:
    """Serve on loopback until the block ends."""
    served = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status, headers, body = served.handle(self)
            data = json.dumps(body).encode()
            self.send_response(status)
            for name, value in {
                **headers,
                "Content-Type": "application/json",
                "Content-Length": str(len(data)),
            }.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(BrokenPipeError):  # the client gave up: that is what the timeout test wants
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
