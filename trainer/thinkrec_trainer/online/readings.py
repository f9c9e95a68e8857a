# SPDX-License-Identifier: Apache-2.0
"""Metrics and guardrails whose values Prometheus has: one number of each variant, without users or an interval.

What there is no interval of is never significant. As a guardrail the number itself is held against the bounds: whoever
writes the query chooses how long it looks back, and by that how much chance is in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from thinkrec_crds.analysis_spec import Analysis, AnalysisMetric, Direction, Guardrail, Prometheus
from thinkrec_crds.fields import as_float
from thinkrec_crds.findings import GuardrailCheck, MetricEffect, MetricValue
from thinkrec_crds.stages import AnalyseParameters
from thinkrec_trainer.online.prometheus import NoValue, Reader
from thinkrec_trainer.online.quantities import guard_key, metric_key


@dataclass(frozen=True, slots=True)
class Readings:
    """What was answered."""

    values: Mapping[tuple[str, str], float]
    """(key, variant) -> value."""
    missing: Mapping[str, str]
    """Key -> why some variant has no value."""

    def value(self, metric: AnalysisMetric, variant: str) -> MetricValue:
        """Return a metric of a variant."""
        return MetricValue(
            variant=variant, metric=metric.name, value=self.values.get((metric_key(metric.name), variant))
        )

    def effect(self, metric: AnalysisMetric, variant: str, control: str) -> MetricEffect:
        """Return a variant's difference from control."""
        key = metric_key(metric.name)
        worse = _worse(metric.direction, self.values.get((key, variant)), self.values.get((key, control)))
        difference = worse if metric.direction == "Minimize" or worse is None else -worse
        return MetricEffect(
            variant=variant,
            metric=metric.name,
            effect=difference,
            better=worse is not None and worse < 0,
            relative=_share(difference, self.values.get((key, control))),
        )

    def check(self, guard: Guardrail, variant: str, control: str) -> GuardrailCheck:
        """Hold a variant against a guardrail's bounds."""
        key = guard_key(guard.name)
        value, base = self.values.get((key, variant)), self.values.get((key, control))
        worse = _worse(guard.direction, value, base)
        return GuardrailCheck(
            variant=variant,
            guardrail=guard.name,
            value=value,
            regression=_share(worse, base),
            violated=beyond(guard, value, value) or _regressed(guard, worse, base),
        )


def ask(given: AnalyseParameters, analysis: Analysis, seconds: float | None = None) -> Readings:
    """Ask for everything, one after the other; never raises."""
    reader = Reader(given.model, given.end) if seconds is None else Reader(given.model, given.end, seconds)
    values: dict[tuple[str, str], float] = {}
    missing: dict[str, dict[str, list[str]]] = {}
    for key, source in _sources(analysis):
        for variant in given.variants:
            try:
                values[key, variant] = reader.value(source, variant)
            except NoValue as error:
                missing.setdefault(key, {}).setdefault(str(error), []).append(variant)
    return Readings(values, {key: _told(reasons, given.variants) for key, reasons in missing.items()})


def beyond(guard: Guardrail, lower: float | None, upper: float | None) -> bool:
    """Return whether all between lower and upper lies beyond one of a guardrail's fixed bounds."""
    above = guard.maximum is not None and lower is not None and lower > as_float(guard.maximum)
    below = guard.minimum is not None and upper is not None and upper < as_float(guard.minimum)
    return above or below


def _sources(analysis: Analysis) -> Iterator[tuple[str, Prometheus]]:
    for metric in analysis.metrics:
        if metric.prometheus is not None:
            yield metric_key(metric.name), metric.prometheus
    for guard in analysis.guardrails:
        if guard.prometheus is not None:
            yield guard_key(guard.name), guard.prometheus


def _told(reasons: Mapping[str, Sequence[str]], variants: Sequence[str]) -> str:
    """Return each reason once, with the variants that it is about where it is not all of them."""
    return "; ".join(
        reason if len(about) == len(variants) else f"{', '.join(about)}: {reason}" for reason, about in reasons.items()
    )


def _worse(direction: Direction, value: float | None, control: float | None) -> float | None:
    """Return by how much a value is worse than control's; below 0 is better."""
    if value is None or control is None:
        return None
    return value - control if direction == "Minimize" else control - value


def _regressed(guard: Guardrail, worse: float | None, control: float | None) -> bool:
    if guard.max_regression is None or worse is None or control is None:
        return False
    return worse > as_float(guard.max_regression) * abs(control)


def _share(part: float | None, whole: float | None) -> float | None:
    return part / abs(whole) if part is not None and whole else None
