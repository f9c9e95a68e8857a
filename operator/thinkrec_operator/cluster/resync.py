# SPDX-License-Identifier: Apache-2.0
"""Our own LIST of everything: the barrier at the start, and later what finds deletions that a watch missed.

Kopf lists and resumes watches by itself, but reports no deletion that happened while a watch was broken
(references: docs/adr/0007). A whole list knows what is no longer there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from thinkrec_operator.cluster import resources
from thinkrec_operator.cluster.api import Api, Body
from thinkrec_operator.cluster.echo import Echo
from thinkrec_operator.cluster.errors import ApiError
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
        self._changed: set[Key] = set()
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
        optional = tuple(resource for resource in resources.OPTIONAL if resource.kind in self.kinds)
        for resource in (*resources.LISTED, *resources.WATCHED, *optional, resources.MODEL):
            await self._list(resource)
        if self.denied and self.denied == set(self._namespaces):
            raise ApiError(403, "Forbidden", f"none of the namespaces {', '.join(sorted(self.denied))} can be listed")
        self._listed = True
        found, self._changed = self._changed, set()
        return found

    async def _list(self, resource: Resource) -> None:
        # The caller's own models and Kueue's Workloads carry no label of ours.
        selector = "" if resource in (resources.MODEL, resources.WORKLOAD) else OURS
        for namespace in self._namespaces:
            present: dict[tuple[str, str], str] = {}
            upto = 0
            try:
                async for page in self._api.pages(resource, namespace, selector=selector):
                    upto = upto or page.version
                    self._take(resource, page.items, present)
            except ApiError as error:
                if error.status != 403 or namespace is None:
                    raise
                self._deny(namespace, error)
                continue
            self._changed |= self._view.retain(resource, present, upto, namespace)
            self._echo.forget_absent(resource, frozenset(present.values()), namespace)

    def _deny(self, namespace: str, error: ApiError) -> None:
        """Leave a namespace out that is gone or gives us no rights: the others must not wait for it."""
        if namespace not in self.denied:
            _log.error("namespace %s is left out until the next resync: %s", namespace, error)
        self.denied = self.denied | {namespace}

    def _take(self, resource: Resource, items: Iterable[Body], present: dict[tuple[str, str], str]) -> None:
        for body in items:
            meta = body["metadata"]
            present[meta["namespace"], meta["name"]] = meta["uid"]
            try:
                key = self._view.put(resource, body)
            except (KeyError, TypeError, ValueError):  # edited by hand beyond recognition: one object, not all of them
                _log.exception("%s %s/%s cannot be read", resource.kind, meta["namespace"], meta["name"])
                continue
            if key is not None:
                self._changed.add(key)
                if self._listed:  # the watch should have told it; if it never does, it is dead
                    self._echo.expect(resource, body)

    async def _installed(self) -> frozenset[str]:
        found = set()
        for resource in resources.OPTIONAL:
            if await self._api.serves(resource):
                found.add(resource.kind)
        if found != self.kinds:
            _log.info("optional kinds that this cluster knows: %s", ", ".join(sorted(found)) or "none")
        return frozenset(found)
