# SPDX-License-Identifier: Apache-2.0
"""The kubelet's half of `kubectl logs`: an HTTPS server that the real API server asks for the logs of pods."""

from __future__ import annotations

import contextlib
import http.server
import ssl
import threading
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, urlsplit

from embedded_cluster.certificates import Pair

Find = Callable[[str, str], str | None]
"""Namespace and name of a pod -> its log, or None where it has none."""


@contextlib.contextmanager
def serving(find: Find, certificate: Pair) -> Iterator[int]:
    """Serve logs on a free loopback port, and yield the port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(find))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def shortened(log: str, query: dict[str, list[str]]) -> str:
    """Return the part of a log that the request asks for, as a kubelet would."""
    if "tailLines" in query:
        count = int(query["tailLines"][0])
        log = "".join(log.splitlines(keepends=True)[-count:]) if count else ""
    if "limitBytes" in query:
        log = log.encode()[: int(query["limitBytes"][0])].decode("utf-8", "ignore")
    return log


def _handler(find: Find) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            parts = url.path.strip("/").split("/")
            found = find(parts[1], parts[2]) if parts[0] == "containerLogs" and len(parts) == 4 else None
            body = b"no such log" if found is None else shortened(found, parse_qs(url.query)).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Stay silent: pytest shows what a test says."""

    return Handler
