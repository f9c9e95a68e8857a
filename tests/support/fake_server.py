# SPDX-License-Identifier: Apache-2.0
"""A server process that answers /readyz as the gateway does: `fake_server.py --bundle … --gateway-port …`.

It leaves the names of its environment's variables in FAKE_STAGE_CONTROL/server.variables. FAKE_STAGE_CONTROL/server may
hold `exit N`: then it says why on standard error and ends with N at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """Ready from the start."""

    def do_GET(self) -> None:
        """Answer 200 to everything."""
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Stay quiet."""


def main() -> int:
    """Serve until a signal ends the process."""
    parser = argparse.ArgumentParser()
    for name in ("--bundle", "--base-model", "--work-dir"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--gateway-port", type=int, required=True)
    given = parser.parse_args()
    control = Path(os.environ["FAKE_STAGE_CONTROL"])
    with (control / "server.log").open("a") as handle:
        handle.write(f"{os.getpid()} {given.bundle} {os.environ['THINKREC_MAX_CANDIDATES']}\n")
    (control / "server.variables").write_text("\n".join(sorted(os.environ)))
    order = control / "server"
    if order.is_file():
        sys.stderr.write("cannot load the model: too little memory\n")
        return int(order.read_text().split()[1])
    HTTPServer(("127.0.0.1", given.gateway_port), Handler).serve_forever()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
