# SPDX-License-Identifier: Apache-2.0
"""The loop without a cluster: observe, reconcile, apply, until nothing is left to do or someone interrupts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Protocol

from thinkrec_crds.conditions import ConditionType
from thinkrec_crds.model import ThinkRecModel
from thinkrec_operator.local.jobs import JobOptions, JobRunner
from thinkrec_operator.local.observe import lost_jobs, model_with_state, observe
from thinkrec_operator.local.outcome import Outcome, stalled_outcome
from thinkrec_operator.local.serving import LocalServing, ServingOptions
from thinkrec_operator.local.signals import Signals, nothing_else, pause, rest, wind_down
from thinkrec_operator.local.state import State, utc_now
from thinkrec_operator.local.store import LocalStore
from thinkrec_operator.local.view import Picture, picture_of
from thinkrec_operator.observed import Observed, Settings
from thinkrec_operator.plan import ChildKind, ControllerRevisionChild, DeploymentChild, Plan
from thinkrec_operator.reconcile import reconcile


class View(Protocol):
    """Is told what happens."""

    def update(self, seen: Picture) -> None:
        """Show the newest state and what happened."""

    def note(self, text: str) -> None:
        """Show one sentence."""


@dataclass(frozen=True, slots=True)
class DriverOptions:
    """What the user chose on the command line."""

    manifest: Path
    cpus: int
    train: bool = True
    serve: bool = False
    port: int = 0
    max_serving_failures: int = 5
    """Give up when the server ended this often without ever being ready."""


class Driver:
    """One model, one state folder, one loop."""

    def __init__(
        self,
        load: Callable[[], ThinkRecModel],
        state: State,
        options: DriverOptions,
        *,
        jobs: JobOptions,
        serving: ServingOptions,
        view: View,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Read the model through `load`; processes start in `run`."""
        self._model = load()
        self._state = state
        self._options = options
        self._view = view
        self._clock = clock
        self._store = LocalStore(self._model.spec.artifacts.storage_uri, options.manifest.resolve().parent)
        self._jobs = JobRunner(state, jobs)
        self._serving = LocalServing(state, serving)
        self._settings = Settings(relative_files=True, serve=options.serve, progress_period_seconds=1)
        self._signals = Signals()

    def run(self) -> Outcome:
        """Work until nothing is left to do; return how it ended. The caller holds the state's lock."""
        self._jobs.recover(self._clock())
        self._jobs.retry_failed()
        self._serving.recover()
        with self._signals:
            try:
                return self._loop()
            finally:
                wind_down(self._jobs, self._signals, self._clock, self._view.note)
                self._serving.stop()
                self._say_what_is_left()

    def _loop(self) -> Outcome:
        while True:
            observed, plan = self._step()
            outcome = self._outcome(observed, plan)
            if outcome is not None:
                return outcome
            self._wait(plan)

    def _say_what_is_left(self) -> None:
        """Write the status of what there is once nothing runs any more: no server, no stage at work."""
        observed = self._observe(self._clock())
        plan = reconcile(observed)
        self._state.write_status(self._model, plan.status)
        self._view.update(picture_of(observed, replace(plan, events=())))

    def _observe(self, now: datetime) -> Observed:
        return observe(
            model_with_state(self._model, self._state),
            self._state,
            self._store,
            jobs=self._jobs.observe(),
            serving=self._serving.observe(),
            settings=self._settings,
            now=now,
        )

    def _step(self) -> tuple[Observed, Plan]:
        """Observe, decide, apply, once."""
        now = self._clock()
        for name in lost_jobs(self._jobs.observe(), self._store):
            self._view.note(f"the artifact of {name} is gone from the store; it is made again")
            self._jobs.forget(name)
        observed = self._observe(now)
        plan = reconcile(observed)
        self._apply(plan, now)
        self._view.update(picture_of(observed, plan))
        return observed, plan

    def _apply(self, plan: Plan, now: datetime) -> None:
        for deletion in plan.deletions:
            if deletion.kind is ChildKind.CONTROLLER_REVISION:
                self._state.forget_revision(deletion.name)
        wanted = plan.jobs if self._options.train and not self._signals.count else ()
        self._jobs.apply(wanted, plan.deletions, now)
        deployment = None
        for child in plan.children:
            if isinstance(child, ControllerRevisionChild):
                self._state.write_revision(child.record)
            elif isinstance(child, DeploymentChild):
                deployment = child
        self._jobs.start_waiting(now)
        if self._options.serve and not self._signals.count:
            self._serving.apply(deployment, now)
        self._state.write_status(self._model, plan.status)
        self._state.add_events(plan.events, now)

    def _outcome(self, observed: Observed, plan: Plan) -> Outcome | None:
        """Return how the run ended, or None while it goes on."""
        if self._signals.count:
            return Outcome.INTERRUPTED
        at_work = self._jobs.busy or (self._options.train and plan.jobs) or plan.requeue_after == 0
        if at_work or any(deletion.kind is ChildKind.JOB for deletion in plan.deletions):
            return None
        stalled = plan.status.condition(ConditionType.STALLED)
        if self._options.serve and any(isinstance(child, DeploymentChild) for child in plan.children):
            return Outcome.FAILED if self._serving.failures >= self._options.max_serving_failures else None
        if not self._options.train:
            return Outcome.NOTHING_TO_SERVE
        if stalled is not None:
            return stalled_outcome(stalled.reason)
        trained = plan.status.is_true(ConditionType.TRAINING_SUCCEEDED) and plan.status.is_true(ConditionType.EVALUATED)
        if trained:
            return Outcome.DONE
        return Outcome.SUSPENDED if observed.model.spec.suspend else None

    def _wait(self, plan: Plan) -> None:
        poll = self._serving.poll if self._options.serve else nothing_else
        rest(self._jobs, self._signals, self._clock, seconds=pause(plan.requeue_after), more=poll)
