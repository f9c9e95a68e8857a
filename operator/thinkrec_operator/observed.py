# SPDX-License-Identifier: Apache-2.0
"""What a decision sees: the model, its children and the finished work, as frozen values. No behaviour beyond look-ups.

A driver fills it from wherever it looks (the apiserver's objects, or a folder on a laptop); `now` is the only clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from pydantic import AwareDatetime, ConfigDict

from thinkrec_crds.artifact import Digest, Key, Progress, TerminationMessage
from thinkrec_crds.contract import Contract
from thinkrec_crds.group import FINALIZER
from thinkrec_crds.model import ThinkRecModel
from thinkrec_crds.spec_training import TrainingBackend
from thinkrec_crds.traffic import TrafficExperiment


class JobState(StrEnum):
    """Where a Job stands."""

    PENDING = "Pending"
    """Created; no process runs yet (no node, no quota, or a retry that waits)."""
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    """Its retries are used up, or the failure cannot be retried."""


@dataclass(frozen=True, slots=True)
class JobObservation:
    """One Job as it is now."""

    name: str
    key: str
    """Key of the stage it works on."""
    state: JobState
    generation: int = 0
    """Generation of the model that it was created for."""
    retrain: str | None = None
    """Retrain token in force when it was created."""
    backend: TrainingBackend = "Job"
    """Kind of the object."""
    scheduled: str | None = None
    """Newest scheduled run when it was created (annotation `thinkrec.io/scheduledFor`)."""
    attempts: int = 0
    """Times a process was started."""
    failures: int = 0
    """Of these, the ones that count against the back-off limit."""
    exit_code: int | None = None
    """Of the latest attempt that ended."""
    reason: str | None = None
    """Why it failed or waits, as a reason of conditions.py or of the queue."""
    message: str = ""
    queued: bool = False
    """It waits for a queue to admit it."""
    start_time: datetime | None = None
    completion_time: datetime | None = None
    next_attempt_time: datetime | None = None
    """When a retry that waits will start."""
    termination: TerminationMessage | None = None
    progress: Progress | None = None
    deleting: bool = False

    @property
    def active(self) -> bool:
        """Return whether it still works or waits to."""
        return self.state in (JobState.PENDING, JobState.RUNNING)


class ComparedBundle(Contract):
    """The revision that served when another one was evaluated."""

    revision: str
    key: Key
    digest: Digest
    uri: str


class EvaluationRecord(Contract):
    """The newest evaluation of a revision; the only part of a revision that may change."""

    result: TerminationMessage
    compared: ComparedBundle | None = None
    gates_passed: bool


class RevisionData(Contract):
    """The lineage of a revision, immutable (`data` of a ControllerRevision)."""

    model_config = ConfigDict(extra="ignore")  # a newer version may have written more, before a downgrade

    base_model_uri: str
    base_model_revision: str = ""
    dataset_uri: str
    dataset_revision: str = ""
    image: str = ""
    """Training image."""
    generation: int
    """Generation of the spec it was trained for."""
    seed: int
    retrain: str | None = None
    """Token in the dataset's key: this revision was trained again without a spec change."""
    handled_retrain: str | None = None
    """Retrain annotation in force when it was made."""
    handled_schedule: str | None = None
    """Token of the newest scheduled run when it was made."""
    expert_names: tuple[str, ...]
    results: dict[str, TerminationMessage]
    """Role of each stage but `evaluate` -> what it published."""
    created_time: AwareDatetime


@dataclass(frozen=True, slots=True)
class RevisionRecord:
    """One trained revision."""

    name: str
    number: int
    """Counts up from 1 within a model."""
    data: RevisionData
    evaluation: EvaluationRecord

    @property
    def bundle(self) -> TerminationMessage:
        """Return what its bundle stage published."""
        return self.data.results["bundle"]


@dataclass(frozen=True, slots=True)
class ServingObservation:
    """The serving Deployment (or process) as it is now."""

    name: str
    revision: str
    """Revision its newest pods serve."""
    spec_hash: str
    """Digest of the desired state it was last written from."""
    current: bool = True
    """Its controller has seen the newest spec and no older pod is left."""
    replicas: int = 0
    ready_replicas: int = 0
    reason: str | None = None
    """Why pods are not ready, as a reason of conditions.py."""
    message: str = ""
    stuck: bool = False
    """Its newest pods did not become ready within the Deployment's own deadline."""
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator itself was configured with."""

    trainer_image: str = "thinkrec-trainer:latest"
    inference_image: str = "thinkrec-inference:latest"
    relative_files: bool = False
    """`file:relative` addresses mean something here (a laptop), instead of being refused."""
    serve: bool = True
    """Create serving children; the local driver leaves them out while it only trains."""
    progress_period_seconds: int = 30
    """Least time between two looks at a running stage's progress."""

    @property
    def laptop(self) -> bool:
        """Return whether there is no cluster: stages are processes, and nothing watches the clock."""
        return self.relative_files


@dataclass(frozen=True, slots=True)
class ChildRef:
    """A child that exists, by kind and name."""

    kind: str
    """As in ChildKind: Service, PodDisruptionBudget, HorizontalPodAutoscaler, Deployment (of the gateway)…"""
    name: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """A child that the apiserver refused, and will refuse again until something changes."""

    kind: str
    name: str
    reason: str
    """The apiserver's own, for example Invalid or Forbidden."""
    message: str


@dataclass(frozen=True, slots=True)
class Promotion:
    """A revision that an experiment decided for."""

    experiment: str
    uid: str
    revision: str
    time: datetime
    """When it ended."""


@dataclass(frozen=True, slots=True)
class Experiments:
    """What the experiments about a model ask of it."""

    in_use: frozenset[str] = frozenset()
    """Revisions that one without a verdict compares; history keeps them."""
    traffic: tuple[TrafficExperiment, ...] = ()
    """Those whose users the model's gateway shares out, in the order of precedence."""
    holding: str = ""
    """One of these: while it runs, no other revision goes into service by itself."""
    promotion: Promotion | None = None
    """The newest decision for a revision of this model."""


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything one decision depends on."""

    model: ThinkRecModel
    """Spec, metadata (generation, annotations, deletion) and the status written last."""
    now: datetime
    settings: Settings = Settings()
    jobs: tuple[JobObservation, ...] = ()
    config_maps: tuple[str, ...] = ()
    """Names of the stage ConfigMaps that exist."""
    completed: Mapping[str, TerminationMessage] = field(default_factory=lambda: MappingProxyType({}))
    """Key -> published result, for work known to be finished without a Job that says so."""
    revisions: tuple[RevisionRecord, ...] = ()
    serving: ServingObservation | None = None
    gateway: ServingObservation | None = None
    """Unused: the gateway is a part of the serving pods (decision 5)."""
    other_children: tuple[ChildRef, ...] = ()
    """Children of this model of kinds that no other field names; what is no longer wanted is found here."""
    kinds: frozenset[str] = frozenset()
    """Optional kinds that the cluster knows: JobSet, TrainJob, Workload."""
    keys_elsewhere: frozenset[str] = frozenset()
    """Stage keys that other models with the same store still use; a clean-up leaves them alone."""
    experiments: Experiments = Experiments()
    traffic_shared: bool = False
    """The ConfigMap exists that tells the gateway how to share out users."""
    refusals: tuple[Refusal, ...] = ()
    """What the apiserver refused for this spec."""
    namespace_terminating: bool = False
    """The namespace is going: nothing can be created in it any more."""
    cleanup: JobObservation | None = None
    """The Job that removes a deleted model's artifacts; its `key` is empty."""

    scheduled: str | None = None
    """Token of the scheduled run in force; a driver leaves it None, a decision that starts a run fills it in."""

    @property
    def has_finalizer(self) -> bool:
        """Return whether our finalizer holds the model back."""
        return FINALIZER in self.model.metadata.finalizers

    @property
    def generation(self) -> int:
        """Return the generation of the spec."""
        return self.model.metadata.generation

    @property
    def first_visit(self) -> bool:
        """Return whether no status was ever written."""
        return not self.model.status.conditions
