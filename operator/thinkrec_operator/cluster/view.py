# SPDX-License-Identifier: Apache-2.0
"""What the operator knows of the cluster: models (or experiments) and their children, by the newest version seen.

Fed by watches, by our own LISTs and by the answers to our own writes, in any order: of one object the highest resource
version wins, so that a decision never sees less than what an earlier one wrote.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from thinkrec_crds.artifact import TerminationMessage
from thinkrec_operator.cluster import resources
from thinkrec_operator.cluster.jobs import JobRecord, QueueRecord, job_record, published, queue_record
from thinkrec_operator.cluster.objects import Header, ObjectRecord, Seen, header, object_record, plain
from thinkrec_operator.cluster.pods import PodRecord, pod_record
from thinkrec_operator.cluster.resources import MODELS, Resource, Scope
from thinkrec_operator.cluster.workqueue import Key

ChildKey = tuple[str, str]
"""Kind and name."""

_WORK: Final = (resources.JOB.kind, resources.JOB_SET.kind, resources.TRAIN_JOB.kind)


@dataclass(slots=True)
class Children:
    """Everything that belongs to one model name."""

    jobs: dict[ChildKey, JobRecord] = field(default_factory=dict)
    pods: dict[str, PodRecord] = field(default_factory=dict)
    objects: dict[ChildKey, ObjectRecord] = field(default_factory=dict)
    results: dict[str, TerminationMessage] = field(default_factory=dict)
    """Stage key -> what a Pod published that is gone; a Job and its Pods may go before anybody looked at them."""

    @property
    def empty(self) -> bool:
        """Return whether nothing is left."""
        return not (self.jobs or self.pods or self.objects or self.results)

    def told(self) -> dict[str, TerminationMessage]:
        """Return stage key -> result of all work that no Job tells of: of Pods that are gone, or without their Job."""
        working = {job.key for job in self.jobs.values()}
        orphans = (pod for pod in self.pods.values() if pod.key not in working)
        found = {told.key: told for pod in orphans if (told := published(pod)) is not None}
        return self.results | found


class View:
    """Owners of one scope, and their children by (namespace, name of the owner)."""

    def __init__(self, scope: Scope = MODELS) -> None:
        """Know nothing yet."""
        self.scope = scope
        self._models: dict[Key, ObjectRecord] = {}
        self._children: dict[Key, Children] = {}
        self._queues: dict[tuple[str, str], QueueRecord] = {}
        self._gone: dict[str, int] = {}

    def __len__(self) -> int:
        """Return the number of models."""
        return len(self._models)

    def __iter__(self) -> Iterator[Key]:
        """Yield the key of every model."""
        return iter(tuple(self._models))

    def models(self) -> Iterator[tuple[Key, ObjectRecord]]:
        """Yield every model."""
        return iter(tuple(self._models.items()))

    def model(self, key: Key) -> ObjectRecord | None:
        """Return a model, or None."""
        return self._models.get(key)

    def children(self, key: Key) -> Children:
        """Return what belongs to a model."""
        return self._children.get(key) or Children()

    def queue(self, namespace: str, job: str) -> QueueRecord | None:
        """Return what a queue says about a Job."""
        return self._queues.get((namespace, job))

    def put(self, resource: Resource, seen: Seen) -> Key | None:
        """Take in an object; return the model that it changes something for, or None where nothing is new."""
        head = header(seen)
        if self._gone.get(head.uid, -1) >= head.version or self._is_known(resource, head):
            return None
        if resource is self.scope.owner:
            key = (head.namespace, head.name)
            self._models[key] = object_record(resource.kind, seen)
            return key
        if resource is resources.WORKLOAD:
            return self._put_queue(head.namespace, plain(seen))
        model = head.labels.get(self.scope.label)
        if model is None:
            return None
        key = (head.namespace, model)
        children = self._children.setdefault(key, Children())
        return key if _put_child(children, resource, seen) else None

    def _is_known(self, resource: Resource, head: Header) -> bool:
        """Return whether this version of an object, or a newer one, is in the view already."""
        record: ObjectRecord | JobRecord | PodRecord | None
        if resource is self.scope.owner:
            record = self._models.get((head.namespace, head.name))
        else:
            children = self._children.get((head.namespace, head.labels.get(self.scope.label, "")))
            record = _find(children, resource.kind, head.name) if children is not None else None
        return record is not None and record.version >= head.version

    def remove(self, resource: Resource, body: Mapping[str, Any]) -> Key | None:
        """Forget an object; return the model it belonged to."""
        meta = body["metadata"]
        self._gone[meta["uid"]] = int(meta["resourceVersion"])
        if len(self._gone) > _GONE:
            del self._gone[next(iter(self._gone))]
        key = (meta["namespace"], meta["name"])
        if resource is self.scope.owner:
            found = self._models.get(key)
            if found is not None and found.uid == meta["uid"]:
                del self._models[key]
            return key
        if resource is resources.WORKLOAD:
            record = queue_record(body)
            if record is None:
                return None
            self._queues.pop((meta["namespace"], record.job), None)
            return self._owner_of(meta["namespace"], record.job)
        model = (meta.get("labels") or {}).get(self.scope.label)
        if model is None:
            return None
        key = (meta["namespace"], model)
        if resource is resources.POD and (told := published(pod_record(body))) is not None:
            self._children.setdefault(key, Children()).results[told.key] = told
        self._drop(key, resource.kind, meta["name"], meta["uid"])
        return key

    def let_go(self, key: Key, results: Iterable[str]) -> None:
        """Forget results of Pods that are gone, by stage key: a decision has dealt with them."""
        children = self._children.get(key)
        if children is None:
            return
        for name in results:
            children.results.pop(name, None)
        if children.empty:
            del self._children[key]

    def forget(self, key: Key, kind: str, name: str) -> None:
        """Forget a child that we deleted ourselves; a later version that still exists brings it back."""
        self._drop(key, kind, name, None)

    def retain(
        self, resource: Resource, present: Mapping[tuple[str, str], str], upto: int, namespace: str | None = None
    ) -> set[Key]:
        """Forget every object of a kind that a whole LIST did not show; return the models that lost something.

        `present` maps (namespace, name) to uid; `namespace` is the one that was listed. What is newer than the LIST
        (`upto`) is kept: it was created after it.
        """
        changed: set[Key] = set()
        if resource is self.scope.owner:
            for key, record in self.models():
                if namespace in (None, key[0]) and record.version <= upto and present.get(key) != record.uid:
                    del self._models[key]
                    changed.add(key)
            return changed
        if resource is resources.WORKLOAD:
            return self._retain_queues(present, upto, namespace)
        for key, children in tuple(self._children.items()):
            if namespace not in (None, key[0]):
                continue
            for name, uid, version in tuple(_of_kind(children, resource.kind)):
                if version <= upto and present.get((key[0], name)) != uid:
                    self._drop(key, resource.kind, name, uid)
                    changed.add(key)
        return changed

    def _retain_queues(self, present: Mapping[tuple[str, str], str], upto: int, namespace: str | None) -> set[Key]:
        changed: set[Key] = set()
        for (home, job), record in tuple(self._queues.items()):
            if namespace in (None, home) and record.version <= upto and (home, record.workload) not in present:
                del self._queues[home, job]
                changed |= {owner} if (owner := self._owner_of(home, job)) is not None else set()
        return changed

    def _put_queue(self, namespace: str, body: Mapping[str, Any]) -> Key | None:
        record = queue_record(body)
        if record is None:
            return None
        known = self._queues.get((namespace, record.job))
        if known is not None and known.version >= record.version:
            return None
        self._queues[namespace, record.job] = record
        return self._owner_of(namespace, record.job)

    def _owner_of(self, namespace: str, job: str) -> Key | None:
        for key, children in self._children.items():
            if key[0] == namespace and any((kind, job) in children.jobs for kind in _WORK):
                return key
        return None

    def _drop(self, key: Key, kind: str, name: str, uid: str | None) -> None:
        children = self._children.get(key)
        if children is None:
            return
        for found in (children.jobs, children.objects):
            record = found.get((kind, name))
            if record is not None and uid in (None, record.uid):
                del found[kind, name]
        if kind == resources.POD.kind and (pod := children.pods.get(name)) is not None and uid in (None, pod.uid):
            del children.pods[name]
        if children.empty:
            del self._children[key]


_GONE: Final = 4096
"""Deleted objects remembered, so that a late event does not bring one back."""


def _put_child(children: Children, resource: Resource, seen: Seen) -> bool:
    """Store a child that is news; return whether it says anything new to a decision."""
    if resource is resources.POD:
        pod = pod_record(plain(seen))
        known = children.pods.get(pod.name)
        children.pods[pod.name] = pod
        return known is None or _without_version(known) != _without_version(pod)
    if resource.kind in _WORK:
        job = job_record({**plain(seen), "kind": resource.kind})
        children.jobs[resource.kind, job.name] = job
        return True
    record = object_record(resource.kind, seen)
    children.objects[resource.kind, record.name] = record
    return True


def _find(children: Children, kind: str, name: str) -> ObjectRecord | JobRecord | PodRecord | None:
    if kind == resources.POD.kind:
        return children.pods.get(name)
    return children.objects.get((kind, name)) or children.jobs.get((kind, name))


def _without_version(pod: PodRecord) -> tuple[object, ...]:
    return tuple(getattr(pod, name) for name in PodRecord.__dataclass_fields__ if name != "version")


def _of_kind(children: Children, kind: str) -> Iterator[tuple[str, str, int]]:
    if kind == resources.POD.kind:
        yield from ((pod.name, pod.uid, pod.version) for pod in children.pods.values())
    for found in (children.jobs, children.objects):
        for (of_kind, name), record in found.items():
            if of_kind == kind:
                yield name, record.uid, record.version
