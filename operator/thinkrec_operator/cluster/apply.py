# SPDX-License-Identifier: Apache-2.0
"""From a plan to writes, in the order that makes a crash between any two of them harmless.

Deletions, the finalizer, children as listed, events, status. Events come before the status: a crash between them
decides the same again from the same status and finds its event already told (events.py). A child that is already what
it should be costs no call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from thinkrec_crds import group
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
from thinkrec_operator.manifests import render
from thinkrec_operator.plan import Child, Deletion, Event, Plan

_CREATED_ONCE: Final = frozenset(
    {resources.JOB.kind, resources.JOB_SET.kind, resources.TRAIN_JOB.kind, resources.CONFIG_MAP.kind}
)
"""Kinds that cannot change under one name: their names come from their content."""
_TYPE: Final = frozenset({"apiVersion", "kind"})
"""Members that the items of a list are without."""
SCALING_MANAGER: Final = f"{group.FIELD_MANAGER}-scaling"
"""Field manager that holds a Deployment's replicas until an autoscaler writes them."""


class Applier:
    """Writes plans; remembers in the view what the apiserver answered."""

    def __init__(self, api: Api, view: View, *, refusals: Refusals, echo: Echo) -> None:
        """Write through `api`, read back through `view`; `echo` awaits each write in the watches."""
        self._api = api
        self._echo = echo
        self._settled: dict[str, tuple[int, str]] = {}
        self._handed_over: set[str] = set()
        self._view = view
        self._refusals = refusals

    async def apply(self, key: Key, model: ThinkRecModel, plan: Plan, *, now: datetime) -> bool:
        """Bring the cluster to the plan; raise ApiError where the rest must wait for another try.

        Return whether something was written that no watch will report, so that another look is due at once.
        """
        unwatched = [await self._delete(key, deletion) for deletion in plan.deletions]
        if plan.finalizer is True:
            await self._finalizer(key, model, present=True)
        changed, failure = await self._children(key, model, plan.children)
        await self._events(key, model, plan.events, now)
        await self._status(key, model, plan.status)
        if failure is not None:  # told only now: a child that fails again and again must not keep the status away
            raise failure
        if plan.finalizer is False:
            await self._finalizer(key, model, present=False)
        return changed or any(unwatched)

    async def _delete(self, key: Key, deletion: Deletion) -> bool:
        resource = resources.BY_KIND[deletion.kind.value]
        children = self._view.children(key)
        slot = (resource.kind, deletion.name)
        record = children.jobs.get(slot) or children.objects.get(slot)
        if record is None or record.deleting:
            return False
        await self._api.delete(resource, key[0], deletion.name, uid=record.uid)
        if resource not in resources.LISTED:
            return False
        self._view.forget(key, resource.kind, deletion.name)
        return True

    async def _children(
        self, key: Key, model: ThinkRecModel, children: Iterable[Child]
    ) -> tuple[bool, ApiError | None]:
        """Write what differs; return whether another look is due, and the first call that must be made again."""
        wanted: list[tuple[Resource, dict[str, Any]]] = []
        for child in children:
            manifest = self._as_recorded(key, render(child))
            wanted.append((resources.BY_KIND[manifest["kind"]], stamped(manifest)))
        self._refusals.keep(key, {manifest["metadata"]["name"] for _, manifest in wanted})
        changed = False
        for resource, manifest in wanted:
            if self._is_there(key, model, resource, manifest):
                changed = self._refusals.settle(key, manifest) or changed
            elif not self._refusals.stands(key, manifest):
                try:
                    changed = await self._write(key, model, resource, manifest) or changed
                except ApiError as error:
                    return changed, error  # what follows may need this one: a Job reads its ConfigMap
        return changed, None

    def _as_recorded(self, key: Key, manifest: dict[str, Any]) -> dict[str, Any]:
        """Keep the lineage of a known revision as it was written: it cannot change, whatever this version would add."""
        if manifest["kind"] != resources.CONTROLLER_REVISION.kind:
            return manifest
        record = self._view.children(key).objects.get((manifest["kind"], manifest["metadata"]["name"]))
        return {**manifest, "data": record.body["data"]} if record is not None else manifest

    def _is_there(self, key: Key, model: ThinkRecModel, resource: Resource, manifest: Mapping[str, Any]) -> bool:
        children, slot = self._view.children(key), (resource.kind, manifest["metadata"]["name"])
        job = children.jobs.get(slot)
        if job is not None:
            return bool(job.owner) or job.deleting  # one that lost its owner is taken in again
        record = children.objects.get(slot)
        if record is None or record.owner != model.metadata.uid or record.deleting:
            return False
        if resource.kind in _CREATED_ONCE or self._settled.get(record.uid) == (record.version, applied_hash(manifest)):
            return True
        return covers(record.body, {name: part for name, part in manifest.items() if name not in _TYPE})

    async def _write(self, key: Key, model: ThinkRecModel, resource: Resource, manifest: Mapping[str, Any]) -> bool:
        """Write a child; return whether that changes what the next decision sees and no watch will tell."""
        try:
            await self._check_ownership(key, model, resource, manifest)
            await self._leave_replicas(key, resource, manifest)
            body = await self._api.apply(resource, manifest)
        except ApiError as error:
            if not error.refused:
                raise
            self._refusals.add(key, manifest, error)
            return True
        uid, version = body["metadata"]["uid"], int(body["metadata"]["resourceVersion"])
        record = self._view.children(key).objects.get((resource.kind, manifest["metadata"]["name"]))
        self._take(resource, body)
        settled = self._refusals.settle(key, manifest)
        if record is None or record.version != version:
            return settled or resource in resources.LISTED
        # The apiserver found nothing to change where `covers` did: it compares better than we do, so it is believed.
        self._settled[uid] = (version, applied_hash(manifest))
        return False

    async def _check_ownership(
        self, key: Key, model: ThinkRecModel, resource: Resource, manifest: Mapping[str, Any]
    ) -> None:
        """Refuse to take over an object that somebody else made under the name of a child."""
        name = manifest["metadata"]["name"]
        if resource.kind in _CREATED_ONCE or (resource.kind, name) in self._view.children(key).objects:
            return
        try:
            meta = (await self._api.get(resource, key[0], name))["metadata"]
        except ApiError as error:
            if error.not_found:
                return
            raise
        ours = (meta.get("labels") or {}).get(group.LABEL_MODEL) == key[1]
        if owner_uid(meta) not in (model.metadata.uid, "") or not ours:
            said = f"{resource.kind} {name} exists and does not belong to this model; rename the model or that object"
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

    async def _events(self, key: Key, model: ThinkRecModel, events: Iterable[Event], now: datetime) -> None:
        for event in events:
            manifest = event_manifest(model, event, now)
            try:
                await self._api.create(resources.EVENT, key[0], manifest)
            except ApiError as error:
                if not (error.conflict or error.refused):  # told before a crash, or nobody may tell anything here
                    raise

    async def _status(self, key: Key, model: ThinkRecModel, status: ModelStatus) -> None:
        if status == model.status:
            return
        manifest = {
            "apiVersion": group.API_VERSION,
            "kind": group.MODEL_KIND,
            "metadata": {"name": key[1], "namespace": key[0], "uid": model.metadata.uid},
            "status": status.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
        self._take(resources.MODEL, await self._api.apply_status(resources.MODEL, manifest))

    async def _finalizer(self, key: Key, model: ThinkRecModel, *, present: bool) -> None:
        record = self._view.model(key)
        kept = [name for name in model.metadata.finalizers if name != FINALIZER]
        if record is None or (len(kept) == len(model.metadata.finalizers)) is not present:
            return
        wanted = [*kept, FINALIZER] if present else kept
        body = await self._api.set_finalizers(
            resources.MODEL, key[0], key[1], version=str(record.version), finalizers=wanted
        )
        self._take(resources.MODEL, body)
