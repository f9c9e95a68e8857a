# SPDX-License-Identifier: Apache-2.0
"""Our own lists stand for Kopf's: what Kopf lists would be listed twice, and be handed out one by one.

Kopf lists a kind before it watches it: at the start, and when a watch is too far behind. Here such a call asks for
nothing at all, so that Kopf only learns from which resource version to watch; the objects come from `Resync`, which
reads them many times faster and, unlike Kopf, notices what is gone (docs/adr/0010).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

import aiohttp

from thinkrec_operator.cluster import resources
from thinkrec_operator.cluster.errors import ApiError
from thinkrec_operator.cluster.resources import Resource
from thinkrec_operator.cluster.resync import Resync
from thinkrec_operator.cluster.workqueue import Key

RETRY_SECONDS: Final = 2.0
_KINDS: Final = (resources.MODEL, resources.EXPERIMENT, *resources.WATCHED, *resources.OPTIONAL)
_NAMESPACE: Final = "default"
"""One name in one namespace is the cheapest list there is; whether the namespace exists does not matter."""
_NOBODY: Final = "thinkrec-lists-nothing"

_log = logging.getLogger(__name__)


class Listing:
    """A middleware of Kopf's HTTP session."""

    def __init__(self, lanes: Sequence[tuple[Resync, Callable[[Key], None]]]) -> None:
        """List through each of these; make due there what something changed for."""
        self._lanes = lanes
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Send a request of Kopf's on its way; one that lists a kind is changed as said above."""
        target = listed_kind(request)
        if target is None:
            return await handler(request)
        # The earliest of them: what one lane knows already is nothing new to it.
        taken = [at for resync, _ in self._lanes if (at := resync.take_position(*target)) is not None]
        position = min(taken, default=None)
        if position is not None:
            ask_for_nothing(request, at=position)
            response = await handler(request)
            if response.status == 200:
                return response
            response.release()  # that moment is forgotten already (410)
        ask_for_nothing(request)
        response = await handler(request)
        if response.status == 200:
            # After the answer: what changes from now on comes through the watch that begins at its version.
            for resync, due in self._lanes:
                if resync.covers(target[0]):
                    self._start(resync, due, target)
        return response

    async def close(self) -> None:
        """End lists that are at work."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, resync: Resync, due: Callable[[Key], None], target: tuple[Resource, str | None]) -> None:
        task = asyncio.create_task(_resume(resync, due, *target), name=f"list-{target[0].plural}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _resume(resync: Resync, due: Callable[[Key], None], resource: Resource, namespace: str | None) -> None:
    while True:
        try:
            changed = await resync.resume(resource, namespace)
            break
        except ApiError as error:
            _log.warning("cannot list %s: %s; again in %.0f s", resource.plural, error, RETRY_SECONDS)
            await asyncio.sleep(error.retry_after or RETRY_SECONDS)
    for key in changed:
        due(key)


def listed_kind(request: aiohttp.ClientRequest) -> tuple[Resource, str | None] | None:
    """Return which kind a request lists, and in which namespace; None where it does something else."""
    if request.method != "GET" or "watch" in request.url.query:
        return None
    for resource in _KINDS:
        if request.url.path == resource.path(None):
            return resource, None
        before, _, last = request.url.path.rpartition("/")
        namespace = before.removeprefix(f"{resource.root}/namespaces/")
        if last == resource.plural and namespace != before and "/" not in namespace:
            return resource, namespace
    return None


def ask_for_nothing(request: aiohttp.ClientRequest, *, at: int | None = None) -> None:
    """Make a LIST one of the same kind that is empty, as of now or of a resource version."""
    path = request.url.path
    if "/namespaces/" not in path:
        before, _, plural = path.rpartition("/")
        path = f"{before}/namespaces/{_NAMESPACE}/{plural}"
    query = {"fieldSelector": f"metadata.name={_NOBODY}", "limit": "1"}
    if at is not None:
        query |= {"resourceVersion": str(at), "resourceVersionMatch": "Exact"}
    request.url = request.url.with_path(path).with_query(query)
