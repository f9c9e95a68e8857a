# SPDX-License-Identifier: Apache-2.0
"""The parts of an experiment: variants, offline comparison and traffic. The analysis has a module of its own."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from thinkrec_crds.analysis_spec import Direction
from thinkrec_crds.fields import (
    ATOMIC,
    BY_METRIC,
    BY_NAME,
    INT32_MAX,
    DecimalText,
    Fraction,
    Int32,
    LabelName,
    MetricName,
    Resources,
    ShortText,
)
from thinkrec_crds.rules import ApiType, Rule, Transition, at_least_one, not_when, only_when, required_when
from thinkrec_crds.spec_data import Dataset

TrafficMode = Literal["ABTest", "Canary", "Mirror"]
AssignmentType = Literal["HashedHeader", "Cookie", "Random"]

_DAY = 86_400


def unchanged(name: str, wire_name: str) -> Transition:
    """Return the rule that an optional member keeps its value, or its absence, from creation on."""
    return Transition(
        cel=f"has(self.{wire_name}) == has(oldSelf.{wire_name})"
        f" && (!has(self.{wire_name}) || self.{wire_name} == oldSelf.{wire_name})",
        message=f"`{wire_name}` must not change; a new comparison is a new object",
        holds=lambda new, old: bool(getattr(new, name) == getattr(old, name)),
    )


class ModelReference(ApiType):
    """Names a ThinkRecModel in the same namespace."""

    name: LabelName = Field(description="Name of the ThinkRecModel.")


class Variant(ApiType):
    """One contender."""

    TRANSITIONS: ClassVar[tuple[Transition, ...]] = (
        unchanged("model_ref", "modelRef"),
        unchanged("revision", "revision"),
    )

    name: LabelName = Field(description="Name of the variant in status, metrics and events.")
    model_ref: ModelReference = Field(description="Model the variant takes its revision from.")
    revision: LabelName | None = Field(
        default=None,
        description="Revision of that model; unset: of control the one that serves, else the newest one of its spec.",
    )
    weight: Int32 | None = Field(
        default=None, ge=0, le=100, description="Share of users in percent; unset for all variants means equal shares."
    )


class OfflineMetric(ApiType):
    """One metric of the offline comparison."""

    name: MetricName = Field(description="AUC, UAUC, NDCG@k or MAP@k.")
    direction: Direction = Field(default="Maximize", description="Which way is better.")


class OfflineGate(ApiType):
    """What every variant must reach offline before it gets traffic."""

    RULES: ClassVar[tuple[Rule, ...]] = (at_least_one("minimum", "max_regression"),)

    metric: MetricName = Field(description="AUC, UAUC, NDCG@k or MAP@k.")
    minimum: DecimalText | None = Field(default=None, description="Least value of the metric.")
    max_regression: Fraction | None = Field(
        default=None, description="Most that the metric may lose against the control variant, in points of 0 to 1."
    )


class Offline(ApiType):
    """Comparison of all variants on the same test rows."""

    TRANSITIONS: ClassVar[tuple[Transition, ...]] = (unchanged("dataset", "dataset"),)

    dataset: Dataset | None = Field(
        default=None, description="Data to compare on; unset takes the test split of the control variant's model."
    )
    metrics: Annotated[tuple[OfflineMetric, ...], BY_NAME] = Field(
        default=(OfflineMetric(name="UAUC"),),
        min_length=1,
        max_length=16,
        description="Metrics compared; the first one decides.",
    )
    gates: Annotated[tuple[OfflineGate, ...], BY_METRIC] = Field(
        default=(), max_length=16, description="What every variant must reach before it gets traffic."
    )
    resources: Resources = Field(default=Resources(), description="Compute resources of each evaluation pod.")
    backoff_limit: Int32 = Field(default=3, ge=0, le=100, description="Retries before an evaluation Job fails.")
    ttl_seconds_after_finished: Int32 = Field(
        default=_DAY, ge=0, le=INT32_MAX, description="Seconds a finished Job and its log are kept."
    )


class Assignment(ApiType):
    """How a request is given to a variant."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        required_when("type", "Cookie", "key"),
        required_when("type", "HashedHeader", "key"),
        not_when("type", "Random", "key", "nobody is told apart"),
    )

    type: AssignmentType = Field(
        default="HashedHeader",
        description="By hash of a header or cookie, so that a user stays with a variant; or at random per request.",
    )
    key: ShortText | None = Field(default=None, description="Name of the header or cookie that identifies the user.")


class TrafficStep(ApiType):
    """One step of a canary."""

    weight: Int32 = Field(ge=0, le=100, description="Share of users that the new variant gets, in percent.")
    pause_seconds: Int32 = Field(
        default=3600, ge=0, le=INT32_MAX, description="Seconds to stay on this step before the next one."
    )


class Traffic(ApiType):
    """How users are shared out among the variants."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        required_when("mode", "ABTest", "assignment"),
        required_when("mode", "Canary", "steps"),
        only_when("mode", "Canary", "steps"),
        required_when("mode", "Mirror", "mirror_percent"),
        only_when("mode", "Mirror", "mirror_percent"),
    )
    TRANSITIONS: ClassVar[tuple[Transition, ...]] = (
        unchanged("mode", "mode"),
        unchanged("gateway_ref", "gatewayRef"),
        unchanged("assignment", "assignment"),
    )

    mode: TrafficMode = Field(
        description="ABTest keeps the shares; Canary raises the new one in steps; Mirror copies requests silently."
    )
    gateway_ref: ModelReference | None = Field(
        default=None, description="Model whose gateway shares out the users; unset takes the control variant's."
    )
    assignment: Assignment | None = Field(default=None, description="How a request is given to a variant.")
    steps: Annotated[tuple[TrafficStep, ...], Field(min_length=1, max_length=20), ATOMIC] | None = Field(
        default=None, description="Steps of a canary, in order."
    )
    mirror_percent: Int32 | None = Field(
        default=None,
        ge=1,
        le=100,
        description="Share of requests also sent to the other variants, in percent.",
    )
    duration_seconds: Int32 | None = Field(
        default=None,
        ge=60,
        le=INT32_MAX,
        description="Seconds it runs, at least; unset runs to the sample size.",
    )


def weights_fit(variants: Any) -> bool:
    """Return whether no variant has a weight, or all have one and they add up to 100."""
    weights = [variant.weight for variant in variants]
    return all(weight is None for weight in weights) or (None not in weights and sum(weights) == 100)
