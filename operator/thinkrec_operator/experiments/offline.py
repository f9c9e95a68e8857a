# SPDX-License-Identifier: Apache-2.0
"""What the offline comparison's numbers mean: which gates were missed, and who is better. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal

from thinkrec_crds.comparison import effect, measured
from thinkrec_crds.conditions import Reason
from thinkrec_crds.experiment import ExperimentSpec
from thinkrec_crds.experiment_spec import Offline, OfflineGate
from thinkrec_crds.experiment_status import Conclusion
from thinkrec_crds.fields import as_decimal, as_optional_decimal
from thinkrec_crds.flat_numbers import Measured
from thinkrec_operator.board import MAX_MESSAGE
from thinkrec_operator.experiments.stages import level_of

Numbers = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class _Effect:
    """A contender's difference from control on the deciding metric; `gain` is above zero where it is better."""

    name: str
    found: Measured
    gain: float


def missed_gates(spec: ExperimentSpec, offline: Offline, numbers: Numbers) -> tuple[str, ...]:
    """Return a sentence for each gate that a variant other than control missed."""
    control = next(place for place, v in enumerate(spec.variants) if v.name == spec.control_variant_name)
    return tuple(
        sentence
        for gate in offline.gates
        for place, variant in enumerate(spec.variants)
        if place != control
        for sentence in _missed(gate, variant.name, numbers, (place, control))
    )


def unknown_gates(spec: ExperimentSpec, offline: Offline, numbers: Numbers) -> str:
    """Return which gates' metrics the comparison has no number for, in a sentence; empty where there are none."""
    names = dict.fromkeys(
        gate.metric
        for gate in offline.gates
        for place in range(len(spec.variants))
        if measured(numbers, place, gate.metric) is None
    )
    if not names:
        return ""
    return (
        f"the comparison has no number for {', '.join(names)}, which `spec.offline.gates` asks for: "
        "it is undefined on these rows, or there are more variants and metrics than a Job can report"
    )


def _missed(gate: OfflineGate, name: str, numbers: Numbers, places: tuple[int, int]) -> Iterator[str]:
    own, control = (measured(numbers, place, gate.metric) for place in places)
    if own is None or control is None:
        return
    value = _decimal(own.value)
    if gate.minimum is not None and value < Decimal(gate.minimum):
        yield f"{name}: {gate.metric} is {value}, and `minimum` is {gate.minimum}"
    lost = _decimal(control.value) - value
    if gate.max_regression is not None and lost > Decimal(gate.max_regression):
        yield f"{name}: {gate.metric} lost {lost} against control, and `maxRegression` is {gate.max_regression}"


def gates_missed(sentences: tuple[str, ...]) -> Conclusion:
    """Return the end of an experiment whose variants missed gates, told as far as a status has room."""
    text = "; ".join(sentences)
    if len(text) > MAX_MESSAGE:
        text = f"{len(sentences)} gates were missed, the first of them: {text}"[: MAX_MESSAGE - 1] + "…"
    return Conclusion(reason=Reason.OFFLINE_GATE_FAILED.value, message=text)


def verdict(spec: ExperimentSpec, offline: Offline, numbers: Numbers) -> Conclusion:
    """Return who is better on the deciding metric, by p-values that are corrected for several variants."""
    metric = offline.metrics[0]
    level = level_of(spec)
    found = list(_effects(spec, metric.name, numbers, maximize=metric.direction == "Maximize"))
    sure = [one for one in found if one.found.p_value is not None and one.found.p_value < level]
    better = max((one for one in sure if one.gain > 0), key=lambda one: one.gain, default=None)
    if better is not None:
        return _concluded(Reason.SIGNIFICANT_WINNER, better.name, metric.name, better, "is better than control")
    if found and len(sure) == len(spec.variants) - 1:
        nearest = max(found, key=lambda one: one.gain)
        control = spec.control_variant_name
        return _concluded(
            Reason.SIGNIFICANT_WINNER, control, metric.name, nearest, "and every other is worse than control"
        )
    nearest_or_none = max(found, key=lambda one: one.gain, default=None)
    return _concluded(Reason.NO_DIFFERENCE, None, metric.name, nearest_or_none, "is not told apart from control")


def _effects(spec: ExperimentSpec, metric: str, numbers: Numbers, *, maximize: bool) -> Iterator[_Effect]:
    for place, variant in enumerate(spec.variants):
        found = effect(numbers, place, metric)
        if found is not None:
            yield _Effect(variant.name, found, found.value if maximize else -found.value)


def _concluded(reason: Reason, winner: str | None, metric: str, told: _Effect | None, words: str) -> Conclusion:
    if told is None:
        return Conclusion(
            reason=reason.value, message=f"{metric} is undefined on these rows. {reason.meaning}", metric=metric
        )
    interval = f" [{told.found.lower:+.4f}, {told.found.upper:+.4f}]" if told.found.lower is not None else ""
    p_value = f", p {told.found.p_value:.4f}" if told.found.p_value is not None else ""
    return Conclusion(
        winner=winner,
        reason=reason.value,
        message=f"{told.name} {words}: {metric} {told.found.value:+.4f}{interval}{p_value}. {reason.meaning}",
        metric=metric,
        effect=as_decimal(told.found.value),
        lower=as_optional_decimal(told.found.lower),
        upper=as_optional_decimal(told.found.upper),
        p_value=as_optional_decimal(told.found.p_value),
    )


def _decimal(value: float) -> Decimal:
    """Return it as it was rounded to be reported, so that a gate of 0.62 is reached by 0.62."""
    return Decimal(f"{value:.6f}").normalize()
