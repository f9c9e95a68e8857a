# SPDX-License-Identifier: Apache-2.0
"""What a look at the users means: whether it ends the experiment, and how. Pure.

A look decides; between two looks nothing does. The order matters: harm is told before anything else, users who did not
arrive as expected make every comparison void, and only then is a winner looked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from thinkrec_crds import findings
from thinkrec_crds.analysis_spec import Analysis
from thinkrec_crds.conditions import Reason
from thinkrec_crds.experiment import ExperimentSpec
from thinkrec_crds.experiment_status import (
    AnalysisStatus,
    Conclusion,
    EffectStatus,
    GuardrailStatus,
    VariantMetric,
)
from thinkrec_crds.fields import as_decimal, as_optional_decimal
from thinkrec_operator.experiments.looks import Look

Numbers = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Heard:
    """One look and what came of it."""

    look: Look
    key: str
    digest: str
    uri: str | None
    numbers: Numbers


def analysis_status(spec: ExperimentSpec, heard: Heard, before: AnalysisStatus | None) -> AnalysisStatus:
    """Return the newest analysis as status tells it, with how often in a row something was wrong."""
    numbers, old = heard.numbers, before or AnalysisStatus()
    guardrails = tuple(_guardrails(spec, numbers))
    broken = numbers.get("guardrails/violated", 0) > 0 or any(row.violated for row in guardrails)
    before_or_none = old.violations if unguarded(numbers) else 0  # a guardrail without a value takes nothing back
    silent = numbers.get("unavailable", 0) > 0
    return AnalysisStatus(
        number=heard.look.number,
        end_time=heard.look.end,
        key=heard.key,
        digest=heard.digest,
        artifact_uri=heard.uri,
        sample_ratio_p_value=as_optional_decimal(numbers.get("ratio/p")),
        effects=tuple(_effects(spec, numbers)),
        guardrails=guardrails,
        violations=old.violations + 1 if broken else before_or_none,
        inconclusive=old.inconclusive + 1 if silent else 0,
    )


def unguarded(numbers: Numbers) -> bool:
    """Return whether some guardrail gave no value, so that nobody knows what it would say."""
    return numbers.get("guardrails/silent", 0) > 0


def values(spec: ExperimentSpec, numbers: Numbers, place: int) -> tuple[VariantMetric, ...]:
    """Return what a variant measured on its users, as far as the numbers tell."""
    if spec.analysis is None:
        return ()
    found = [(metric.name, findings.value(numbers, place, at)) for at, metric in enumerate(spec.analysis.metrics)]
    return tuple(
        VariantMetric(
            name=name,
            value=as_decimal(told.value),
            lower=as_optional_decimal(told.lower),
            upper=as_optional_decimal(told.upper),
            sample_size=findings.users(numbers, place),
        )
        for name, told in found
        if told is not None
    )


def conclusion(spec: ExperimentSpec, heard: Heard, told: AnalysisStatus, *, ripe: bool) -> Conclusion | None:
    """Return the verdict of a look, or None while the experiment goes on.

    `ripe` says that it has run as long as was asked for, and stands on the last of a canary's steps.
    """
    numbers, analysis, traffic = heard.numbers, spec.analysis, spec.traffic
    assert traffic is not None, "only an experiment with users is looked at"
    if (harm := _guardrail_violated(spec, told, ripe=ripe)) is not None:
        return harm
    if traffic.mode == "Mirror" or analysis is None:
        return _mirrored(heard) if ripe and traffic.duration_seconds is not None else None
    void, enough = numbers.get("void", 0) > 0, numbers.get("enough", 0) > 0
    winner = _winner(spec, numbers)
    lost = winner == spec.control_variant_name and traffic.mode == "Canary"
    if not (ripe or (lost and not void)):
        return None
    finished = enough or (analysis.method == "FixedHorizon" and heard.look.at_end)
    if void and finished:
        return _void(numbers)
    if lost and winner is not None:
        return _won(spec, numbers, winner)
    if spec.rollback_policy != "None" and (told.violations or unguarded(numbers)):
        return None  # tolerated so far, or unknown: one more look
    if winner is not None:
        return _won(spec, numbers, winner)
    if numbers.get("silent", 0) > 0:  # nothing was measured, which is not the same as no difference
        return None
    return _no_difference(spec, numbers, enough=enough) if finished else None


def silent(analysis: Analysis | None, told: AnalysisStatus | None) -> str:
    """Return why the analysis cannot go on by itself: some metric gave no value too often. Empty where it can."""
    if analysis is None or told is None or told.inconclusive <= analysis.inconclusive_limit:
        return ""
    reason = Reason.METRIC_UNAVAILABLE
    return f"{reason.meaning} So it was in {told.inconclusive} analyses in a row. {reason.remedy}"


def _guardrail_violated(spec: ExperimentSpec, told: AnalysisStatus, *, ripe: bool) -> Conclusion | None:
    analysis = spec.analysis
    if analysis is None or told.violations <= analysis.failure_limit:
        return None
    if spec.rollback_policy == "None" and not ripe:
        return None
    broken = [row for row in told.guardrails if row.violated]
    if not broken:  # the newest look could not tell: it is not the one to end by
        return None
    words = "; ".join(f"{row.variant}: {row.name} is {row.value or 'unknown'}{_worse(row)}" for row in broken)
    reason = Reason.GUARDRAIL_VIOLATED
    return Conclusion(reason=reason.value, message=f"{words}. {reason.meaning}", metric=broken[0].name)


def _worse(row: GuardrailStatus) -> str:
    return f" ({100 * float(row.regression):+.1f} % worse than control)" if row.regression is not None else ""


def _mirrored(heard: Heard) -> Conclusion:
    reason = Reason.MIRROR_COMPLETED
    users = sum(int(value) for name, value in heard.numbers.items() if name.endswith("/users"))
    return Conclusion(reason=reason.value, message=f"Requests of {users} users were copied. {reason.meaning}")


def _void(numbers: Numbers) -> Conclusion:
    reason = Reason.SAMPLE_RATIO_MISMATCH
    p_value = numbers.get("ratio/p", 0.0)
    return Conclusion(
        reason=reason.value,
        message=f"{reason.meaning} Chance of such numbers: {_p_value(p_value)}. {reason.remedy}",
        p_value=as_decimal(p_value),
        sample_ratio_mismatch=True,
    )


def _winner(spec: ExperimentSpec, numbers: Numbers) -> str | None:
    place = numbers.get("winner")
    return spec.variants[int(place)].name if place is not None and int(place) < len(spec.variants) else None


def _won(spec: ExperimentSpec, numbers: Numbers, winner: str) -> Conclusion:
    """Tell of the winner by its own effect; where control won, by that of the variant that came nearest."""
    shown = winner if winner != spec.control_variant_name else _nearest(spec, numbers)
    alone = len(spec.variants) == 2
    lost = "is worse than control" if alone else "came nearest to control, and all are worse"
    words = "is better than control" if winner == shown else lost
    return _told(spec, numbers, Reason.SIGNIFICANT_WINNER, shown, words).model_copy(update={"winner": winner})


def _no_difference(spec: ExperimentSpec, numbers: Numbers, *, enough: bool) -> Conclusion:
    words = "is not told apart from control" if enough else "has fewer users than `minSampleSize`, and the time is over"
    return _told(spec, numbers, Reason.NO_DIFFERENCE, _nearest(spec, numbers), words)


def _nearest(spec: ExperimentSpec, numbers: Numbers) -> str:
    """Return the variant other than control that did best on the deciding metric."""
    assert spec.analysis is not None, "without an analysis nothing decides"
    sign = 1 if spec.analysis.metrics[0].direction == "Maximize" else -1
    others = [(place, v.name) for place, v in enumerate(spec.variants) if v.name != spec.control_variant_name]
    found = [(told.value * sign, name) for place, name in others if (told := findings.effect(numbers, place, 0))]
    return max(found)[1] if found else others[0][1]


def _told(spec: ExperimentSpec, numbers: Numbers, reason: Reason, name: str, words: str) -> Conclusion:
    assert spec.analysis is not None, "without an analysis nothing decides"
    metric = spec.analysis.metrics[0].name
    places = {variant.name: place for place, variant in enumerate(spec.variants)}
    told = findings.effect(numbers, places[name], 0)
    control = spec.control_variant_name
    counts = f"{findings.users(numbers, places[name])} users against {findings.users(numbers, places[control])}"
    if told is None:
        return Conclusion(
            reason=reason.value, message=f"{name} {words}: {metric} cannot be told, {counts}.", metric=metric
        )
    interval = f" [{told.lower:+.4g}, {told.upper:+.4g}]" if told.lower is not None and told.upper is not None else ""
    p_value = f", {_p_value(told.p_value)}" if told.p_value is not None else ""
    return Conclusion(
        reason=reason.value,
        message=f"{name} {words}: {metric} {told.value:+.4g}{interval}{p_value}, {counts}. {reason.meaning}",
        metric=metric,
        effect=as_decimal(told.value),
        lower=as_optional_decimal(told.lower),
        upper=as_optional_decimal(told.upper),
        p_value=as_optional_decimal(told.p_value),
    )


def _p_value(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p {value:.2g}"


def _effects(spec: ExperimentSpec, numbers: Numbers) -> Iterator[EffectStatus]:
    for at, metric in enumerate(spec.analysis.metrics if spec.analysis is not None else ()):
        for place, variant in enumerate(spec.variants):
            told = findings.effect(numbers, place, at)
            if told is not None:
                yield EffectStatus(
                    variant=variant.name,
                    metric=metric.name,
                    effect=as_decimal(told.value),
                    lower=as_optional_decimal(told.lower),
                    upper=as_optional_decimal(told.upper),
                    p_value=as_optional_decimal(told.p_value),
                    significant=findings.significant(numbers, place, at),
                )


def _guardrails(spec: ExperimentSpec, numbers: Numbers) -> Iterator[GuardrailStatus]:
    for at, rail in enumerate(spec.analysis.guardrails if spec.analysis is not None else ()):
        for place, variant in enumerate(spec.variants):
            if variant.name == spec.control_variant_name:
                continue
            measured, regression = findings.guardrail(numbers, place, at)
            yield GuardrailStatus(
                variant=variant.name,
                name=rail.name,
                value=as_optional_decimal(measured),
                regression=as_optional_decimal(regression),
                violated=findings.violated(numbers, place, at),
            )
