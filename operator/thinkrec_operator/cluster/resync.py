# SPDX-License-Identifier: Apache-2.0
"""Our own LISTs: the barrier at the start, what stands for Kopf's when a watch broke, and the check every ten minutes.

A whole list knows what is no longer there; Kopf's own reports no deletion that happened while a watch was broken
(docs/adr/0007).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from msgspec import Raw

from thinkrec_operator.cluster import resources
from thinkrec_operator.cluster.api import Api
from thinkrec_operator.cluster.echo import Echo
from thinkrec_operator.cluster.errors import ApiError
from thinkrec_operator.cluster.listed import read_item
from thinkrec_operator.cluster.objects import Header, header
from thinkrec_operator.cluster.resources import OURS, Resource
from thinkrec_operator.cluster.view import View
from thinkrec_operator.cluster.workqueue import Key

_AT_ONCE: Final = 3
"""Kinds listed at the same time: the apiserver writes one page while we read another."""
_Note = Callable[[Resource, Header, bool], None]
"""What else is done with a listed object; the last word is whether it was news."""

_log = logging.getLogger(__name__)


class Resync:
    """Brings a view up to what the apiserver has now."""

    def __init__(self, api: Api, view: View, namespaces: Sequence[str], echo: Echo) -> None:
        """List these namespaces, or the whole cluster where none is named."""
        self._api = api
        self._view = view
        self._echo = echo
        self._listed = False
        self._changed: set[Key] = set()
        self._positions: dict[tuple[str, str | None], int] = {}
        self.denied: frozenset[str] = frozenset()
        """Namespaces that could not be listed."""
        self._namespaces: Sequence[str | None] = namespaces or (None,)
        self.kinds: frozenset[str] = frozenset()
        """Optional kinds that the apiserver serves."""

    async def run(self) -> set[Key]:
        """List every kind; return the models for which something was found or is gone.

        What was found before a call failed is kept and returned by the next run: the view has it already.
        """
        self.kinds, self.denied = await self._installed(), frozenset()
        optional = tuple(resource for resource in self._view.scope.optional if resource.kind in self.kinds)
        turns = asyncio.Semaphore(_AT_ONCE)

        async def in_turn(resource: Resource) -> None:
            async with turns:
                await self._list(resource)

        scope = self._view.scope
        wanted = (*scope.listed, *scope.watched, *optional, scope.owner)
        ended = await asyncio.gather(*(in_turn(resource) for resource in wanted), return_exceptions=True)
        for outcome in ended:
            if isinstance(outcome, BaseException):
                raise outcome
        if self.denied and self.denied == set(self._namespaces):
            raise ApiError(403, "Forbidden", f"none of the namespaces {', '.join(sorted(self.denied))} can be listed")
        self._listed = True
        found, self._changed = self._changed, set()
        return found

    async def resume(self, resource: Resource, namespace: str | None) -> set[Key]:
        """List one kind after its watch broke: what happened meanwhile will not come through the watch."""

        def note(_: Resource, head: Header, _news: bool) -> None:
            self._echo.heard(resource, head)

        changed: set[Key] = set()
        await self._list_in(resource, namespace, changed, note)
        return changed

    def covers(self, resource: Resource) -> bool:
        """Return whether this kind is listed here."""
        return self._view.scope.covers(resource)

    def take_position(self, resource: Resource, namespace: str | None) -> int | None:
        """Return, once, the resource version that the first list of a kind stands at: a watch may go on from there."""
        return self._positions.pop((resource.kind, namespace), None)

    async def _list(self, resource: Resource) -> None:
        first = not self._listed

        def note(_: Resource, head: Header, news: bool) -> None:
            if news and not first:  # the watch should have told it; if it never does, it is dead
                self._echo.expect(resource, head)

        for namespace in self._namespaces:
            try:
                upto = await self._list_in(resource, namespace, self._changed, note)
            except ApiError as error:
                if error.status != 403 or namespace is None:
                    raise
                self._deny(namespace, error)
                continue
            if first:
                self._positions[resource.kind, namespace] = upto

    async def _list_in(self, resource: Resource, namespace: str | None, changed: set[Key], note: _Note) -> int:
        """List one kind; return the resource version of the list."""
        # The caller's own models and Kueue's Workloads carry no label of ours.
        scope = self._view.scope
        selector = "" if resource in (scope.owner, resources.WORKLOAD) else scope.selector
        present: dict[tuple[str, str], str] = {}
        upto = 0
        async for page in self._api.pages(resource, namespace, selector=selector):
            upto = upto or page.version
            for head, key in self._taken(resource, page.items):
                present[head.namespace, head.name] = head.uid
                if key is not None:
                    changed.add(key)
                note(resource, head, key is not None)
        changed |= self._view.retain(resource, present, upto, namespace)
        if selector in ("", OURS):  # a list of a part says nothing about what else the watch owes
            self._echo.forget_absent(resource, frozenset(present.values()), namespace)
        return upto

    def _taken(self, resource: Resource, items: Iterable[Raw]) -> Iterable[tuple[Header, Key | None]]:
        """Put items into the view; yield their headers and the models for which they are news."""
        for raw in items:
            item = read_item(raw)
            head, key = header(item), None
            try:
                key = self._view.put(resource, item)
            except (KeyError, TypeError, ValueError):  # edited by hand beyond recognition: one object, not all of them
                _log.exception("%s %s/%s cannot be read", resource.kind, head.namespace, head.name)
            yield head, key

    def _deny(self, namespace: str, error: ApiError) -> None:
        """Leave a namespace out that is gone or gives us no rights: the others must not wait for it."""
        if namespace not in self.denied:
            _log.error("namespace %s is left out until the next resync: %s", namespace, error)
        self.denied = self.denied | {namespace}

    async def _installed(self) -> frozenset[str]:
        found = set()
        for resource in self._view.scope.optional:
            if await self._api.serves(resource):
                found.add(resource.kind)
        if found != self.kinds:
            _log.info("optional kinds that this cluster knows: %s", ", ".join(sorted(found)) or "none")
        return frozenset(found)
