# SPDX-License-Identifier: Apache-2.0
"""Our own LIST of everything: the barrier at the start, and later what finds deletions that a watch missed.

Kopf lists and resumes watches by itself, but reports no deletion that happened while a watch was broken
(references: docs/adr/0007). A whole list knows what is no longer there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from thinkrec_operator.cluster import resources
from thinkrec_operator.cluster.api import Api
from thinkrec_operator.cluster.echo import Echo
from thinkrec_operator.cluster.resources import OURS, Resource
from thinkrec_operator.cluster.view import View
from thinkrec_operator.cluster.workqueue import Key

_log = logging.getLogger(__name__)


class Resync:
    """Brings a view up to what the apiserver has now."""

    def __init__(self, api: Api, view: View, namespaces: Sequence[str], echo: Echo) -> None:
        """List these namespaces, or the whole cluster where none is named."""
        self._api = api
        self._view = view
        self._echo = echo
        self._listed = False
        self._namespaces: Sequence[str | None] = namespaces or (None,)
        self.kinds: frozenset[str] = frozenset()
        """Optional kinds that the apiserver serves."""

    async def run(self) -> set[Key]:
        """List every kind; return the models for which something was found or is gone."""
        self.kinds = await self._installed()
        optional = tuple(resource for resource in resources.OPTIONAL if resource.kind in self.kinds)
        changed: set[Key] = set()
        for resource in (*resources.LISTED, *resources.WATCHED, *optional, resources.MODEL):
            changed |= await self.list(resource)
        self._listed = True
        return changed

    async def list(self, resource: Resource) -> set[Key]:
        """List one kind."""
        # The caller's own models and Kueue's Workloads carry no label of ours.
        selector = "" if resource in (resources.MODEL, resources.WORKLOAD) else OURS
        changed: set[Key] = set()
        for namespace in self._namespaces:
            present: dict[tuple[str, str], str] = {}
            upto = 0
            async for page in self._api.pages(resource, namespace, selector=selector):
                upto = upto or page.version
                changed |= self._take(resource, page.items, present)
            changed |= self._view.retain(resource, present, upto, namespace)
        return changed

    def _take(
        self, resource: Resource, items: Iterable[dict[str, object]], present: dict[tuple[str, str], str]
    ) -> set[Key]:
        changed: set[Key] = set()
        for body in items:
            meta = body["metadata"]
            assert isinstance(meta, dict), "metadata is an object in every answer of the apiserver"
            present[meta["namespace"], meta["name"]] = meta["uid"]
            if (key := self._view.put(resource, body)) is not None:
                changed.add(key)
                if self._listed:  # the watch should have told it; if it never does, it is dead
                    self._echo.expect(resource, body)
        return changed

    async def _installed(self) -> frozenset[str]:
        found = set()
        for resource in resources.OPTIONAL:
            if await self._api.serves(resource):
                found.add(resource.kind)
        if found != self.kinds:
            _log.info("optional kinds that this cluster knows: %s", ", ".join(sorted(found)) or "none")
        return frozenset(found)
