# SPDX-License-Identifier: Apache-2.0
"""Status of a ThinkRecModel: what the operator observed. All of it can be rebuilt from the cluster and the store."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from thinkrec_crds.fields import ATOMIC, BY_TYPE, INT32_MAX, INT53_MAX, DecimalText, Int32, ShortText, Timestamp
from thinkrec_crds.group import SCHEMA_ONLY_STATUS_GENERATION
from thinkrec_crds.rules import ObservedType
from thinkrec_crds.stage_kinds import ModelStage

ConditionStatus = Literal["True", "False", "Unknown"]
StageState = Literal["Pending", "Suspended", "Queued", "Running", "Retrying", "Succeeded", "Reused", "Failed"]

Name = Annotated[str, StringConstraints(max_length=253)]
Message = Annotated[str, StringConstraints(max_length=4096)]
Uri = Annotated[str, StringConstraints(max_length=2048)]
Digest = Annotated[str, StringConstraints(max_length=128)]
Generation = Annotated[int, Field(strict=True, ge=-1, le=INT53_MAX)]


class Condition(ObservedType):
    """One observation, shaped as metav1.Condition."""

    type: Annotated[str, StringConstraints(max_length=316, pattern=r"^[A-Z][A-Za-z]*$")] = Field(
        description="What is observed, for example Ready."
    )
    status: ConditionStatus = Field(description="Whether it holds.")
    observed_generation: Generation = Field(
        default=SCHEMA_ONLY_STATUS_GENERATION, description="Generation of the spec that this is about."
    )
    last_transition_time: Timestamp = Field(description="When `status` last changed.")
    reason: Annotated[
        str, StringConstraints(min_length=1, max_length=1024, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")
    ] = Field(description="Why, in one CamelCase word.")
    message: Message = Field(default="", description="Why, in a sentence, with what to do about it.")


class StageStatus(ObservedType):
    """Where one stage stands; an expert is a stage of its own."""

    name: Name = Field(description="Stage, or name of the expert.")
    kind: ModelStage = Field(description="Kind of the stage.")
    key: Digest = Field(default="", description="Content address of the work: same key, same result.")
    job_name: Name | None = Field(default=None, description="Job that does the work.")
    state: StageState = Field(default="Pending", description="Where the work stands; Reused found it in the store.")
    reason: ShortText | None = Field(default=None, description="Why it waits, retries or failed, in one word.")
    message: Message | None = Field(default=None, description="The same in a sentence.")
    progress_percent: Int32 | None = Field(
        default=None, ge=0, le=100, description="Share of the work done, in percent."
    )
    estimated_remaining_seconds: Int32 | None = Field(
        default=None, ge=0, le=INT32_MAX, description="Seconds to go, as far as the speed so far tells."
    )
    attempts: Int32 = Field(default=0, ge=0, le=INT32_MAX, description="Times the work was started.")
    start_time: Timestamp | None = Field(default=None, description="When it was first started.")
    completion_time: Timestamp | None = Field(default=None, description="When it succeeded or finally failed.")
    artifact_uri: Uri | None = Field(default=None, description="Where the result is.")
    digest: Digest | None = Field(default=None, description="Digest of the result's manifest.")


class ArtifactStatus(ObservedType):
    """One published result."""

    artifact_uri: Uri | None = Field(default=None, description="Where the result is.")
    digest: Digest | None = Field(default=None, description="Digest of the result's manifest.")


class MetricValue(ObservedType):
    """One offline metric of the latest evaluated revision."""

    name: ShortText = Field(description="Name of the metric, for example UAUC.")
    value: DecimalText = Field(description="Its value.")
    lower: DecimalText | None = Field(default=None, description="Lower end of the 95 percent interval over users.")
    upper: DecimalText | None = Field(default=None, description="Upper end of the 95 percent interval over users.")
    baseline: DecimalText | None = Field(default=None, description="The same metric of the collaborative encoder.")


class PromotionStatus(ObservedType):
    """The last decision about which revision serves under `updatePolicy: OnExperiment`."""

    experiment: Name | None = Field(default=None, description="Experiment that promoted it; absent for a pin.")
    experiment_uid: Name | None = Field(default=None, description="Its uid.")
    revision: Name = Field(description="Revision that serves from then on.")
    time: Timestamp | None = Field(default=None, description="When that was decided; only a later decision counts.")


class ModelStatus(ObservedType):
    """What the operator observed about a model."""

    observed_generation: Generation = Field(
        default=SCHEMA_ONLY_STATUS_GENERATION, description="Generation of the spec that this status is about."
    )
    conditions: Annotated[tuple[Condition, ...], BY_TYPE] = Field(
        default=(), max_length=32, description="Observations; Ready sums them up."
    )
    latest_revision: Name | None = Field(default=None, description="Newest revision that was trained for this spec.")
    serving_revision: Name | None = Field(default=None, description="Revision that answers requests now.")
    promotion: PromotionStatus | None = Field(
        default=None, description="What an experiment promoted; the operator follows it and Git may pin it."
    )
    stages: Annotated[tuple[StageStatus, ...], ATOMIC] = Field(
        default=(), max_length=16, description="Where each shared stage stands, in the order of work."
    )
    experts: Annotated[tuple[StageStatus, ...], ATOMIC] = Field(
        default=(), max_length=64, description="Where each expert stands."
    )
    expert_count: Int32 | None = Field(default=None, ge=0, le=64, description="Number of experts, chosen or given.")
    progress_percent: Int32 | None = Field(
        default=None, ge=0, le=100, description="Share of the whole training done, in percent."
    )
    gate: ArtifactStatus | None = Field(default=None, description="The published gate.")
    bundle: ArtifactStatus | None = Field(default=None, description="The published bundle of the latest revision.")
    metrics: Annotated[tuple[MetricValue, ...], ATOMIC] = Field(
        default=(), max_length=32, description="Offline metrics of the latest evaluated revision."
    )
    last_training_time: Timestamp | None = Field(default=None, description="When the latest revision was finished.")
    last_schedule_time: Timestamp | None = Field(default=None, description="When the schedule last started a training.")
    next_schedule_time: Timestamp | None = Field(default=None, description="When the schedule starts the next one.")
    last_handled_retrain_at: ShortText | None = Field(
        default=None, description="Value of the retrain annotation that was last acted on."
    )
    last_handled_reconcile_at: ShortText | None = Field(
        default=None, description="Value of the reconcile annotation that was last acted on."
    )
    replicas: Int32 | None = Field(default=None, ge=0, le=INT32_MAX, description="Number of serving replicas.")
    ready_replicas: Int32 | None = Field(default=None, ge=0, le=INT32_MAX, description="Those that answer requests.")
    selector: Annotated[str, StringConstraints(max_length=1024)] | None = Field(
        default=None, description="Label selector of the serving pods, for autoscalers."
    )
    url: Uri | None = Field(default=None, description="Address of the gateway.")

    def condition(self, type_: str) -> Condition | None:
        """Return the condition of this type, or None when it was never written."""
        return next((item for item in self.conditions if item.type == type_), None)

    def is_true(self, type_: str) -> bool:
        """Return whether the condition of this type is True."""
        found = self.condition(type_)
        return found is not None and found.status == "True"
