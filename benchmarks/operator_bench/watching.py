# SPDX-License-Identifier: Apache-2.0
"""A watch of the benchmark's own: what arrives, and when by this machine's clock."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import httpx

from embedded_cluster.cluster import Cluster

Body = dict[str, Any]
Listener = Callable[[float, str, Body], None]


class Watch:
    """Calls a listener with (time, type, object) for every event of a collection that is newer than the start."""

    def __init__(self, cluster: Cluster, path: str, listener: Listener, *, selector: str = "") -> None:
        """Watch from now on, once entered."""
        self._cluster, self._path, self._listener = cluster, path, listener
        self._query = {"labelSelector": selector} if selector else {}
        self._ended = False
        self._error: Exception | None = None

    def __enter__(self) -> Watch:
        now = self._cluster.api.get(self._path, limit=1)["metadata"]["resourceVersion"]
        client = self._cluster.client()
        self._client = client._client
        self._thread = threading.Thread(target=self._run, args=(now,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        if error is None and self._error is not None:
            raise self._error

    def _run(self, version: str) -> None:
        query = {**self._query, "watch": "1", "resourceVersion": version}
        try:
            with self._client.stream("GET", self._path, params=query, timeout=None) as answer:
                for line in answer.iter_lines():
                    if self._ended:
                        return
                    event = json.loads(line)
                    self._listener(time.perf_counter(), event["type"], event["object"])
            raise RuntimeError(f"the watch of {self._path} ended")
        except (httpx.HTTPError, RuntimeError) as error:
            if not self._ended:
                self._error = error


def named(body: Body) -> str:
    """Return `namespace/name`."""
    return f"{body['metadata']['namespace']}/{body['metadata']['name']}"
