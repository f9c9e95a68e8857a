# SPDX-License-Identifier: Apache-2.0
"""Notices a dead watch: what was written or listed must come back through the watch of its kind.

A watch can fall silent while the process looks well (a load balancer that dropped the connection, a lost task). Quiet
hours look the same, so silence alone proves nothing; a write that never returns does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from thinkrec_operator.cluster import resources
from thinkrec_operator.cluster.metrics import Metrics
from thinkrec_operator.cluster.objects import Header
from thinkrec_operator.cluster.resources import Resource

PATIENCE_SECONDS: Final = 90.0
"""Longer than Kopf needs to notice a stalled stream (70 s) and to resume it."""
_MAX_EXPECTED: Final = 20_000

_WATCHED: Final = (resources.MODEL, resources.EXPERIMENT, *resources.WATCHED, resources.JOB_SET, resources.TRAIN_JOB)


@dataclass(frozen=True, slots=True)
class _Expected:
    kind: str
    namespace: str
    version: int
    since: float


class Echo:
    """Objects whose newest version has not come through a watch yet."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float]) -> None:
        """Count time with `clock`, in seconds."""
        self._clock = clock
        self._expected: dict[str, _Expected] = {}
        self._heard = {resource.kind: clock() for resource in _WATCHED}
        for kind in self._heard:
            metrics.watch_age.labels(kind).set_function(partial(self.age, kind))
            metrics.watch_overdue.labels(kind).set_function(partial(self.overdue, kind))

    def expect(self, resource: Resource, head: Header) -> None:
        """Await this version, which is news to the view, in the watch of its kind."""
        if resource not in _WATCHED or len(self._expected) >= _MAX_EXPECTED:
            return
        waiting = self._expected.get(head.uid)
        since = waiting.since if waiting else self._clock()
        self._expected[head.uid] = _Expected(resource.kind, head.namespace, head.version, since)

    def heard(self, resource: Resource, head: Header) -> None:
        """Note what a watch delivered, or the list that took the place of a broken one."""
        if resource.kind in self._heard:
            self._heard[resource.kind] = self._clock()
        waiting = self._expected.get(head.uid)
        if waiting is not None and waiting.version <= head.version:
            del self._expected[head.uid]
        elif waiting is not None:
            # An older version shows that the watch lives; the awaited one is on its way.
            self._expected[head.uid] = replace(waiting, since=self._clock())

    def forget_absent(self, resource: Resource, present: frozenset[str], namespace: str | None) -> None:
        """Expect no more of objects that a whole LIST (of a namespace, or of all) did not show: they are gone."""
        for uid, item in tuple(self._expected.items()):
            if item.kind == resource.kind and namespace in (None, item.namespace) and uid not in present:
                del self._expected[uid]

    def overdue(self, kind: str) -> float:
        """Return for how many seconds the watch of a kind has owed us something."""
        since = min((item.since for item in self._expected.values() if item.kind == kind), default=None)
        return 0.0 if since is None else self._clock() - since

    def age(self, kind: str) -> float:
        """Return the seconds since the watch of a kind last delivered anything."""
        return self._clock() - self._heard[kind]

    def dead(self) -> tuple[str, ...]:
        """Return the kinds whose watch owes us something for too long."""
        late = self._clock() - PATIENCE_SECONDS
        return tuple(sorted({item.kind for item in self._expected.values() if item.since < late}))
