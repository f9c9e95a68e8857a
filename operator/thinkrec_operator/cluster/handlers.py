# SPDX-License-Identifier: Apache-2.0
"""What the operator listens to, in one place. Each handler only says what changed; all work is the controller's.

| kind                  | selected by                              | what follows                                    |
|-----------------------|------------------------------------------|-------------------------------------------------|
| ThinkRecModel         | namespace                                | the model is reconciled                         |
| Job, Pod, Deployment  | app.kubernetes.io/managed-by (server)    | the model in its label thinkrec.io/model is     |
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
class Sink:
    """Where events go."""

    view: View
    queue: WorkQueue
    echo: Echo

    def take(self, resource: Resource, type_: str | None, body: dict[str, Any]) -> None:
        """Take in one event of a watch and make the model it belongs to due."""
        self.echo.heard(resource, header(body))
        gone = type_ == "DELETED"
        key = self.view.remove(resource, body) if gone else self.view.put(resource, body)
        if key is not None:
            self.queue.add(key)


def build(sink: Sink, credentials: Credentials, listing: Listing, kinds: frozenset[str]) -> kopf.OperatorRegistry:
    """Return the registry with every handler; `kinds` are the optional kinds that are installed."""
    registry = kopf.OperatorRegistry()
    optional = tuple(resource for resource in resources.OPTIONAL if resource.kind in kinds)
    for resource in (resources.MODEL, *resources.WATCHED, *optional):
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
