# SPDX-License-Identifier: Apache-2.0
"""Status of a ThinkRecExperiment: where it stands, what each variant measured, and the verdict."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from thinkrec_crds.fields import (
    ATOMIC,
    BY_NAME,
    BY_TYPE,
    INT32_MAX,
    INT53_MAX,
    DecimalText,
    Flag,
    Int32,
    ShortText,
    Timestamp,
)
from thinkrec_crds.group import SCHEMA_ONLY_STATUS_GENERATION
from thinkrec_crds.model_status import Condition, Digest, Generation, Message, Name, StageState, Uri
from thinkrec_crds.rules import ObservedType

Count = Annotated[int, Field(strict=True, ge=0, le=INT53_MAX)]


class VariantMetric(ObservedType):
    """One metric of one variant."""

    name: ShortText = Field(description="Name of the metric.")
    value: DecimalText = Field(description="Its value.")
    lower: DecimalText | None = Field(default=None, description="Lower end of its interval.")
    upper: DecimalText | None = Field(default=None, description="Upper end of its interval.")
    sample_size: Count | None = Field(default=None, description="Number of users behind it.")


class VariantStatus(ObservedType):
    """Where one variant stands."""

    name: ShortText = Field(description="Name of the variant.")
    resolved_revision: Name | None = Field(default=None, description="Revision it was resolved to when it started.")
    weight: Int32 | None = Field(default=None, ge=0, le=100, description="Share of users it gets now, in percent.")
    ready_replicas: Int32 | None = Field(
        default=None, ge=0, le=INT32_MAX, description="Replicas of it that answer requests."
    )
    url: Uri | None = Field(
        default=None, description="Address that answers for it; absent where the model of the gateway itself does."
    )
    users: Count | None = Field(default=None, description="Users of it that the newest analysis counted.")
    exposures: Count | None = Field(default=None, description="Requests of its users, counted or not.")
    metrics: Annotated[tuple[VariantMetric, ...], BY_NAME] = Field(
        default=(), max_length=48, description="What it measured, offline and online."
    )


class ExperimentStage(ObservedType):
    """Where one stage stands; a result is remembered here when its Job is gone."""

    name: Name = Field(description="Stage, with the variant where it is one variant's.")
    kind: Literal["dataset", "score", "compare", "simulate", "analyse"] = Field(description="Kind of the stage.")
    key: Digest = Field(description="Content address of the work: same key, same result.")
    job_name: Name | None = Field(default=None, description="Job that does the work.")
    state: StageState = Field(default="Pending", description="Where the work stands.")
    reason: ShortText | None = Field(default=None, description="Why it waits or failed, in one word.")
    message: Message | None = Field(default=None, description="The same in a sentence.")
    artifact_uri: Uri | None = Field(default=None, description="Where the result is.")
    digest: Digest | None = Field(default=None, description="Digest of the result's manifest.")


class EffectStatus(ObservedType):
    """How one variant differs from control on one metric, at the newest analysis."""

    variant: ShortText = Field(description="Name of the variant.")
    metric: ShortText = Field(description="Name of the metric.")
    effect: DecimalText = Field(description="Variant minus control.")
    lower: DecimalText | None = Field(default=None, description="Lower end of its interval.")
    upper: DecimalText | None = Field(default=None, description="Upper end of its interval.")
    p_value: DecimalText | None = Field(default=None, description="Corrected for the number of comparisons.")
    significant: Flag = Field(default=False, description="It is more than chance, at the stated level.")


class GuardrailStatus(ObservedType):
    """How one variant stands to one guardrail, at the newest analysis."""

    variant: ShortText = Field(description="Name of the variant.")
    name: ShortText = Field(description="Name of the guardrail.")
    value: DecimalText | None = Field(default=None, description="Its value; absent where nothing was measured.")
    regression: DecimalText | None = Field(default=None, description="How much worse than control, as a share of it.")
    violated: Flag = Field(default=False, description="It left its bounds, by more than chance.")


class AnalysisStatus(ObservedType):
    """The newest analysis of what users did."""

    number: Int32 = Field(default=0, ge=0, le=INT32_MAX, description="Analyses so far.")
    end_time: Timestamp | None = Field(default=None, description="Up to when events were looked at.")
    key: Digest | None = Field(default=None, description="Content address of the analysis.")
    digest: Digest | None = Field(default=None, description="Digest of its manifest.")
    artifact_uri: Uri | None = Field(default=None, description="Where it is; its page is `report/index.html` in it.")
    sample_ratio_p_value: DecimalText | None = Field(
        default=None, description="Chance of such numbers of users if they arrived as the weights say."
    )
    effects: Annotated[tuple[EffectStatus, ...], ATOMIC] = Field(
        default=(), max_length=112, description="Differences from control."
    )
    guardrails: Annotated[tuple[GuardrailStatus, ...], ATOMIC] = Field(
        default=(), max_length=112, description="Guardrails of every variant but control."
    )
    violations: Int32 = Field(
        default=0, ge=0, le=INT32_MAX, description="Analyses in a row that found a guardrail violated."
    )
    inconclusive: Int32 = Field(
        default=0, ge=0, le=INT32_MAX, description="Analyses in a row in which some metric gave no value."
    )


class Conclusion(ObservedType):
    """The verdict on the metric that decides."""

    winner: ShortText | None = Field(default=None, description="Name of the better variant, if there is one.")
    reason: ShortText = Field(description="The same word as the reason of the condition Succeeded.")
    message: Message = Field(default="", description="The verdict in a sentence.")
    metric: ShortText | None = Field(default=None, description="Name of the metric that decides.")
    effect: DecimalText | None = Field(default=None, description="Difference from control.")
    lower: DecimalText | None = Field(default=None, description="Lower end of the effect's interval.")
    upper: DecimalText | None = Field(default=None, description="Upper end of the effect's interval.")
    p_value: DecimalText | None = Field(default=None, description="Chance of such an effect without a difference.")
    sample_ratio_mismatch: Flag = Field(
        default=False, description="Users did not arrive in the stated proportion; no verdict is trusted then."
    )


class ExperimentStatus(ObservedType):
    """What the operator observed about an experiment."""

    observed_generation: Generation = Field(
        default=SCHEMA_ONLY_STATUS_GENERATION, description="Generation of the spec that this status is about."
    )
    conditions: Annotated[tuple[Condition, ...], BY_TYPE] = Field(
        default=(), max_length=32, description="Observations; Ready and Succeeded sum them up."
    )
    start_time: Timestamp | None = Field(default=None, description="When it started.")
    completion_time: Timestamp | None = Field(default=None, description="When it ended.")
    current_step_index: Int32 | None = Field(default=None, ge=0, le=19, description="Step of a canary, from 0.")
    variants: Annotated[tuple[VariantStatus, ...], BY_NAME] = Field(
        default=(), max_length=8, description="Where each variant stands."
    )
    stages: Annotated[tuple[ExperimentStage, ...], ATOMIC] = Field(
        default=(), max_length=16, description="Where each stage of the comparison stands."
    )
    traffic_start_time: Timestamp | None = Field(
        default=None, description="When users were first shared out; the analysis counts from then."
    )
    step_start_time: Timestamp | None = Field(default=None, description="When the step of a canary began.")
    analysis: AnalysisStatus | None = Field(default=None, description="The newest look at what users did.")
    conclusion: Conclusion | None = Field(default=None, description="The verdict, once there is one.")
    report_uri: Uri | None = Field(
        default=None, description="Artifact of the offline comparison; its page is `report/index.html` in it."
    )
    url: Uri | None = Field(default=None, description="Address of the gateway that shares out the users.")

    def condition(self, type_: str) -> Condition | None:
        """Return the condition of this type, or None when it was never written."""
        return next((item for item in self.conditions if item.type == type_), None)
