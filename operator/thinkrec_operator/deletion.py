# SPDX-License-Identifier: Apache-2.0
"""The plan of a model that is being deleted: stop what runs, then clean the store where the spec asks for it. Pure.

Nothing else is created. The finalizer is let go in any case: after the clean-up succeeded, after it failed for good,
when the namespace is going too, or when time is up; what is then left in the store is said in an event.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from thinkrec_crds.clean import CLEAN_FILE, MOST_ARTIFACTS, ArtifactName, CleanSpec
from thinkrec_crds.fields import Resources
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_crds.stages import StoreOptions
from thinkrec_operator import children as build
from thinkrec_operator import work
from thinkrec_operator.names import child_name, content_hash, short_hash
from thinkrec_operator.observed import JobState, Observed
from thinkrec_operator.plan import (
    CLEANUP_DEADLINE_SECONDS,
    Child,
    ChildKind,
    CleanupChild,
    ConfigMapChild,
    Deletion,
    Event,
    Plan,
)

SPARE_SECONDS = 300
"""For pods to end and the clean-up to be scheduled, beyond grace period and deadline."""
_RESOURCES = Resources(requests={"cpu": "100m", "memory": "256Mi"}, limits={"cpu": "1", "memory": "1Gi"})


def wanted_finalizer(observed: Observed) -> bool | None:
    """Return how the finalizer must change: present while `deletionPolicy` is Delete, absent otherwise."""
    wanted = observed.model.spec.artifacts.deletion_policy == "Delete" and not observed.settings.laptop
    return None if wanted == observed.has_finalizer else wanted


def farewell(observed: Observed) -> Plan:
    """Return the plan of a model with a deletion timestamp."""
    stops = tuple(
        Deletion(ChildKind(job.backend), job.name, "the model is being deleted")
        for job in observed.jobs
        if job.active and not job.deleting
    )
    if not observed.has_finalizer or observed.settings.laptop:
        return _plan(observed, stops)
    if observed.model.spec.artifacts.deletion_policy != "Delete":
        return _plan(observed, stops, finalizer=False)
    if (event := _ending(observed)) is not None:
        return _plan(observed, stops, events=(event,), finalizer=False)
    left = (_last_moment(observed) - observed.now).total_seconds()
    if observed.cleanup is not None or any(job.active or job.deleting for job in observed.jobs):
        return _plan(observed, stops, requeue_after=left)
    told = Event("Normal", "ArtifactCleanupStarted", f"{len(artifacts(observed))} artifacts of this model are deleted.")
    return _plan(observed, stops, children=_cleanup(observed), events=(told,), requeue_after=left)


def _plan(
    observed: Observed,
    stops: tuple[Deletion, ...],
    *,
    children: tuple[Child, ...] = (),
    events: tuple[Event, ...] = (),
    requeue_after: float | None = None,
    finalizer: bool | None = None,
) -> Plan:
    return Plan(children, stops, observed.model.status, events, requeue_after, finalizer)


def _ending(observed: Observed) -> Event | None:
    """Return what to say when there is nothing more to wait for."""
    root, job = observed.model.spec.artifacts.storage_uri, observed.cleanup
    kept = f"Artifacts below {root} are left: remove them by hand where nothing else uses them."
    if job is not None and job.state is JobState.SUCCEEDED:
        return Event("Normal", "ArtifactsDeleted", f"The artifacts of this model below {root} are deleted.")
    if job is not None and job.state is JobState.FAILED:
        why = job.message or job.reason or f"exit code {job.exit_code}"
        return Event("Warning", "ArtifactCleanupFailed", f"The clean-up failed: {why}. {kept}")
    if observed.namespace_terminating:
        return Event("Warning", "ArtifactCleanupFailed", f"The namespace is being deleted: no clean-up can run. {kept}")
    if observed.now >= _last_moment(observed):
        return Event("Warning", "ArtifactCleanupFailed", f"The clean-up did not end in time. {kept}")
    if not artifacts(observed):
        return Event("Normal", "ArtifactsDeleted", f"Nothing below {root} belongs to this model alone.")
    return None


def _last_moment(observed: Observed) -> datetime:
    begun = observed.model.metadata.deletion_timestamp
    assert begun is not None, "only a model that is being deleted comes here"
    grace = observed.model.spec.training.termination_grace_period_seconds
    return begun + timedelta(seconds=CLEANUP_DEADLINE_SECONDS + grace + SPARE_SECONDS)


def artifacts(observed: Observed) -> tuple[ArtifactName, ...]:
    """Return every artifact that this model is known to have made or used and no other model uses.

    What is known: the spec's own graph, the status, and the lineage of each revision that is kept.
    """
    if build.relative_uri(observed) is not None:
        return ()
    found = {(kind, key) for kind, key in _known(observed) if key and key not in observed.keys_elsewhere}
    order = {kind: place for place, kind in enumerate(StageKind)}
    names = sorted(found, key=lambda item: (-order[item[0]], item[1]))  # what reads others goes before what it reads
    return tuple(ArtifactName(kind=kind, key=key) for kind, key in names[:MOST_ARTIFACTS])


def _known(observed: Observed) -> Iterator[tuple[StageKind, str]]:
    for stage in work.current_graph(observed, work.finished_work(observed)).stages:
        yield stage.kind, stage.key
    status = observed.model.status
    for row in (*status.stages, *status.experts):
        yield row.kind, row.key
    for record in observed.revisions:
        for result in (*record.data.results.values(), record.evaluation.result):
            yield result.kind, result.key


def _cleanup(observed: Observed) -> tuple[Child, ...]:
    """Return ConfigMap and Job of the clean-up; it runs the operator's own image, with the store's credentials."""
    spec, owner = observed.model.spec, build.owner_of(observed)
    order = CleanSpec(
        root_uri=spec.artifacts.storage_uri,
        store=StoreOptions(endpoint=spec.artifacts.endpoint, region=spec.artifacts.region),
        artifacts=artifacts(observed),
    )
    text = order.to_json(indent=2) + "\n"
    config_map = child_name(owner.name, "clean", content_hash(text)[:10])
    return (
        ConfigMapChild(config_map, owner, ((CLEAN_FILE, text),), "cleanup"),
        CleanupChild(
            name=child_name(owner.name, "clean", short_hash(owner.uid)),
            owner=owner,
            config_map=config_map,
            settings=build.cleanup_settings(observed, _RESOURCES),
        ),
    )
