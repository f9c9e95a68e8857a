# SPDX-License-Identifier: Apache-2.0
"""What the operator listens to, in one place. Each handler only says what changed; all work is the controller's.

| kind                  | selected by                              | what follows                                    |
|-----------------------|------------------------------------------|-------------------------------------------------|
| ThinkRecModel         | namespace                                | the model is reconciled                         |
| ThinkRecExperiment    | namespace                                | the experiment is reconciled                    |
| Job, Pod, Deployment  | app.kubernetes.io/managed-by (server)    | the model, or experiment, that its label names  |
| JobSet, TrainJob      | the same, where the kind is installed    | the same                                        |
| Workload (Kueue)      | where installed                          | the model whose Job it queues is                |

`on.event` is the only kind of handler: it writes nothing to the objects it sees, adds no finalizer and repeats nothing
by itself (docs/adr/0007).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import kopf

from thinkrec_operator.cluster import resources
from thinkrec_operator.cluster.credentials import Credentials
from thinkrec_operator.cluster.echo import Echo
from thinkrec_operator.cluster.listing import Listing
from thinkrec_operator.cluster.objects import header
from thinkrec_operator.cluster.resources import OURS, Resource
from thinkrec_operator.cluster.stateless import NoDiffs, NoProgress
from thinkrec_operator.cluster.view import View
from thinkrec_operator.cluster.workqueue import WorkQueue


@dataclass(frozen=True, slots=True)
class Lane:
    """What is known of one scope, and what of it is due."""

    view: View
    queue: WorkQueue

    def take(self, resource: Resource, body: dict[str, Any], *, gone: bool) -> None:
        """Take in an object, or its end, and make the owner it belongs to due."""
        key = self.view.remove(resource, body) if gone else self.view.put(resource, body)
        if key is not None:
            self.queue.add(key)


@dataclass(frozen=True, slots=True)
class Sink:
    """Where events go."""

    lanes: tuple[Lane, ...]
    echo: Echo

    def take(self, resource: Resource, type_: str | None, body: dict[str, Any]) -> None:
        """Hand one event of a watch to every lane that it may belong to."""
        self.echo.heard(resource, header(body))
        for lane in self.lanes:
            if lane.view.scope.covers(resource):
                lane.take(resource, body, gone=type_ == "DELETED")


def build(sink: Sink, credentials: Credentials, listing: Listing, kinds: frozenset[str]) -> kopf.OperatorRegistry:
    """Return the registry with every handler; `kinds` are the optional kinds that are installed."""
    registry = kopf.OperatorRegistry()
    optional = tuple(resource for resource in resources.OPTIONAL if resource.kind in kinds)
    owners = (lane.view.scope.owner for lane in sink.lanes)
    for resource in (*owners, *resources.WATCHED, *optional):
        kopf.on.event(resource.group, resource.version, resource.plural, registry=registry, id=resource.plural)(
            _listener(sink, resource)
        )

    @kopf.on.login(registry=registry, backoff=5.0)
    async def login(**_: object) -> kopf.AiohttpSession:
        """Give Kopf a session with our own credentials, in which our own lists stand for its."""
        return credentials.for_kopf(listing)

    return registry


def settings() -> kopf.OperatorSettings:
    """Return what Kopf must not do, and how it watches."""
    chosen = kopf.OperatorSettings()
    chosen.scanning.disabled = True  # no rights on CRDs and namespaces are needed
    chosen.posting.enabled = False  # events are the controller's
    chosen.networking.request_timeout = 30.0
    chosen.watching.chunk_size = 500
    chosen.queueing.idle_timeout = 0.2  # an object's own task ends soon; thousands of them cost memory
    chosen.persistence.diffbase_storage = NoDiffs()
    chosen.persistence.progress_storage = NoProgress()
    chosen.persistence.finalizer = "operator.thinkrec.io/unused"
    for resource in (*resources.WATCHED, resources.JOB_SET, resources.TRAIN_JOB):
        chosen.watching.label_selectors[resource.group, resource.version, resource.plural] = OURS
    return chosen


def _listener(sink: Sink, resource: Resource) -> Callable[..., Awaitable[None]]:
    async def listen(type: str | None, event: dict[str, Any], **_: object) -> None:  # noqa: A002 (Kopf passes it by name)
        sink.take(resource, type, event["object"])

    return listen
