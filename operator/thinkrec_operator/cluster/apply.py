# SPDX-License-Identifier: Apache-2.0
"""From plans to writes, in the order that makes a crash between any two of them harmless.

Deletions, the finalizer, children as listed; then, once for all decisions of a visit, events and the status. Events
come before the status: a crash between them decides the same again from the same status and finds its event already
told (events.py). A child that is already what it should be costs no call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from thinkrec_crds import group
from thinkrec_crds.experiment import ThinkRecExperiment
from thinkrec_crds.experiment_status import ExperimentStatus
from thinkrec_crds.group import FINALIZER
from thinkrec_crds.model import ThinkRecModel
from thinkrec_crds.model_status import ModelStatus
from thinkrec_operator.cluster import resources
from thinkrec_operator.cluster.api import Api
from thinkrec_operator.cluster.drift import applied_hash, covers, stamped
from thinkrec_operator.cluster.echo import Echo
from thinkrec_operator.cluster.errors import ApiError
from thinkrec_operator.cluster.events import event_manifest
from thinkrec_operator.cluster.jobs import owner_uid
from thinkrec_operator.cluster.objects import header
from thinkrec_operator.cluster.refusals import Refusals
from thinkrec_operator.cluster.resources import Resource
from thinkrec_operator.cluster.view import View
from thinkrec_operator.cluster.workqueue import Key
from thinkrec_operator.experiments.reconcile import ExperimentPlan
from thinkrec_operator.manifests import render
from thinkrec_operator.manifests.common import Manifest
from thinkrec_operator.manifests.revision import controller_revision
from thinkrec_operator.plan import Child, ControllerRevisionChild, Deletion, Event, Plan

Owned = ThinkRecModel | ThinkRecExperiment

_CREATED_ONCE: Final = frozenset({resources.JOB.kind, resources.JOB_SET.kind, resources.TRAIN_JOB.kind})
"""Kinds that cannot change under one name: their names come from their content."""
_SETTLED: Final = 32_768
"""Objects remembered as compared by the apiserver; a forgotten one costs one call that changes nothing."""
_TYPE: Final = frozenset({"apiVersion", "kind"})
"""Members that the items of a list are without."""
SCALING_MANAGER: Final = f"{group.FIELD_MANAGER}-scaling"
"""Field manager that holds a Deployment's replicas until an autoscaler writes them."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What bringing the children to a plan led to."""

    changed: bool = False
    """Whether the next decision sees something else."""
    refusals_changed: bool = False
    """Whether the apiserver refused a child, or took one that it had refused: the plan was decided without knowing."""
    failure: ApiError | None = None
    """The first call that must be made again; what stood behind it was left out."""

    def merged(self, other: Outcome) -> Outcome:
        """Return what both led to."""
        return replace(
            self,
            changed=self.changed or other.changed,
            refusals_changed=self.refusals_changed or other.refusals_changed,
        )


class Applier:
    """Writes plans; remembers in the view what the apiserver answered."""

    def __init__(self, api: Api, view: View, *, refusals: Refusals, echo: Echo) -> None:
        """Write through `api`, read back through `view`; `echo` awaits each write in the watches."""
        self._api = api
        self._owners = view.scope.owner
        self._echo = echo
        self._settled: dict[str, tuple[int, str]] = {}
        self._handed_over: set[str] = set()
        self._view = view
        self._refusals = refusals

    async def children(self, key: Key, model: Owned, plan: Plan | ExperimentPlan) -> Outcome:
        """Bring the children to the plan; raise ApiError where nothing of it may be told yet."""
        deleted = [await self._delete(key, deletion) for deletion in plan.deletions]
        if plan.finalizer is True:
            await self._finalizer(key, model.metadata.uid, present=True)
        found = await self._children(key, model, plan.children)
        return replace(found, changed=found.changed or any(deleted))

    async def tell(
        self, key: Key, model: Owned, *, events: Iterable[Event], status: ModelStatus | ExperimentStatus, now: datetime
    ) -> None:
        """Write events, then the status; `model` is as the last status left it."""
        await self._events(key, model, events, now)
        await self._status(key, model, status)

    async def release(self, key: Key, uid: str) -> None:
        """Let a model go that is being deleted."""
        await self._finalizer(key, uid, present=False)

    async def _delete(self, key: Key, deletion: Deletion) -> bool:
        """Delete a child; return whether the next decision sees that at once."""
        resource = resources.BY_KIND[deletion.kind.value]
        children = self._view.children(key)
        slot = (resource.kind, deletion.name)
        record = children.jobs.get(slot) or children.objects.get(slot)
        if record is None or record.deleting:
            return False
        await self._api.delete(resource, key[0], deletion.name, uid=record.uid)
        if resource not in resources.LISTED:
            return False  # its watch will tell
        self._view.forget(key, resource.kind, deletion.name)
        return True

    async def _children(self, key: Key, model: Owned, children: Iterable[Child]) -> Outcome:
        wanted: list[tuple[Resource, dict[str, Any]]] = []
        for child in children:
            manifest = self._rendered(key, child)
            wanted.append((resources.BY_KIND[manifest["kind"]], stamped(manifest)))
        self._refusals.keep(key, {manifest["metadata"]["name"] for _, manifest in wanted})
        found = Outcome()
        for resource, manifest in wanted:
            if self._is_there(key, model, resource, manifest):
                found = found.merged(Outcome(refusals_changed=self._refusals.settle(key, manifest)))
            elif not self._refusals.stands(key, manifest):
                try:
                    found = found.merged(await self._write(key, model, resource, manifest))
                except ApiError as error:
                    return replace(found, failure=error)  # what follows may need this one: a Job reads its ConfigMap
        return found

    def _rendered(self, key: Key, child: Child) -> Manifest:
        if isinstance(child, ControllerRevisionChild):
            slot = (resources.CONTROLLER_REVISION.kind, child.record.name)
            known = self._view.children(key).objects.get(slot)
            return controller_revision(child, written=known.body["data"] if known is not None else None)
        return render(child)

    def _is_there(self, key: Key, model: Owned, resource: Resource, manifest: Mapping[str, Any]) -> bool:
        children, slot = self._view.children(key), (resource.kind, manifest["metadata"]["name"])
        job = children.jobs.get(slot)
        if job is not None:
            return bool(job.owner) or job.deleting  # one that lost its owner is taken in again
        record = children.objects.get(slot)
        if record is None or record.owner != model.metadata.uid or record.deleting:
            return False
        settled = (record.version, applied_hash(manifest))
        if _is_created_once(resource, manifest) or self._settled.get(record.uid) == settled:
            return True
        return covers(record.body, {name: part for name, part in manifest.items() if name not in _TYPE})

    async def _write(self, key: Key, model: Owned, resource: Resource, manifest: Mapping[str, Any]) -> Outcome:
        try:
            await self._check_ownership(key, model, resource, manifest)
            await self._leave_replicas(key, resource, manifest)
            body = await self._create_or_apply(key, resource, manifest)
        except ApiError as error:
            if not error.refused:
                raise
            self._refusals.add(key, manifest, error)
            return Outcome(refusals_changed=True)
        uid, version = body["metadata"]["uid"], int(body["metadata"]["resourceVersion"])
        record = self._view.children(key).objects.get((resource.kind, manifest["metadata"]["name"]))
        self._take(resource, body)
        changed = record is None or record.version != version
        if not changed:
            # The apiserver found nothing to change where `covers` did: it compares better than we do.
            self._settled[uid] = (version, applied_hash(manifest))
            while len(self._settled) > _SETTLED:
                del self._settled[next(iter(self._settled))]
        return Outcome(changed=changed, refusals_changed=self._refusals.settle(key, manifest))

    async def _create_or_apply(self, key: Key, resource: Resource, manifest: Mapping[str, Any]) -> Mapping[str, Any]:
        """Write a child; what is made once and then never changed is created, which costs the apiserver less."""
        slot = (resource.kind, manifest["metadata"]["name"])
        children = self._view.children(key)
        if _is_created_once(resource, manifest) and slot not in children.objects and slot not in children.jobs:
            try:
                return await self._api.create(resource, key[0], manifest)
            except ApiError as error:
                if error.reason != "AlreadyExists":
                    raise
        return await self._api.apply(resource, manifest)

    async def _check_ownership(self, key: Key, model: Owned, resource: Resource, manifest: Mapping[str, Any]) -> None:
        """Refuse to take over an object that somebody else made under the name of a child."""
        name = manifest["metadata"]["name"]
        if _is_created_once(resource, manifest) or (resource.kind, name) in self._view.children(key).objects:
            return
        try:
            meta = (await self._api.get(resource, key[0], name))["metadata"]
        except ApiError as error:
            if error.not_found:
                return
            raise
        ours = (meta.get("labels") or {}).get(self._view.scope.label) == key[1]
        if owner_uid(meta) not in (model.metadata.uid, "") or not ours:
            said = f"{resource.kind} {name} exists and does not belong to this {model.kind}; rename it or that object"
            raise ApiError(422, "AlreadyExists", said)

    async def _leave_replicas(self, key: Key, resource: Resource, manifest: Mapping[str, Any]) -> None:
        """Hand the number of replicas over to an autoscaler: merely leaving it out would fall back to one."""
        if resource is not resources.DEPLOYMENT or "replicas" in manifest["spec"]:
            return
        record = self._view.children(key).objects.get((resource.kind, manifest["metadata"]["name"]))
        if record is None or record.uid in self._handed_over:
            return
        meta = {name: manifest["metadata"][name] for name in ("name", "namespace")}
        kept = {"replicas": record.body["spec"].get("replicas", 1)}
        body = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": meta, "spec": kept}
        await self._api.apply(resource, body, manager=SCALING_MANAGER)
        self._handed_over.add(record.uid)

    def _take(self, resource: Resource, body: Mapping[str, Any]) -> None:
        if self._view.put(resource, body) is not None:  # else the watch was faster than the answer
            self._echo.expect(resource, header(body))

    async def _events(self, key: Key, model: Owned, events: Iterable[Event], now: datetime) -> None:
        for event in events:
            manifest = event_manifest(model, event, now)
            try:
                await self._api.create(resources.EVENT, key[0], manifest)
            except ApiError as error:
                if not (error.conflict or error.refused):  # told before a crash, or nobody may tell anything here
                    raise

    async def _status(self, key: Key, model: Owned, status: ModelStatus | ExperimentStatus) -> None:
        if status == model.status:
            return
        manifest = {
            "apiVersion": group.API_VERSION,
            "kind": model.kind,
            "metadata": {"name": key[1], "namespace": key[0], "uid": model.metadata.uid},
            "status": status.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
        self._take(self._owners, await self._api.apply_status(self._owners, manifest))

    async def _finalizer(self, key: Key, uid: str, *, present: bool) -> None:
        record = self._view.model(key)
        if record is None or record.uid != uid:
            return
        there = record.body["metadata"].get("finalizers") or []
        kept = [name for name in there if name != FINALIZER]
        if (len(kept) == len(there)) is not present:
            return
        wanted = [*kept, FINALIZER] if present else kept
        body = await self._api.set_finalizers(
            resources.MODEL, key[0], key[1], version=str(record.version), finalizers=wanted
        )
        if record.deleting and not wanted:
            # Gone with that write, though the answer shows the version before it: nothing more is to be decided.
            self._view.remove(resources.MODEL, body)
        else:
            self._take(resources.MODEL, body)


def _is_created_once(resource: Resource, manifest: Mapping[str, Any]) -> bool:
    """Return whether an object of this name never changes: by its kind, or because it says so itself."""
    return resource.kind in _CREATED_ONCE or manifest.get("immutable") is True
