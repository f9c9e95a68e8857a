# SPDX-License-Identifier: Apache-2.0
"""A cluster in memory for one ThinkRecExperiment over trained models; Jobs end as a test wants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from support import model_world
from support.model_world import START
from thinkrec_crds.artifact import ExitCode, TerminationMessage
from thinkrec_crds.comparison import ComparisonReport, Difference, VariantResult
from thinkrec_crds.evaluation import Estimate
from thinkrec_crds.experiment import ThinkRecExperiment
from thinkrec_crds.experiment_status import ExperimentStatus
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_crds.stages import CompareParameters
from thinkrec_operator.experiments.observed import ObservedExperiment, ObservedModel
from thinkrec_operator.experiments.reconcile import ExperimentPlan, reconcile
from thinkrec_operator.observed import ChildRef, JobObservation, JobState, ServingObservation, Settings
from thinkrec_operator.plan import ChildKind, ConfigMapChild, DeploymentChild, Event, JobChild, ServiceChild

SPEC: Mapping[str, Any] = {
    "variants": [
        {"name": "old", "modelRef": {"name": "movies"}},
        {"name": "new", "modelRef": {"name": "warm"}},
    ],
    "controlVariantName": "old",
    "offline": {"metrics": [{"name": "UAUC"}, {"name": "NDCG@5"}]},
}


def trained(name: str = "movies", **changes: Any) -> ObservedModel:
    """Return a model that was trained, with its revision."""
    world = model_world.World(spec=model_world.merged(model_world.SPEC, changes))
    world.run()
    seen = world.observed().model
    named = seen.model_copy(update={"metadata": seen.metadata.model_copy(update={"name": name})})
    return ObservedModel(named, tuple(world.revisions.values()))


@dataclass(slots=True)
class World:
    """The objects of one experiment, and a clock that only tests move."""

    spec: dict[str, Any] = field(default_factory=lambda: dict(SPEC))
    models: dict[str, ObservedModel] = field(default_factory=dict)
    generation: int = 1
    now: datetime = START
    settings: Settings = field(default_factory=Settings)
    status: ExperimentStatus = field(default_factory=ExperimentStatus)
    jobs: dict[str, JobObservation] = field(default_factory=dict)
    children: dict[str, JobChild] = field(default_factory=dict)
    config_maps: set[str] = field(default_factory=set)
    runs: Counter[str] = field(default_factory=Counter)
    """Title of the stage -> Jobs created for it."""
    events: list[Event] = field(default_factory=list)
    gain: dict[str, float] = field(default_factory=lambda: {"new": 0.02})
    """Variant -> how much better than control it is, on every metric."""
    p_value: float = 0.01
    written: int = 0
    """Writes of a status that differed."""
    deployments: dict[str, ServingObservation] = field(default_factory=dict)
    """Variant -> its pods."""
    others: set[ChildRef] = field(default_factory=set)
    answering: bool = True
    """Whether new pods answer at once."""
    look: dict[str, float] = field(default_factory=dict)
    """What each analysis finds (thinkrec_crds.findings)."""

    def observed(self) -> ObservedExperiment:
        """Return what a decision sees now."""
        body = {
            "metadata": {"name": "warmer", "namespace": "team", "uid": "e-1", "generation": self.generation},
            "spec": self.spec,
        }
        seen = ThinkRecExperiment.model_validate(body).model_copy(update={"status": self.status})
        return ObservedExperiment(
            experiment=seen,
            now=self.now,
            settings=self.settings,
            models=dict(self.models),
            jobs=tuple(self.jobs.values()),
            config_maps=tuple(sorted(self.config_maps)),
            deployments=dict(self.deployments),
            other_children=tuple(sorted(self.others, key=str)),
        )

    def step(self, *, writes: int | None = None) -> ExperimentPlan:
        """Decide and apply; with `writes`, the driver is killed after that many."""
        plan = reconcile(self.observed())
        actions: list[Any] = [lambda d=d: self._delete(d.kind, d.name) for d in plan.deletions]
        actions += [lambda child=child: self._create(child) for child in plan.children]
        actions.append(lambda: self._write(plan))
        for action in actions[:writes]:
            action()
        self.now += timedelta(seconds=1)
        return plan

    def run(self, limit: int = 50) -> ExperimentPlan:
        """Decide until nothing is left to do, every Job succeeding at once."""
        for _ in range(limit):
            plan = self.step()
            active = [job for job in self.jobs.values() if job.active]
            if not active and not plan.children and not plan.deletions and plan.requeue_after != 0:
                return plan
            for job in active:
                self.succeed(job.name)
        raise AssertionError("the experiment does not come to rest")

    def settle(self, limit: int = 60) -> ExperimentPlan:
        """Decide until a decision changes nothing, every Job succeeding at once; the clock hardly moves."""
        for _ in range(limit):
            before = (self.status, set(self.jobs), dict(self.deployments), set(self.others))
            plan = self.step()
            active = [job for job in self.jobs.values() if job.active]
            for job in active:
                self.succeed(job.name)
            if not active and before == (self.status, set(self.jobs), dict(self.deployments), set(self.others)):
                return plan
        raise AssertionError("the experiment does not settle")

    def wait(self, seconds: float) -> ExperimentPlan:
        """Let time pass, then decide until nothing changes."""
        self.now += timedelta(seconds=seconds)
        return self.settle()

    def succeed(self, name: str) -> None:
        """Let a Job end with what its stage publishes."""
        child = self.children[name]
        told = TerminationMessage(
            key=child.stage.key,
            kind=child.stage.kind,
            digest=model_world.published(child.stage.key, child.stage.kind).digest,
            uri=child.stage.output_uri,
            **self._numbers(child),
        )
        self._end(name, JobState.SUCCEEDED, termination=told, exit_code=0)

    def fail(self, name: str, message: str) -> None:
        """Let a Job fail for good."""
        child = self.children[name]
        told = TerminationMessage(key=child.stage.key, kind=child.stage.kind, error=message)
        self._end(name, JobState.FAILED, termination=told, exit_code=int(ExitCode.BAD_INPUT))

    def condition(self, kind: str) -> tuple[str, str]:
        """Return status and reason of a condition."""
        found = self.status.condition(kind)
        return (found.status, found.reason) if found else ("absent", "")

    def job(self, title: str) -> str:
        """Return the name of the Job of a stage."""
        return next(name for name, child in self.children.items() if child.title == title)

    def _end(self, name: str, state: JobState, **told: Any) -> None:
        child = self.children[name]
        self.jobs[name] = JobObservation(name, child.stage.key, state, generation=child.owner.generation, **told)

    def _numbers(self, child: JobChild) -> dict[str, Any]:
        if child.stage.kind is StageKind.ANALYSE:
            return {"metrics": dict(self.look), "counts": {"users": 2000}}
        if child.stage.kind is not StageKind.COMPARE:
            return {}
        given = child.stage.parameters
        assert isinstance(given, CompareParameters)
        return {"metrics": self._report(given).numbers(), "counts": {"users": 40, "rows": 200}}

    def _report(self, given: CompareParameters) -> ComparisonReport:
        values = {name: 0.6 + self.gain.get(name, 0.0) for name in given.variants}
        return ComparisonReport(
            control=given.control,
            variants=tuple(
                VariantResult(name=name, metrics={metric: _around(value) for metric in given.metrics})
                for name, value in values.items()
            ),
            differences=tuple(
                Difference(
                    variant=name,
                    metric=metric,
                    effect=_around(value - values[given.control]),
                    p_value=self.p_value,
                    adjusted_p_value=self.p_value,
                )
                for metric in given.metrics
                for name, value in values.items()
                if name != given.control
            ),
            users=40,
            rows=200,
            seed=0,
            bootstrap_samples=100,
        )

    def _delete(self, kind: ChildKind, name: str) -> None:
        if kind is ChildKind.CONFIG_MAP:
            self.config_maps.discard(name)
        elif kind in (ChildKind.DEPLOYMENT, ChildKind.SERVICE):
            self.others.discard(ChildRef(kind.value, name))
            self.deployments = {
                v: d for v, d in self.deployments.items() if kind is ChildKind.SERVICE or d.name != name
            }
        else:
            self.jobs.pop(name, None)

    def _create(self, child: object) -> None:
        if isinstance(child, ConfigMapChild):
            self.config_maps.add(child.name)
        elif isinstance(child, ServiceChild):
            self.others.add(ChildRef("Service", child.name))
        elif isinstance(child, DeploymentChild):
            self.others.add(ChildRef("Deployment", child.name))
            ready = int(self.answering)
            made = ServingObservation(child.name, child.revision, child.spec_hash, replicas=1, ready_replicas=ready)
            self.deployments.setdefault(child.variant, made)
        elif isinstance(child, JobChild) and child.name not in self.jobs:
            self.children[child.name] = child
            self.runs[child.title] += 1
            self.jobs[child.name] = JobObservation(
                child.name, child.stage.key, JobState.PENDING, generation=child.owner.generation
            )

    def _write(self, plan: ExperimentPlan) -> None:
        self.events += plan.events
        self.written += plan.status != self.status
        self.status = plan.status


def _around(value: float) -> Estimate:
    return Estimate(value=value, lower=value - 0.01, upper=value + 0.01, users=40)
