# SPDX-License-Identifier: Apache-2.0
"""A caller that asks again and again, and remembers every request that was not answered well."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any

import httpx


class Load:
    """A context manager; while it is open, one request after another is sent, each on a new connection."""

    def __init__(self, url: str, body: dict[str, Any], *, pause_seconds: float = 0.5) -> None:
        self.answered = 0
        self.failures: list[str] = []
        self._url = url
        self._body = body
        self._pause = pause_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(90)

    def _run(self) -> None:
        while not self._stop.wait(self._pause):
            sent = datetime.now(UTC)
            try:
                answer = httpx.post(self._url, json=self._body, timeout=60, trust_env=False)
            except httpx.HTTPError as error:
                self._failed(sent, f"{type(error).__name__}: {error}")
                continue
            if answer.status_code == 200:
                self.answered += 1
            else:
                self._failed(sent, f"{answer.status_code}: {answer.text[:200]}")

    def _failed(self, sent: datetime, why: str) -> None:
        """Note when it was sent too: what happened in the cluster at that moment is in events and logs."""
        self.failures.append(f"sent {sent:%H:%M:%S.%f}, answered {datetime.now(UTC):%H:%M:%S.%f}: {why}")
