# SPDX-License-Identifier: Apache-2.0
"""How training runs on the cluster: backend, resources, retries, queue, checkpoints, and when it repeats."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from thinkrec_crds.fields import (
    ATOMIC,
    BY_NAME,
    INT32_MAX,
    CronExpression,
    ImageName,
    Int32,
    LabelMap,
    LabelName,
    LongText,
    ObjectName,
    PodTemplate,
    Resources,
    TimeZone,
    Toleration,
)
from thinkrec_crds.rules import ApiType, Rule, at_least_one, needs, required_when
from thinkrec_crds.stage_kinds import ModelStage

TrainingBackend = Literal["Job", "JobSet", "TrainJob"]
ResumePolicy = Literal["Latest", "Never"]
ConcurrencyPolicy = Literal["Forbid", "Replace"]

_DAY = 86_400


class RuntimeReference(ApiType):
    """Names a Kubeflow training runtime."""

    name: ObjectName = Field(description="Name of the runtime.")
    kind: Literal["TrainingRuntime", "ClusterTrainingRuntime"] = Field(
        default="ClusterTrainingRuntime", description="Kind of the runtime: of this namespace, or of the cluster."
    )


class Checkpoint(ApiType):
    """How much work an interruption may cost."""

    period_seconds: Int32 = Field(
        default=300, ge=10, le=_DAY, description="Seconds between checkpoints; one more is written on SIGTERM."
    )
    resume_policy: ResumePolicy = Field(
        default="Latest", description="Latest continues from the newest whole checkpoint; Never starts again."
    )


class StageOverride(ApiType):
    """Other settings for one stage; what is left out comes from `training`."""

    name: ModelStage = Field(description="Stage these settings are for; `expert` means every expert.")
    image: ImageName | None = Field(default=None, description="Container image that speaks the stage protocol.")
    resources: Resources | None = Field(default=None, description="Compute resources of each pod.")
    nodes: Int32 | None = Field(default=None, ge=1, le=1024, description="Pods that train together under torchrun.")
    parallelism: Int32 | None = Field(default=None, ge=1, le=1024, description="Pods that share out a sharded stage.")
    backoff_limit: Int32 | None = Field(default=None, ge=0, le=100, description="Retries before the stage fails.")
    active_deadline_seconds: Int32 | None = Field(
        default=None, ge=1, le=INT32_MAX, description="Seconds the stage may run before it is stopped."
    )


class Training(ApiType):
    """How every stage runs; `stages` overrides it for one."""

    RULES: ClassVar[tuple[Rule, ...]] = (required_when("backend", "TrainJob", "runtime_ref"),)

    backend: TrainingBackend = Field(
        default="Job",
        description="Kind that is created for a stage; JobSet and TrainJob need their controllers installed.",
    )
    runtime_ref: RuntimeReference | None = Field(default=None, description="Runtime of the TrainJob backend.")
    image: ImageName | None = Field(
        default=None, description="Container image that speaks the stage protocol; unset uses the operator's own."
    )
    args: Annotated[tuple[LongText, ...], ATOMIC] = Field(
        default=(),
        max_length=64,
        description="Arguments added to the command of your own `image`; the operator's own image takes none.",
    )
    resources: Resources = Field(default=Resources(), description="Compute resources of each training pod.")
    nodes: Int32 = Field(default=1, ge=1, le=1024, description="Pods that train together under torchrun.")
    parallelism: Int32 = Field(
        default=1, ge=1, le=1024, description="Pods that share out a sharded stage (keywords, traces, evaluate)."
    )
    backoff_limit: Int32 = Field(
        default=3, ge=0, le=100, description="Retries before a stage fails; disruptions are free."
    )
    active_deadline_seconds: Int32 | None = Field(
        default=None,
        ge=1,
        le=INT32_MAX,
        description="Seconds a stage may run before it is stopped; unset has no limit.",
    )
    ttl_seconds_after_finished: Int32 = Field(
        default=_DAY, ge=0, le=INT32_MAX, description="Seconds a finished Job and its log are kept."
    )
    termination_grace_period_seconds: Int32 = Field(
        default=120, ge=1, le=3600, description="Seconds a pod gets to write its last checkpoint when it is stopped."
    )
    service_account_name: ObjectName | None = Field(
        default=None,
        description="ServiceAccount of the pods, serving pods too unless `serving.serviceAccountName` names another;"
        " unset uses the namespace's default.",
    )
    priority_class_name: ObjectName | None = Field(default=None, description="PriorityClass of the pods.")
    queue_name: LabelName | None = Field(
        default=None, description="Kueue LocalQueue; it is put on the children as kueue.x-k8s.io/queue-name."
    )
    node_selector: LabelMap = Field(default={}, description="Labels a node must have.")
    tolerations: Annotated[tuple[Toleration, ...], ATOMIC] = Field(
        default=(), max_length=16, description="Taints the pods tolerate."
    )
    checkpoint: Checkpoint = Field(default=Checkpoint(), description="When progress is saved and reused.")
    pod_template: PodTemplate | None = Field(default=None, description="Anything else of the pods, merged over ours.")
    seed: Int32 = Field(
        default=42, ge=0, le=INT32_MAX, description="Seed of every random choice; a new one trains again."
    )
    stages: Annotated[tuple[StageOverride, ...], BY_NAME] = Field(
        default=(), max_length=10, description="Other settings for single stages."
    )


class Schedule(ApiType):
    """When to train again although nothing in the spec changed."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        at_least_one("cron", "max_staleness_seconds"),
        needs("time_zone", "cron"),
        needs("starting_deadline_seconds", "cron"),
    )

    cron: CronExpression | None = Field(
        default=None, description="Minute, hour, day of month, month, day of week; or @daily and its like."
    )
    time_zone: TimeZone | None = Field(default=None, description="IANA time zone of `cron`; unset means UTC.")
    starting_deadline_seconds: Int32 | None = Field(
        default=None, ge=10, le=INT32_MAX, description="Seconds after its time that a missed run may still start."
    )
    concurrency_policy: ConcurrencyPolicy = Field(
        default="Forbid", description="Forbid skips a run while one is going on; Replace stops the old one."
    )
    max_staleness_seconds: Int32 | None = Field(
        default=None, ge=60, le=INT32_MAX, description="Seconds after its training that the model counts as Stale."
    )
