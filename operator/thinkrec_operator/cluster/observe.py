# SPDX-License-Identifier: Apache-2.0
"""From the view to what one decision sees. Pure, but for the caches of parsed bodies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from thinkrec_crds.artifact import Progress
from thinkrec_crds.model import ThinkRecModel
from thinkrec_operator.cluster import resources
from thinkrec_operator.cluster.jobs import JobRecord, is_lost, observe_job
from thinkrec_operator.cluster.objects import ObjectRecord, parsed_model, parsed_revision
from thinkrec_operator.cluster.pods import PodRecord
from thinkrec_operator.cluster.refusals import Refusals
from thinkrec_operator.cluster.serving import observe_serving, rollout
from thinkrec_operator.cluster.view import Children, View
from thinkrec_operator.cluster.workqueue import Key
from thinkrec_operator.names import child_name
from thinkrec_operator.observed import (
    ChildRef,
    JobObservation,
    Observed,
    RevisionRecord,
    ServingObservation,
    Settings,
)
from thinkrec_operator.work import finished_work

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
) -> Observed:
    """Return everything that a decision about this model depends on; `progress` is by uid of the Job."""
    children = view.children(key)
    uid = model.metadata.uid
    work, cleanup = _jobs(view, key, children, uid, progress or {})
    own = [record for record in children.objects.values() if record.owner == uid and not record.deleting]
    deleting = model.metadata.deletion_timestamp is not None
    return Observed(
        model=model,
        now=now,
        settings=settings,
        jobs=work,
        config_maps=tuple(sorted(r.name for r in own if r.kind == resources.CONFIG_MAP.kind and _is_stage(r))),
        revisions=tuple(_revisions(own)),
        serving=_deployment(own, children, child_name(key[1], "serving"), f"http://{key[1]}.{key[0]}.svc"),
        gateway=_deployment(own, children, child_name(key[1], "gateway"), None),
        other_children=tuple(ChildRef(r.kind, r.name) for r in own if r.kind not in _NAMED_ELSEWHERE),
        kinds=kinds,
        refusals=refusals.of(key) if refusals else (),
        namespace_terminating=refusals is not None and refusals.is_terminating(key[0]),
        keys_elsewhere=frozenset(keys_elsewhere(view, key, model)) if deleting else frozenset(),
        cleanup=cleanup,
    )


def lost_jobs(view: View, key: Key, observed: Observed) -> Iterator[JobRecord]:
    """Yield the Jobs that succeeded but whose Pods are gone, where nothing else knows what they published."""
    children = view.children(key)
    for job in children.jobs.values():
        if job.key and is_lost(job, _pods_of(children, job)) and job.key not in finished_work(observed):
            yield job


def _jobs(
    view: View, key: Key, children: Children, uid: str, progress: Mapping[str, Progress]
) -> tuple[tuple[JobObservation, ...], JobObservation | None]:
    work, cleanup = [], None
    for job in sorted(children.jobs.values(), key=lambda found: (found.kind, found.name)):
        seen = observe_job(
            job,
            _pods_of(children, job),
            model_uid=uid,
            queue=view.queue(key[0], job.name),
            progress=progress.get(job.uid),
        )
        if not job.key:  # it works on no stage: it removes what a deleted model left in the store
            cleanup = seen
        else:
            work.append(seen)
    return tuple(work), cleanup


def _pods_of(children: Children, job: JobRecord) -> list[PodRecord]:
    by_key = job.kind != resources.JOB.kind
    return [pod for pod in children.pods.values() if (pod.key == job.key if by_key else pod.job == job.name)]


def _is_stage(record: ObjectRecord) -> bool:
    return record.component == "training"


def _revisions(own: list[ObjectRecord]) -> Iterator[RevisionRecord]:
    for record in own:
        if record.kind == resources.CONTROLLER_REVISION.kind and (found := parsed_revision(record)) is not None:
            yield found


def _deployment(own: list[ObjectRecord], children: Children, name: str, url: str | None) -> ServingObservation | None:
    record = next((r for r in own if r.kind == resources.DEPLOYMENT.kind and r.name == name), None)
    if record is None:
        return None
    pods = [pod for pod in children.pods.values() if pod.component == record.component and not pod.deleting]
    return observe_serving(name, rollout(record.body), pods, url=url)


def keys_elsewhere(view: View, key: Key, model: ThinkRecModel) -> Iterator[str]:
    """Yield the stage keys that other models with the same store still use: in status, or in a revision's lineage."""
    root = model.spec.artifacts.storage_uri.rstrip("/")
    for other, record in view.models():
        if other == key:
            continue
        found = parsed_model(record)
        if not isinstance(found, ThinkRecModel):
            # It cannot be read, so what it uses cannot be known: better too much is kept than too little.
            raise UnreadableNeighbour(f"{other[0]}/{other[1]}", found.message)
        if found.spec.artifacts.storage_uri.rstrip("/") == root:
            yield from (row.key for row in (*found.status.stages, *found.status.experts))
            for revision in _revisions(list(view.children(other).objects.values())):
                yield from (result.key for result in revision.data.results.values())
                yield revision.evaluation.result.key


class UnreadableNeighbour(RuntimeError):  # noqa: N818 (it is a finding, not a defect)
    """Another model of the cluster cannot be read, so that a clean-up might remove what it uses."""

    def __init__(self, name: str, why: str) -> None:
        """Name the model and what is wrong with it."""
        super().__init__(f"model {name} cannot be read ({why}), so what it uses of the store is not known")
