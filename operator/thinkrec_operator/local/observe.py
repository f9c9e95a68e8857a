# SPDX-License-Identifier: Apache-2.0
"""From the manifest and the state folder to what a decision sees."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from thinkrec_crds.artifact import TerminationMessage
from thinkrec_crds.model import ThinkRecModel
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_operator import work
from thinkrec_operator.local.state import State
from thinkrec_operator.local.store import LocalStore
from thinkrec_operator.observed import JobObservation, JobState, Observed, RevisionRecord, ServingObservation, Settings


def model_with_state(model: ThinkRecModel, state: State) -> ThinkRecModel:
    """Return the manifest's model with the uid, generation and status that a cluster would have added."""
    record = state.model_record(model)  # written when the spec is new
    metadata = model.metadata.model_copy(update={"uid": record.uid, "generation": record.generation})
    return model.model_copy(update={"metadata": metadata, "status": state.status()})


def observe(
    model: ThinkRecModel,
    state: State,
    store: LocalStore,
    *,
    jobs: tuple[JobObservation, ...],
    serving: ServingObservation | None,
    settings: Settings,
    now: datetime,
) -> Observed:
    """Return everything one decision depends on; `model` comes from `model_with_state`, or bare for a look only."""
    observed = Observed(
        model=model,
        now=now,
        settings=settings,
        jobs=jobs,
        revisions=tuple(record for record in state.revisions() if _still_stored(record, store)),
        serving=serving,
    )
    return with_stored_work(observed, store)


def _still_stored(record: RevisionRecord, store: LocalStore) -> bool:
    if not store.is_local:
        return True
    found = store.published(StageKind.BUNDLE, record.bundle.key)
    return found is not None and found.digest == record.bundle.digest


def with_stored_work(observed: Observed, store: LocalStore) -> Observed:
    """Return the observation with every finished key of the spec's graph that a local store holds.

    A gate found there may make the graph longer, so it looks again until nothing new is found.
    """
    completed: dict[str, TerminationMessage] = dict(observed.completed)
    while store.is_local:
        seen = replace(observed, completed=completed)
        results = work.finished_work(seen)
        missing = [stage for stage in work.current_graph(seen, results).stages if stage.key not in results]
        found = {stage.key: told for stage in missing if (told := store.published(stage.kind, stage.key)) is not None}
        if not found:
            break
        completed.update(found)
    return replace(observed, completed=completed)


def lost_jobs(jobs: tuple[JobObservation, ...], store: LocalStore) -> tuple[str, ...]:
    """Return the names of Jobs that succeeded but whose artifact is no longer in the local store."""
    return tuple(job.name for job in jobs if store.is_local and _is_lost(job, store))


def _is_lost(job: JobObservation, store: LocalStore) -> bool:
    told = job.termination
    if job.state is not JobState.SUCCEEDED or told is None:
        return False
    stored = store.published(told.kind, job.key)
    return stored is None or stored.digest != told.digest
