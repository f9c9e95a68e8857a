# SPDX-License-Identifier: Apache-2.0
"""What a decision wants: children that must exist, children that must go, the status, events, and when to look again.

A driver applies it in this order: deletions, children as listed, status, events. Each part may be applied again, and a
crash between any two of them is repaired by the next decision.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from thinkrec_crds.artifact import TerminationMessage
from thinkrec_crds.fields import LabelMap, PodTemplate, Resources, Toleration
from thinkrec_crds.model_status import ModelStatus
from thinkrec_crds.spec_serving import Artifacts, Autoscaling, Serving
from thinkrec_crds.spec_training import RuntimeReference, TrainingBackend
from thinkrec_crds.stages import BaseModelRef, StageSpec
from thinkrec_operator.observed import RevisionRecord


class ChildKind(StrEnum):
    """Kinds that a plan may delete."""

    JOB = "Job"
    CONFIG_MAP = "ConfigMap"
    CONTROLLER_REVISION = "ControllerRevision"
    DEPLOYMENT = "Deployment"
    SERVICE = "Service"
    POD_DISRUPTION_BUDGET = "PodDisruptionBudget"
    HORIZONTAL_POD_AUTOSCALER = "HorizontalPodAutoscaler"
    JOB_SET = "JobSet"
    TRAIN_JOB = "TrainJob"


@dataclass(frozen=True, slots=True)
class Owner:
    """The model or experiment a child belongs to."""

    name: str
    namespace: str
    uid: str
    generation: int
    retrain: str | None = None
    """Retrain annotation in force."""
    scheduled: str | None = None
    """Token of the newest scheduled run."""
    kind: Literal["ThinkRecModel", "ThinkRecExperiment"] = "ThinkRecModel"


@dataclass(frozen=True, slots=True)
class SecretEnvironment:
    """A Secret whose entries become environment variables."""

    name: str
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class PodSettings:
    """How a training pod runs: `spec.training` with the stage's override laid over it."""

    image: str
    args: tuple[str, ...]
    """Of the user's own image; ours takes none."""
    resources: Resources
    backoff_limit: int
    active_deadline_seconds: int | None
    ttl_seconds_after_finished: int
    termination_grace_period_seconds: int
    service_account_name: str | None
    priority_class_name: str | None
    queue_name: str | None
    node_selector: LabelMap
    tolerations: tuple[Toleration, ...]
    pod_template: PodTemplate | None
    secrets: tuple[SecretEnvironment, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """How one stage is spread out; never part of its key."""

    shards: int = 1
    """Pods that share out the work of a sharded stage."""
    nodes: int = 1
    """Pods that train together."""
    processes: int = 1
    """Processes in each of them, one for each of its GPUs."""

    @property
    def pods(self) -> int:
        """Return the number of pods."""
        return max(self.shards, self.nodes)

    @property
    def together(self) -> bool:
        """Return whether several processes train together."""
        return self.nodes * self.processes > 1


@dataclass(frozen=True, slots=True)
class ConfigMapChild:
    """A ConfigMap, named after its content and immutable; only that with the traffic is written anew."""

    name: str
    owner: Owner
    data: tuple[tuple[str, str], ...]
    """File name -> content, or environment variable -> value."""
    component: Literal["training", "serving", "cleanup", "traffic"]

    @property
    def immutable(self) -> bool:
        """Return whether its content never changes."""
        return self.component != "traffic"


@dataclass(frozen=True, slots=True)
class JobChild:
    """A Job (JobSet, TrainJob) that must exist; it is created when absent and never changed."""

    name: str
    owner: Owner
    stage: StageSpec
    title: str
    config_map: str
    settings: PodSettings
    layout: Layout = Layout()
    peers: str = ""
    """Service that gives the pods of several nodes their names."""
    backend: TrainingBackend = "Job"
    runtime: RuntimeReference | None = None
    """Of a TrainJob."""

    @property
    def kind(self) -> ChildKind:
        """Return the kind of the object."""
        return ChildKind(self.backend)


CLEANUP_DEADLINE_SECONDS = 600
CLEANUP_BACKOFF_LIMIT = 3


@dataclass(frozen=True, slots=True)
class CleanupChild:
    """The Job that removes a deleted model's artifacts; created when absent and never changed."""

    name: str
    owner: Owner
    config_map: str
    settings: PodSettings


@dataclass(frozen=True, slots=True)
class ControllerRevisionChild:
    """The lineage of one trained revision and its newest evaluation."""

    owner: Owner
    record: RevisionRecord


@dataclass(frozen=True, slots=True)
class DeploymentChild:
    """The serving pods of one revision; of an experiment's variant where `variant` names one."""

    name: str
    owner: Owner
    revision: str
    bundle: TerminationMessage
    bundle_uri: str
    base_model: BaseModelRef
    artifacts: Artifacts
    serving: Serving
    image: str
    fetch_image: str
    service_account_name: str | None
    """Also the identity with which bundle and base model are fetched."""
    config_map: str
    secrets: tuple[SecretEnvironment, ...]
    spec_hash: str
    variant: str = ""


@dataclass(frozen=True, slots=True)
class DisruptionBudgetChild:
    """Lets drains move serving pods one by one."""

    name: str
    owner: Owner


@dataclass(frozen=True, slots=True)
class AutoscalerChild:
    """Lets load choose the number of serving pods."""

    name: str
    owner: Owner
    deployment: str
    autoscaling: Autoscaling


@dataclass(frozen=True, slots=True)
class ServiceChild:
    """The stable address of the serving pods."""

    name: str
    owner: Owner
    variant: str = ""


@dataclass(frozen=True, slots=True)
class PeersServiceChild:
    """The headless Service through which the pods of a training on several nodes find each other."""

    name: str
    owner: Owner


Child = (
    ConfigMapChild
    | JobChild
    | CleanupChild
    | ControllerRevisionChild
    | DeploymentChild
    | DisruptionBudgetChild
    | AutoscalerChild
    | ServiceChild
    | PeersServiceChild
)


@dataclass(frozen=True, slots=True)
class Deletion:
    """A child that must go, and why."""

    kind: ChildKind
    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened, told once."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The outcome of one decision."""

    children: tuple[Child, ...]
    deletions: tuple[Deletion, ...]
    status: ModelStatus
    events: tuple[Event, ...]
    requeue_after: float | None
    """Seconds until the next decision even if nothing is reported; None waits for a change."""
    finalizer: bool | None = None
    """Whether our finalizer must be there (True, set before anything else) or must go (False, after everything else);
    None leaves it as it is."""

    @property
    def jobs(self) -> tuple[JobChild, ...]:
        """Return the Jobs among the children."""
        return tuple(child for child in self.children if isinstance(child, JobChild))
