# SPDX-License-Identifier: Apache-2.0
"""How the verdict on real users is reached: what is measured, what must stay within bounds, when it is looked at."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from thinkrec_crds.fields import (
    BY_NAME,
    INT32_MAX,
    DecimalText,
    EventName,
    Fraction,
    HttpUrl,
    Int32,
    LabelName,
    LongText,
    OpenFraction,
    PositiveDecimal,
    Resources,
)
from thinkrec_crds.rules import ApiType, Rule, at_least_one, exactly_one, not_when, only_when, required_when

Direction = Literal["Maximize", "Minimize"]
AnalysisMethod = Literal["AlwaysValid", "FixedHorizon"]
VarianceReduction = Literal["None", "CUPED"]
EventMetricType = Literal["Conversion", "Mean", "Ratio"]
RequestField = Literal["LatencyMilliseconds", "Error", "Empty"]

_DAY = 86_400


class Prometheus(ApiType):
    """Where a metric is read from."""

    address: HttpUrl = Field(description="Address of Prometheus, for example http://prometheus:9090.")
    query: Annotated[LongText, Field(min_length=1)] = Field(
        description="PromQL that yields one value; {{variant}} and {{model}} are filled in."
    )


class EventMetric(ApiType):
    """A metric counted from the gateway's own event log."""

    type: EventMetricType = Field(
        default="Conversion",
        description="Share of users with the event, its sum per user, or its count over that of `denominator`.",
    )
    name: EventName = Field(description="Type of the event, as it is sent to the gateway; case matters.")
    denominator: EventName | None = Field(default=None, description="Type of the event that a Ratio divides by.")
    cap: PositiveDecimal | None = Field(
        default=None,
        description="Most that one user counts for in a Mean, or divides by in a Ratio; a bound for bots.",
    )

    RULES: ClassVar[tuple[Rule, ...]] = (
        required_when("type", "Ratio", "denominator"),
        only_when("type", "Ratio", "denominator"),
        not_when("type", "Conversion", "cap", "a user counts once"),
    )


class RequestMetric(ApiType):
    """A metric of the requests themselves, counted from the gateway's own exposures."""

    field: RequestField = Field(
        description="Mean latency of a user's requests, share of them that failed, or share without items."
    )


class AnalysisMetric(ApiType):
    """One metric of the online comparison."""

    RULES: ClassVar[tuple[Rule, ...]] = (exactly_one("event", "request", "prometheus"),)

    name: LabelName = Field(description="Name of the metric in status.")
    direction: Direction = Field(default="Maximize", description="Which way is better.")
    event: EventMetric | None = Field(default=None, description="Count it from the gateway's event log.")
    request: RequestMetric | None = Field(default=None, description="Take it from the requests that users made.")
    prometheus: Prometheus | None = Field(default=None, description="Read it from Prometheus.")


class Guardrail(ApiType):
    """A metric that must stay within bounds, whatever else improves."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        exactly_one("event", "request", "prometheus"),
        at_least_one("minimum", "maximum", "max_regression"),
    )

    name: LabelName = Field(description="Name of the guardrail in status.")
    direction: Direction = Field(default="Minimize", description="Which way is better.")
    event: EventMetric | None = Field(default=None, description="Count it from the gateway's event log.")
    request: RequestMetric | None = Field(default=None, description="Take it from the requests that users made.")
    prometheus: Prometheus | None = Field(default=None, description="Read it from Prometheus.")
    minimum: DecimalText | None = Field(default=None, description="Least value that is tolerated.")
    maximum: DecimalText | None = Field(default=None, description="Greatest value that is tolerated.")
    max_regression: Fraction | None = Field(
        default=None, description="Most that it may get worse against control, as a share of control's value, 0 to 1."
    )


def _is_counted(metric: AnalysisMetric) -> bool:
    return metric.prometheus is None or metric.event is not None or metric.request is not None


class Analysis(ApiType):
    """How the verdict is reached."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.metrics[0].prometheus) || has(self.metrics[0].event) || has(self.metrics[0].request)",
            message="the first of `metrics` decides and must be counted per user: set `event` or `request`",
            holds=lambda analysis: _is_counted(analysis.metrics[0]),
            field="metrics",
        ),
    )

    metrics: Annotated[tuple[AnalysisMetric, ...], BY_NAME] = Field(
        min_length=1, max_length=16, description="Metrics compared; the first one decides."
    )
    guardrails: Annotated[tuple[Guardrail, ...], BY_NAME] = Field(
        default=(), max_length=16, description="Metrics that must stay within bounds."
    )
    parallelism: Int32 = Field(default=1, ge=1, le=16, description="Pods that share out the users of one analysis.")
    resources: Resources = Field(default=Resources(), description="Compute resources of each analysis pod.")
    lookback_seconds: Int32 = Field(
        default=14 * _DAY,
        ge=0,
        le=INT32_MAX,
        description="Seconds before the start in which users' earlier behaviour is looked for; 0 looks for none.",
    )
    period_seconds: Int32 = Field(default=300, ge=10, le=_DAY, description="Seconds between two analyses.")
    min_sample_size: Int32 = Field(
        default=1000, ge=1, le=INT32_MAX, description="Users of each variant before there is a verdict, at least."
    )
    significance_level: OpenFraction = Field(
        default="0.05", description="Chance of a false winner that is accepted, above 0 and below 1."
    )
    method: AnalysisMethod = Field(
        default="AlwaysValid", description="Intervals that allow looking at any time, or one test at the planned end."
    )
    variance_reduction: VarianceReduction = Field(
        default="CUPED", description="CUPED uses each user's earlier behaviour where it is known."
    )
    failure_limit: Int32 = Field(
        default=0, ge=0, le=100, description="Analyses with a violated guardrail that are tolerated in a row."
    )
    inconclusive_limit: Int32 = Field(
        default=10, ge=0, le=1000, description="Analyses without a value of some metric that are tolerated in a row."
    )
