# SPDX-License-Identifier: Apache-2.0
"""Many requests at once, for populations; each must succeed."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import aiohttp

from embedded_cluster.cluster import Cluster

Body = dict[str, Any]
MERGE = "application/merge-patch+json"
_CONCURRENT = 24


@dataclass(frozen=True, slots=True)
class Request:
    """One write."""

    method: str
    path: str
    body: Body
    content_type: str = "application/json"


def send(cluster: Cluster, requests: Iterable[Request]) -> list[Body]:
    """Send them all; return the answers in their order."""
    return asyncio.run(_send(cluster, list(requests)))


async def _send(cluster: Cluster, requests: list[Request]) -> list[Body]:
    trust = ssl.create_default_context(cafile=str(cluster.authority))
    answers: list[Body] = [{} for _ in requests]
    queue = iter(enumerate(requests))
    headers = {"Authorization": f"Bearer {cluster.token}"}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(ssl=trust, limit=0)) as session:

        async def work() -> None:
            for index, request in queue:
                answers[index] = await _one(session, cluster.url, request)

        await asyncio.gather(*(work() for _ in range(_CONCURRENT)))
    return answers


async def _one(session: aiohttp.ClientSession, url: str, request: Request) -> Body:
    data = json.dumps(request.body, separators=(",", ":"))  # a ControllerRevision keeps its bytes as they came
    headers = {"Content-Type": request.content_type}
    while True:
        async with session.request(request.method, url + request.path, data=data, headers=headers) as answer:
            text = await answer.text()
            if answer.status == 429:
                await asyncio.sleep(0.2)
                continue
            if answer.status >= 400:
                raise RuntimeError(f"{request.method} {request.path}: {answer.status} {text[:400]}")
            found: Body = json.loads(text)
            return found


def versions(cluster: Cluster, *paths: str) -> dict[str, str]:
    """Return uid -> resource version of every object in these collections: it tells what changed."""
    found = {}
    accept = {"Accept": "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"}
    for path in paths:
        token = ""
        while True:
            query = {"limit": "500", "continue": token}
            page = cluster.api.request("GET", path, params=query, headers=accept, timeout=300).json()
            found |= {item["metadata"]["uid"]: item["metadata"]["resourceVersion"] for item in page["items"] or ()}
            token = page["metadata"].get("continue") or ""
            if not token:
                break
    return found
