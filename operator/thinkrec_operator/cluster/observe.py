# SPDX-License-Identifier: Apache-2.0
"""From the view to what one decision sees. Pure, but for the caches of parsed bodies."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterator, Mapping
from datetime import datetime
from typing import Any

from thinkrec_crds import group
from thinkrec_crds.artifact import Progress
from thinkrec_crds.group import FINALIZER
from thinkrec_crds.model import ThinkRecModel
from thinkrec_operator.cluster import resources
from thinkrec_operator.cluster.jobs import JobRecord, is_lost, observe_job, pods_of
from thinkrec_operator.cluster.objects import TRAFFIC, ObjectRecord, parsed_revision
from thinkrec_operator.cluster.refusals import Refusals
from thinkrec_operator.cluster.serving import observe_serving, rollout
from thinkrec_operator.cluster.view import Children, View
from thinkrec_operator.cluster.workqueue import Key
from thinkrec_operator.manifests.revision import ANNOTATION_EVALUATION
from thinkrec_operator.names import child_name
from thinkrec_operator.observed import (
    ChildRef,
    Experiments,
    JobObservation,
    Observed,
    RevisionRecord,
    ServingObservation,
    Settings,
)

CLEANUP = "cleanup"
"""Component label of the Job that removes what a deleted model left in the store."""
_NO_EXPERIMENTS = Experiments()
_NAMED_ELSEWHERE = frozenset({resources.CONFIG_MAP.kind, resources.CONTROLLER_REVISION.kind})
"""Kinds with a field of their own in Observed."""


def observe(
    view: View,
    key: Key,
    model: ThinkRecModel,
    *,
    settings: Settings,
    now: datetime,
    kinds: frozenset[str] = frozenset(),
    refusals: Refusals | None = None,
    progress: Mapping[str, Progress] | None = None,
    experiments: Experiments = _NO_EXPERIMENTS,
) -> Observed:
    """Return everything that a decision about this model depends on; `progress` is by uid of the Job."""
    children = view.children(key)
    uid = model.metadata.uid
    work, cleanup = observe_jobs(view, key, uid, progress or {})
    own = [record for record in children.objects.values() if record.owner in ("", uid) and not record.deleting]
    leaving = model.metadata.deletion_timestamp is not None and FINALIZER in model.metadata.finalizers
    return Observed(
        model=model,
        now=now,
        settings=settings,
        jobs=work,
        completed=children.told(),
        config_maps=tuple(sorted(r.name for r in own if r.kind == resources.CONFIG_MAP.kind and _is_stage(r))),
        revisions=revisions_of(view, key, uid),
        serving=_deployment(own, children, child_name(key[1], "serving"), f"http://{key[1]}.{key[0]}.svc"),
        gateway=_deployment(own, children, child_name(key[1], "gateway"), None),
        other_children=tuple(ChildRef(r.kind, r.name) for r in own if r.kind not in _NAMED_ELSEWHERE),
        kinds=kinds,
        experiments=experiments,
        traffic_shared=any(r.component == TRAFFIC for r in own),
        refusals=refusals.of(key) if refusals else (),
        namespace_terminating=refusals is not None and refusals.is_terminating(key, uid),
        keys_elsewhere=frozenset(keys_elsewhere(view, key, model)) if leaving else frozenset(),
        cleanup=cleanup,
    )


def lost_jobs(view: View, key: Key, known: Callable[[], Container[str]]) -> Iterator[JobRecord]:
    """Yield the Jobs that succeeded but whose Pods are gone, where nothing else knows what they published."""
    children = view.children(key)
    for job in children.jobs.values():
        if job.key and is_lost(job, pods_of(job, children.pods.values())) and job.key not in known():
            yield job


def observe_jobs(
    view: View, key: Key, uid: str, progress: Mapping[str, Progress]
) -> tuple[tuple[JobObservation, ...], JobObservation | None]:
    """Return the Jobs of an owner's stages, and the one that cleans up after it."""
    children, work, cleanup = view.children(key), [], None
    for job in sorted(children.jobs.values(), key=lambda found: (found.kind, found.name)):
        seen = observe_job(
            job,
            pods_of(job, children.pods.values()),
            model_uid=uid,
            queue=view.queue(key[0], job.name),
            progress=progress.get(job.uid),
        )
        if job.component == CLEANUP:
            cleanup = seen if job.owner == uid else cleanup
        elif job.key:
            work.append(seen)
    return tuple(work), cleanup


def _is_stage(record: ObjectRecord) -> bool:
    return record.component == "training"


def revisions_of(view: View, key: Key, uid: str) -> tuple[RevisionRecord, ...]:
    """Return the revisions of a model that can be read."""
    records = (
        record
        for record in view.children(key).objects.values()
        if record.kind == resources.CONTROLLER_REVISION.kind and record.owner in ("", uid) and not record.deleting
    )
    return tuple(found for record in records if (found := parsed_revision(record)) is not None)


def _deployment(own: list[ObjectRecord], children: Children, name: str, url: str | None) -> ServingObservation | None:
    record = next((r for r in own if r.kind == resources.DEPLOYMENT.kind and r.name == name), None)
    return None if record is None else _served(record, children, url)


def _served(record: ObjectRecord, children: Children, url: str | None, variant: str = "") -> ServingObservation:
    pods = [pod for pod in children.pods.values() if (pod.component, pod.variant) == (record.component, variant)]
    return observe_serving(record.name, rollout(record.body), [pod for pod in pods if not pod.deleting], url=url)


def observe_variants(view: View, key: Key, uid: str) -> Mapping[str, ServingObservation]:
    """Return the Deployments of an experiment's own, by the name of the variant that they answer for."""
    children, found = view.children(key), {}
    for record in children.objects.values():
        if record.kind == resources.DEPLOYMENT.kind and record.owner in ("", uid) and not record.deleting:
            variant = (record.body["metadata"].get("labels") or {}).get(group.LABEL_VARIANT, "")
            found[variant] = _served(record, children, None, variant)
    return found


def keys_elsewhere(view: View, key: Key, model: ThinkRecModel) -> Iterator[str]:
    """Yield the stage keys that other models with the same store still use: in status, or in a revision's lineage.

    Read from the plain bodies: a model that this version cannot understand still uses what it names.
    """
    root = model.spec.artifacts.storage_uri.rstrip("/")
    for other, record in view.models():
        if other == key or record.store != root:
            continue
        status = record.body.get("status") or {}
        yield from (row.get("key", "") for row in (*(status.get("stages") or ()), *(status.get("experts") or ())))
        for child in view.children(other).objects.values():
            if child.kind == resources.CONTROLLER_REVISION.kind:
                yield from _keys_of_revision(child.body)


def _keys_of_revision(body: Mapping[str, Any]) -> Iterator[str]:
    for result in ((body.get("data") or {}).get("results") or {}).values():
        yield result.get("key", "")
    evaluation = (body["metadata"].get("annotations") or {}).get(ANNOTATION_EVALUATION)
    if evaluation:
        yield json.loads(evaluation).get("result", {}).get("key", "")
