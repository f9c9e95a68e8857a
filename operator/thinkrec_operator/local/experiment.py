# SPDX-License-Identifier: Apache-2.0
"""An experiment without a cluster: over models whose state folders are beside its own, and with simulated users.

The online part is decided by the same function as in a cluster. Only its clock is another one: where nothing is at work
and the next look is due in a while, the time between is left out, so that two weeks last a minute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from rich.text import Text

from thinkrec_crds.artifact import TerminationMessage
from thinkrec_crds.conditions import ConditionType, Reason
from thinkrec_crds.experiment import ThinkRecExperiment
from thinkrec_crds.experiment_status import ExperimentStatus
from thinkrec_crds.model import ThinkRecModel
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_operator.experiments.observed import ObservedExperiment, ObservedModel
from thinkrec_operator.experiments.reconcile import ExperimentPlan, reconcile
from thinkrec_operator.experiments.stages import offline_stages
from thinkrec_operator.experiments.variants import line_up
from thinkrec_operator.local.driver import View
from thinkrec_operator.local.jobs import JobOptions, JobRunner
from thinkrec_operator.local.observe import lost_jobs, model_with_state
from thinkrec_operator.local.outcome import Outcome, stalled_outcome
from thinkrec_operator.local.signals import Signals, pause, rest, wind_down
from thinkrec_operator.local.state import State, utc_now
from thinkrec_operator.local.store import LocalStore
from thinkrec_operator.local.view import Picture
from thinkrec_operator.observed import JobObservation, Settings
from thinkrec_operator.plan import JobChild
from thinkrec_operator.work import StageView

MOST_LOOKS = 60
"""In one run: an experiment that finds nothing ends some time."""
_SETTINGS = Settings(relative_files=True, serve=False, progress_period_seconds=1)


@dataclass(frozen=True, slots=True)
class StageRow:
    """One stage as it is shown."""

    name: str
    kind: str
    key: str
    state: str
    reason: str | None
    message: str | None
    progress_percent: int | None
    estimated_remaining_seconds: int | None
    attempts: int
    start_time: datetime | None
    completion_time: datetime | None


def stage_row(view: StageView) -> StageRow:
    """Return where a stage stands."""
    job, told = view.job, view.job.progress if view.job is not None and view.job.active else None
    return StageRow(
        name=view.stage.title,
        kind=view.stage.kind.value,
        key=view.stage.key,
        state="Reused" if view.result is not None and job is None else view.state,
        reason=view.reason,
        message=view.message or None,
        progress_percent=100 if view.result is not None else int(100 * told.step / told.total) if told else None,
        estimated_remaining_seconds=round(told.eta_seconds) if told and told.eta_seconds is not None else None,
        attempts=job.attempts if job is not None else 0,
        start_time=job.start_time if job is not None else None,
        completion_time=job.completion_time if job is not None else None,
    )


class ExperimentDriver:
    """One experiment, one state folder, one loop."""

    def __init__(
        self,
        experiment: ThinkRecExperiment,
        models: Mapping[str, tuple[ThinkRecModel, State]],
        state: State,
        *,
        folder: Path,
        jobs: JobOptions,
        view: View,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Compare `models`, by name, each with its own state; `folder` is the manifest's."""
        self._experiment = experiment
        self._models = models
        self._state = state
        self._folder = folder
        self._view = view
        self._clock = clock
        self._left_out = timedelta()
        """Time between looks that nobody waited for."""
        self._looks = 0
        self._jobs = JobRunner(state, jobs)
        self._signals = Signals()

    def run(self) -> Outcome:
        """Work until there is a verdict; return how it ended. The caller holds the state's lock."""
        self._jobs.recover(self._clock())
        self._jobs.retry_failed()
        self._begin_anew_where_something_changed()
        with self._signals:
            try:
                return self._loop()
            finally:
                wind_down(self._jobs, self._signals, self._clock, self._view.note)

    def _begin_anew_where_something_changed(self) -> None:
        """Forget an older verdict where the manifest is another one or a model has a newer revision.

        In a cluster that is a new object; here whoever runs the command again wants to know what is true now. What was
        scored is in the store.
        """
        before = self._state.experiment_status()
        record = self._state.model_record(self._experiment)
        told = {row.name: row.resolved_revision for row in before.variants}
        fresh = self._experiment.model_copy(update={"status": ExperimentStatus()})
        lineup = line_up(replace(self._observe(), experiment=fresh))
        newest = {one.name: one.record.name for one in lineup.contenders}
        if before.conditions and (before.observed_generation != record.generation or (newest and newest != told)):
            self._state.write_status(self._experiment, ExperimentStatus())

    def _loop(self) -> Outcome:
        while True:
            plan = self._step()
            outcome = self._outcome(plan)
            if outcome is not None:
                return outcome
            if self._may_leave_out(plan):
                if self._looks >= MOST_LOOKS:
                    self._view.note(f"no verdict after {MOST_LOOKS} simulated analyses; it goes on with the next run")
                    return Outcome.SUSPENDED
                self._looks += 1
                self._left_out += timedelta(seconds=plan.requeue_after or 0.0)
                continue
            rest(self._jobs, self._signals, self._clock, seconds=pause(plan.requeue_after))

    def _may_leave_out(self, plan: ExperimentPlan) -> bool:
        """Return whether nothing but time is waited for: the next look at simulated users."""
        running = plan.status.traffic_start_time is not None and plan.status.conclusion is None
        idle = not (self._jobs.busy or plan.children or plan.deletions or self._signals.count)
        return running and idle and bool(plan.requeue_after) and plan.status.condition(ConditionType.STALLED) is None

    def _now(self) -> datetime:
        """Return the time of the experiment."""
        return self._clock() + self._left_out

    def _step(self) -> ExperimentPlan:
        now, observed = self._clock(), self._observe()
        for name in lost_jobs(observed.jobs, self._store()):
            self._view.note(f"the artifact of {name} is gone from the store; it is made again")
            self._jobs.forget(name)
            observed = self._observe()
        plan = reconcile(observed)
        wanted = tuple(child for child in plan.children if isinstance(child, JobChild))
        self._jobs.apply(() if self._signals.count else wanted, plan.deletions, now)
        self._jobs.start_waiting(now)
        self._state.write_status(self._experiment, plan.status)
        self._state.add_events(plan.events, now)
        self._view.update(self._picture(observed, plan))
        return plan

    def _observe(self) -> ObservedExperiment:
        record = self._state.model_record(self._experiment)
        metadata = self._experiment.metadata.model_copy(update={"uid": record.uid, "generation": record.generation})
        update = {"metadata": metadata, "status": self._state.experiment_status()}
        seen = ObservedExperiment(
            experiment=self._experiment.model_copy(update=update),
            now=self._now(),
            settings=_SETTINGS,
            models={
                name: ObservedModel(model_with_state(model, state), state.revisions())
                for name, (model, state) in self._models.items()
            },
            jobs=self._jobs.observe(),
        )
        return replace(seen, completed=self._completed(seen))

    def _store(self) -> LocalStore:
        """Return the store of control's model; it is where everything is published."""
        spec = self._experiment.spec
        control = next(v.model_ref.name for v in spec.variants if v.name == spec.control_variant_name)
        uri = self._models[control][0].spec.artifacts.storage_uri if control in self._models else "s3://nowhere"
        return LocalStore(uri, self._folder)

    def _completed(self, observed: ObservedExperiment) -> dict[str, TerminationMessage]:
        """Return the stages whose artifacts a local store has already, whoever made them."""
        store = self._store()
        stages = offline_stages(self._experiment.spec, line_up(observed))
        known = {stage.key: stage.kind for stage in stages}
        known |= {row.key: StageKind(row.kind) for row in observed.experiment.status.stages}
        found = ((key, store.published(kind, key)) for key, kind in known.items())
        return {key: told for key, told in found if told is not None}

    def _picture(self, observed: ObservedExperiment, plan: ExperimentPlan) -> Picture:
        meta, told = observed.experiment.metadata, plan.status.condition(ConditionType.SUCCEEDED)
        word = told.reason if told is not None else Reason.PENDING.value
        head = Text.assemble((f"{meta.namespace}/{meta.name}", "bold"), f"  generation {meta.generation}  {word}")
        jobs: dict[str, JobObservation] = {job.key: job for job in observed.jobs}
        rows = [stage_row(view) for view in plan.views]
        return Picture(head, observed.now, rows, jobs, plan.events, plan.status.conditions)

    def _outcome(self, plan: ExperimentPlan) -> Outcome | None:
        """Return how the run ended, or None while it goes on."""
        if self._signals.count:
            return Outcome.INTERRUPTED
        if self._jobs.busy or plan.children or plan.deletions or plan.requeue_after == 0:
            return None
        if plan.status.conclusion is not None:
            missed = plan.status.conclusion.reason == Reason.OFFLINE_GATE_FAILED
            return Outcome.GATE_FAILED if missed else Outcome.DONE
        if self._experiment.spec.suspend:
            return Outcome.SUSPENDED
        stalled = plan.status.condition(ConditionType.STALLED)
        if stalled is not None:
            return stalled_outcome(stalled.reason)
        waits = plan.status.condition(ConditionType.VARIANTS_READY)
        return Outcome.BAD_INPUT if waits is not None and waits.status == "False" else None  # nobody else brings it
