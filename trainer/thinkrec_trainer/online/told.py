# SPDX-License-Identifier: Apache-2.0
"""Findings of the statistics beside Prometheus's readings, in the contract's words and the manifest's order. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from thinkrec_crds.analysis_spec import Analysis, AnalysisMetric, Guardrail
from thinkrec_crds.findings import GuardrailCheck, Look, MetricEffect, MetricValue
from thinkrec_crds.stages import AnalyseParameters
from thinkrec_trainer.analysis.results import Findings
from thinkrec_trainer.online.quantities import guard_key, metric_key
from thinkrec_trainer.online.readings import Readings

Entry = AnalysisMetric | Guardrail
Undefined = Callable[[Entry, Findings], str | None]
"""Why something that is counted per user has no value; None where it has one."""


@dataclass(frozen=True, slots=True)
class Told:
    """All that is known of the metrics and guardrails."""

    given: AnalyseParameters
    analysis: Analysis
    found: Findings
    readings: Readings
    undefined: Undefined

    def look(self, users: dict[str, int]) -> Look:
        """Return the look, without what is not about metrics and guardrails."""
        variants = self.given.variants
        return Look(
            end=self.given.end,
            users=users,
            sample_ratio_p_value=known(self.found.mismatch.p_value),
            void=self.found.mismatch.void,
            enough=self.found.enough,
            winner=self.found.winner,
            values=tuple(self._value(metric, name) for metric in self.analysis.metrics for name in variants),
            effects=tuple(self._effect(metric, name) for metric in self.analysis.metrics for name in self._others),
            guardrails=tuple(self._check(guard, name) for guard in self.analysis.guardrails for name in self._others),
            unavailable=tuple(self._unavailable()),
        )

    @property
    def _others(self) -> tuple[str, ...]:
        return tuple(name for name in self.given.variants if name != self.given.control)

    def _value(self, metric: AnalysisMetric, variant: str) -> MetricValue:
        key = metric_key(metric.name)
        one = next((each for each in self.found.values if (each.metric, each.variant) == (key, variant)), None)
        if one is None:
            return self.readings.value(metric, variant)
        return MetricValue(
            variant=variant,
            metric=metric.name,
            value=known(one.value),
            lower=known(one.lower),
            upper=known(one.upper),
            users=one.users,
        )

    def _effect(self, metric: AnalysisMetric, variant: str) -> MetricEffect:
        key = metric_key(metric.name)
        one = next((each for each in self.found.effects if (each.metric, each.variant) == (key, variant)), None)
        if one is None:
            return self.readings.effect(metric, variant, self.given.control)
        return MetricEffect(
            variant=variant,
            metric=metric.name,
            effect=known(one.effect),
            lower=known(one.lower),
            upper=known(one.upper),
            p_value=known(one.p_value),
            significant=one.significant,
            better=one.better,
            relative=known(one.relative),
            reduction=known(one.reduction) or 0.0,
        )

    def _check(self, guard: Guardrail, variant: str) -> GuardrailCheck:
        key = guard_key(guard.name)
        one = next((each for each in self.found.guards if (each.guard, each.variant) == (key, variant)), None)
        if one is None:
            return self.readings.check(guard, variant, self.given.control)
        return GuardrailCheck(
            variant=variant,
            guardrail=guard.name,
            value=known(one.value),
            lower=known(one.lower),
            upper=known(one.upper),
            regression=known(one.regression),
            violated=one.violated,
        )

    def _unavailable(self) -> Iterator[str]:
        """Yield a sentence for each metric and guardrail that some variant has no value of."""
        for metric in self.analysis.metrics:
            if why := self._why(metric_key(metric.name), metric):
                yield f"metric {metric.name}: {why}"
        for guard in self.analysis.guardrails:
            if why := self._why(guard_key(guard.name), guard):
                yield f"guardrail {guard.name}: {why}"

    def _why(self, key: str, entry: Entry) -> str | None:
        if entry.prometheus is not None:
            return self.readings.missing.get(key)
        return self.undefined(entry, self.found) or self._never(key, entry)

    def _never(self, key: str, entry: Entry) -> str | None:
        """Return that an event has not come once, although there are users enough: most likely it has another name."""
        told = [each.value for each in self.found.values if each.metric == key]
        if entry.event is None or not self.found.enough or not told or any(told):
            return None
        return f"none of these users sent an event of type {entry.event.name!r}; is it sent by that name?"


def known(value: float) -> float | None:
    """Return a number, or None for one that cannot be told."""
    return value if math.isfinite(value) else None
