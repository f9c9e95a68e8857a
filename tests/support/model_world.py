# SPDX-License-Identifier: Apache-2.0
"""A cluster in memory for one ThinkRecModel: it applies plans as a driver does, and Jobs end as a test wants.

Results are known by construction: an artifact's digest follows from its key, the gate finds three groups, and every
evaluation measures the AUC that the test set.
"""

from __future__ import annotations

import copy
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from thinkrec_crds.artifact import ExitCode, TerminationMessage
from thinkrec_crds.conditions import Reason
from thinkrec_crds.group import ANNOTATION_RETRAIN_REQUESTED, FINALIZER
from thinkrec_crds.model import ThinkRecModel
from thinkrec_crds.model_status import ModelStatus
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_operator.observed import (
    ChildRef,
    Experiments,
    JobObservation,
    JobState,
    Observed,
    RevisionRecord,
    ServingObservation,
    Settings,
)
from thinkrec_operator.plan import (
    AutoscalerChild,
    ChildKind,
    CleanupChild,
    ConfigMapChild,
    ControllerRevisionChild,
    DeploymentChild,
    DisruptionBudgetChild,
    Event,
    JobChild,
    PeersServiceChild,
    Plan,
    ServiceChild,
)
from thinkrec_operator.reconcile import reconcile

OTHER_KINDS: dict[type[Any], ChildKind] = {
    ServiceChild: ChildKind.SERVICE,
    DisruptionBudgetChild: ChildKind.POD_DISRUPTION_BUDGET,
    AutoscalerChild: ChildKind.HORIZONTAL_POD_AUTOSCALER,
    PeersServiceChild: ChildKind.SERVICE,
}
START = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
GROUPS = 3
STAGES = frozenset(
    {
        "dataset",
        "keywords",
        "collaborative",
        "traces",
        "adapter",
        "projector",
        "gate",
        "expert-0",
        "expert-1",
        "bundle",
        "evaluate",
    }
)
"""Roles of every stage of a model with two experts."""

SPEC: Mapping[str, Any] = {
    "baseModel": {"storageUri": "s3://models/base", "revision": "1"},
    "dataset": {
        "storageUri": "s3://data/ratings.parquet",
        "revision": "1",
        "items": {"storageUri": "s3://data/items.parquet", "columns": {"attributes": ["genre"]}},
    },
    "keywords": {"source": "Attributes"},
    "experts": {"count": 2},
    "artifacts": {"storageUri": "s3://store/movies"},
}


def model(spec: Mapping[str, Any] = SPEC, *, generation: int = 1, **metadata: Any) -> ThinkRecModel:
    """Return a model with this spec, unseen so far."""
    body = {
        "apiVersion": "thinkrec.io/v1alpha1",
        "kind": "ThinkRecModel",
        "metadata": {"name": "movies", "namespace": "team", "uid": "u-1", "generation": generation, **metadata},
        "spec": spec,
    }
    return ThinkRecModel.model_validate(body)


def merged(spec: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the spec with changes laid over it; None removes a member."""
    found = copy.deepcopy(dict(spec))
    for name, value in changes.items():
        if value is None:
            found.pop(name, None)
        elif isinstance(value, Mapping) and isinstance(found.get(name), dict):
            found[name] = merged(found[name], value)
        else:
            found[name] = copy.deepcopy(value)
    return found


def published(key: str, kind: StageKind, *, metrics: Mapping[str, float] | None = None) -> TerminationMessage:
    """Return what the stage with this key always publishes."""
    return TerminationMessage(
        key=key,
        kind=kind,
        digest=f"sha256:{hashlib.sha256(key.encode()).hexdigest()}",
        uri=f"s3://store/movies/{kind.value}/{key}",
        metrics=dict(metrics or {}),
        counts={"groups": GROUPS} if kind is StageKind.GATE else {},
    )


@dataclass(slots=True)
class World:
    """The objects of one model, and a clock that only tests move."""

    spec: dict[str, Any] = field(default_factory=lambda: copy.deepcopy(dict(SPEC)))
    generation: int = 1
    annotations: dict[str, str] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    now: datetime = START
    status: ModelStatus = field(default_factory=ModelStatus)
    jobs: dict[str, JobObservation] = field(default_factory=dict)
    children: dict[str, JobChild] = field(default_factory=dict)
    config_maps: set[str] = field(default_factory=set)
    revisions: dict[str, RevisionRecord] = field(default_factory=dict)
    deployment: DeploymentChild | None = None
    serving: ServingObservation | None = None
    store: dict[str, TerminationMessage] = field(default_factory=dict)
    store_is_seen: bool = True
    """The driver can look into the store (a laptop); a cluster's operator cannot."""
    runs: Counter[str] = field(default_factory=Counter)
    """Key -> Jobs created for it."""
    events: list[Event] = field(default_factory=list)
    others: set[ChildRef] = field(default_factory=set)
    """Children of the kinds that are only applied and deleted."""
    kinds: frozenset[str] = frozenset()
    auc: float = 0.7
    deleting: datetime | None = None
    """When the model was deleted."""
    finalizer: bool = False
    gone: bool = False
    cleanup: JobObservation | None = None
    elsewhere: frozenset[str] = frozenset()
    namespace_terminating: bool = False
    experiments: Experiments = field(default_factory=Experiments)
    traffic_shared: bool = False
    """Revisions that experiments compare."""

    def observed(self) -> Observed:
        """Return what a decision sees now."""
        extra: dict[str, Any] = {"annotations": dict(self.annotations)} if self.annotations else {}
        if self.deleting is not None:
            extra["deletionTimestamp"] = self.deleting
        if self.finalizer:
            extra["finalizers"] = [FINALIZER]
        seen = model(self.spec, generation=self.generation, **extra).model_copy(update={"status": self.status})
        return Observed(
            model=seen,
            now=self.now,
            settings=self.settings,
            jobs=tuple(self.jobs.values()),
            config_maps=tuple(sorted(self.config_maps)),
            completed=dict(self.store) if self.store_is_seen else {},
            revisions=tuple(self.revisions.values()),
            serving=self.serving,
            other_children=tuple(sorted(self.others, key=lambda ref: (ref.kind, ref.name))),
            kinds=self.kinds,
            keys_elsewhere=self.elsewhere,
            experiments=self.experiments,
            traffic_shared=self.traffic_shared,
            cleanup=self.cleanup,
            namespace_terminating=self.namespace_terminating,
        )

    def step(self, *, writes: int | None = None) -> Plan:
        """Decide and apply; with `writes`, the driver is killed after that many writes."""
        plan = reconcile(self.observed())
        actions: list[Callable[[], None]] = [partial(self._hold, True)] if plan.finalizer else []
        actions += [partial(self._delete, d.kind, d.name) for d in plan.deletions]
        actions += [partial(self._create, child) for child in plan.children]
        actions.append(partial(self._write, plan))
        if plan.finalizer is False:
            actions.append(partial(self._hold, False))
        for action in actions[:writes]:
            action()
        self.now += timedelta(seconds=1)
        return plan

    def run(self, limit: int = 200) -> Plan:
        """Decide until nothing is left to do, every Job succeeding at once and every server getting ready."""
        for _ in range(limit):
            plan = self.step()
            if not self.active and not plan.jobs and plan.requeue_after != 0 and not self.roll_out():
                return plan
            for name in self.active:
                self.succeed(name)
        raise AssertionError(f"not settled after {limit} steps: {self.active}")

    @property
    def active(self) -> list[str]:
        """Return the names of Jobs at work."""
        return [job.name for job in self.jobs.values() if job.active]

    def job_of(self, title: str) -> JobObservation:
        """Return the Job of a stage."""
        found = [job for job in self.jobs.values() if self.children[job.name].title == title]
        assert len(found) == 1, f"{title}: {[job.name for job in found]}"
        return found[0]

    def succeed(self, name: str) -> None:
        """Let a Job publish its artifact and end."""
        child = self.children[name]
        metrics = {"auc": self.auc, "uauc": self.auc} if child.stage.kind is StageKind.EVALUATE else {}
        told = self.store.setdefault(child.stage.key, published(child.stage.key, child.stage.kind, metrics=metrics))
        self._end(name, JobState.SUCCEEDED, exit_code=0, termination=told)

    def fail(
        self,
        name: str,
        *,
        exit_code: int = 1,
        reason: Reason = Reason.BACKOFF_LIMIT_EXCEEDED,
        error: str = "broke",
    ) -> None:
        """Let a Job fail for good."""
        child = self.children[name]
        told = TerminationMessage(key=child.stage.key, kind=child.stage.kind, error=error)
        end = None if exit_code == ExitCode.BAD_INPUT else reason.value
        self._end(name, JobState.FAILED, exit_code=exit_code, termination=told, reason=end)

    def edit(self, changes: Mapping[str, Any]) -> None:
        """Change the spec as a user does."""
        wanted = merged(self.spec, changes)
        if wanted != self.spec:
            self.spec, self.generation = wanted, self.generation + 1

    def ask_retrain(self, token: str) -> None:
        """Set the retrain annotation."""
        self.annotations[ANNOTATION_RETRAIN_REQUESTED] = token

    def roll_out(self) -> bool:
        """Let the Deployment get ready; return whether that changed anything."""
        wish = self.deployment
        if wish is None:
            return False
        replicas = wish.serving.effective_replicas
        ready = ServingObservation(
            name=wish.name,
            revision=wish.revision,
            spec_hash=wish.spec_hash,
            replicas=replicas,
            ready_replicas=replicas,
            url="http://movies.team",
        )
        changed = ready != self.serving
        self.serving = ready
        return changed

    def _end(self, name: str, state: JobState, **changes: Any) -> None:
        job = self.jobs[name]
        self.jobs[name] = replace(job, state=state, attempts=job.attempts + 1, completion_time=self.now, **changes)

    def delete(self) -> None:
        """Delete the model as a user does; without a finalizer it is gone at once."""
        self.deleting, self.gone = self.now, not self.finalizer

    def end_cleanup(self, state: JobState, **changes: Any) -> None:
        """Let the clean-up end."""
        assert self.cleanup is not None
        self.cleanup = replace(self.cleanup, state=state, **changes)

    def _hold(self, held: bool) -> None:
        self.finalizer = held
        self.gone = self.gone or (self.deleting is not None and not held)

    def _delete(self, kind: ChildKind, name: str) -> None:
        if kind in (ChildKind.JOB, ChildKind.JOB_SET, ChildKind.TRAIN_JOB):
            assert name not in self.jobs or self.jobs[name].backend == kind, f"{name} is no {kind}"
            self.jobs.pop(name, None)
        elif kind is ChildKind.CONFIG_MAP:
            self.config_maps.discard(name)
        elif kind is ChildKind.CONTROLLER_REVISION:
            self.revisions.pop(name, None)
        else:
            self.others.discard(ChildRef(kind, name))

    def _create(self, child: object) -> None:
        if isinstance(child, ConfigMapChild) and child.component == "training":
            self.config_maps.add(child.name)
        elif isinstance(child, JobChild):
            self._create_job(child)
        elif isinstance(child, ControllerRevisionChild):
            known = self.revisions.get(child.record.name)
            assert known is None or known.data == child.record.data, "the data of a ControllerRevision is immutable"
            self.revisions[child.record.name] = child.record
        elif isinstance(child, DeploymentChild):
            self._apply_deployment(child)
        elif isinstance(child, CleanupChild) and self.cleanup is None:
            self.cleanup = JobObservation(child.name, "", JobState.PENDING)
        elif isinstance(child, tuple(OTHER_KINDS)):
            self.others.add(ChildRef(OTHER_KINDS[type(child)], child.name))

    def _create_job(self, child: JobChild) -> None:
        if child.name in self.jobs:
            return
        assert child.config_map in self.config_maps, "a Job's ConfigMap is created before it"
        for ref in child.stage.inputs:
            assert self.store[ref.key].digest == ref.digest, f"{child.name} reads {ref.name} before it is published"
        if self.store_is_seen:
            assert child.stage.key not in self.store, f"{child.name} runs a finished key again"
        self.runs[child.stage.key] += 1
        self.children[child.name] = child
        self.jobs[child.name] = JobObservation(
            name=child.name,
            key=child.stage.key,
            state=JobState.PENDING,
            generation=child.owner.generation,
            retrain=child.owner.retrain,
            scheduled=child.owner.scheduled,
            backend=child.backend,
            start_time=self.now,
        )

    def _apply_deployment(self, child: DeploymentChild) -> None:
        self.deployment = child
        old = self.serving
        if old is None:
            self.serving = ServingObservation(child.name, child.revision, child.spec_hash)
        elif old.spec_hash != child.spec_hash or old.revision != child.revision:
            # The old pods answer until the new ones do.
            self.serving = replace(old, revision=child.revision, spec_hash=child.spec_hash, current=False)

    def _write(self, plan: Plan) -> None:
        self.status = plan.status
        self.events += plan.events


def run_until(world: World, title: str) -> str:
    """Let everything succeed until the Job of a stage is at work; return its name."""
    for _ in range(50):
        world.step()
        for name in world.active:
            if world.children[name].title == title:
                return name
            world.succeed(name)
    raise AssertionError(f"{title} never started")
