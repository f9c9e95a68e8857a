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


class Applier:
    """Writes plans; remembers in the view what the apiserver answered."""

    def __init__(self, api: Api, view: View, *, refusals: Refusals, echo: Echo) -> None:
        """Write through `api`, read back through `view`; `echo` awaits each write in the watches."""
        self._api = api
        self._echo = echo
        self._settled: dict[str, tuple[int, str]] = {}
        self._view = view
        self._refusals = refusals

    async def apply(self, key: Key, model: ThinkRecModel, plan: Plan, *, now: datetime) -> bool:
        """Bring the cluster to the plan; raise ApiError where the rest must wait for another try.

        Return whether something was written that no watch will report, so that another look is due at once.
        """
        unwatched = [await self._delete(key, deletion) for deletion in plan.deletions]
        if plan.finalizer is True:
            await self._finalizer(key, model, present=True)
        unwatched += [await self._children(key, model, plan.children)]
        await self._events(key, model, plan.events, now)
        await self._status(key, model, plan.status)
        if plan.finalizer is False:
            await self._finalizer(key, model, present=False)
        return any(unwatched)

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

    async def _children(self, key: Key, model: ThinkRecModel, children: Iterable[Child]) -> bool:
        wanted: list[tuple[Resource, dict[str, Any]]] = []
        for child in children:
            manifest = stamped(render(child))
            wanted.append((resources.BY_KIND[manifest["kind"]], manifest))
        self._refusals.keep(key, {manifest["metadata"]["name"] for _, manifest in wanted})
        unwatched = False
        for resource, manifest in wanted:
            if not self._is_there(key, model, resource, manifest) and not self._refusals.stands(key, manifest):
                changed = await self._write(key, resource, manifest)
                unwatched = unwatched or changed
        return unwatched

    def _is_there(self, key: Key, model: ThinkRecModel, resource: Resource, manifest: Mapping[str, Any]) -> bool:
        children, slot = self._view.children(key), (resource.kind, manifest["metadata"]["name"])
        job = children.jobs.get(slot)
        if job is not None:
            return True
        record = children.objects.get(slot)
        if record is None or record.owner != model.metadata.uid or record.deleting:
            return False
        if resource.kind in _CREATED_ONCE or self._settled.get(record.uid) == (record.version, applied_hash(manifest)):
            return True
        return covers(record.body, {name: part for name, part in manifest.items() if name not in _TYPE})

    async def _write(self, key: Key, resource: Resource, manifest: Mapping[str, Any]) -> bool:
        """Write a child; return whether that changes what the next decision sees and no watch will tell."""
        try:
            body = await self._api.apply(resource, manifest)
        except ApiError as error:
            if not error.refused:
                raise
            self._refusals.add(key, manifest, error)
            return True
        uid, version = body["metadata"]["uid"], int(body["metadata"]["resourceVersion"])
        record = self._view.children(key).objects.get((resource.kind, manifest["metadata"]["name"]))
        self._take(resource, body)
        if record is None or record.version != version:
            return resource in resources.LISTED
        # The apiserver found nothing to change where `covers` did: it compares better than we do, so it is believed.
        self._settled[uid] = (version, applied_hash(manifest))
        return False

    def _take(self, resource: Resource, body: Mapping[str, Any]) -> None:
        if self._view.put(resource, body) is not None:  # else the watch was faster than the answer
            self._echo.expect(resource, body)

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
