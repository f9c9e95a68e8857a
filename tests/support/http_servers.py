# SPDX-License-Identifier: Apache-2.0
"""Real HTTP servers on loopback, in threads: an ASGI application, or a gateway that misbehaves in a chosen way."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import uvicorn

from support.seaweed import free_ports

START_SECONDS = 20


@contextlib.contextmanager
def serving(app: Any) -> Iterator[tuple[str, Callable[[], None]]]:
    """Run an ASGI application; yield its address and a function that stops it early, as a Pod that is deleted does."""
    (port,) = free_ports(1)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + START_SECONDS
    while not server.started:
        assert time.monotonic() < deadline, "the server did not start"
        time.sleep(0.01)

    def stop() -> None:
        server.should_exit = True
        thread.join()

    try:
        yield f"http://127.0.0.1:{port}", stop
    finally:
        stop()


@dataclass
class Script:
    """What a scripted server answers, and what it was asked."""

    status: int = 200
    content: bytes = b"{}"
    seconds: float = 0.0
    """Before it answers."""
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    """(headers by lower-case name, body)."""


@contextlib.contextmanager
def scripted() -> Iterator[tuple[str, Script]]:
    """Run a server that does what the script says at that moment; yield its address and the script."""
    script = Script()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            script.requests.append(({name.lower(): value for name, value in self.headers.items()}, body))
            time.sleep(script.seconds)
            with contextlib.suppress(ConnectionError):  # the caller has given up
                self.send_response(script.status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(script.content)))
                self.end_headers()
                self.wfile.write(script.content)

        def log_message(self, *args: Any) -> None:
            """Stay quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", script
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
