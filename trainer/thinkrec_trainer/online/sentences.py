# SPDX-License-Identifier: Apache-2.0
"""What happened so far, in plain sentences. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from thinkrec_crds.analysis_spec import Analysis
from thinkrec_crds.fields import as_float
from thinkrec_crds.findings import FindingsReport, Look, MetricEffect
from thinkrec_crds.stages import AnalyseParameters
from thinkrec_trainer.analysis.sequences import FEWEST
from thinkrec_trainer.report.page import percent, thousands


def sentences(report: FindingsReport, given: AnalyseParameters) -> list[str]:
    """Return what happened, the most important first."""
    if given.mode == "Mirror" or given.analysis is None:
        return [*_copies(report), *_broken(report)]
    return [*_verdict(report, given, given.analysis), *_broken(report)]


def level_text(analysis: Analysis) -> str:
    """Return how sure the intervals are, as a percentage."""
    return f"{100 * (1 - as_float(analysis.significance_level)):g} %"


def number(value: float | None, *, signed: bool = False) -> str:
    """Return a number with four digits, `-` for one that cannot be told."""
    if value is None:
        return "-"
    return f"{value:+.4g}" if signed else f"{value:.4g}"


def interval(lower: float | None, upper: float | None, *, signed: bool = False) -> str:
    """Return an interval in brackets, nothing where there is none."""
    if lower is None or upper is None:
        return ""
    return f"[{number(lower, signed=signed)}, {number(upper, signed=signed)}]"


def _verdict(report: FindingsReport, given: AnalyseParameters, analysis: Analysis) -> Iterator[str]:
    look = report.newest
    effects = [effect for effect in look.effects if effect.metric == report.metrics[0]]
    if look.void:
        yield (
            "Users did not arrive in the expected proportion, so the variants' users are not alike and no difference "
            "is worth reading. Find out why first."
        )
    elif not sum(look.users.values()):
        yield "No user has been counted yet."
    elif not look.enough:
        yield _too_few(look, analysis)
    elif look.winner is not None:
        yield from _winner(look, report, analysis, effects)
    else:
        if analysis.method == "FixedHorizon" and not given.at_end:
            yield "The planned time is not over, and a test with a fixed horizon decides only then."
        yield from (_undecided(effect, report, analysis) for effect in effects)


def _too_few(look: Look, analysis: Analysis) -> str:
    counted = ", ".join(f"{thousands(users)} of {name}" for name, users in look.users.items())
    needed = max(analysis.min_sample_size, FEWEST) if analysis.method == "AlwaysValid" else analysis.min_sample_size
    return f"Users counted so far: {counted}. Nothing is said before each variant has {thousands(needed)}."


def _winner(look: Look, report: FindingsReport, analysis: Analysis, effects: list[MetricEffect]) -> Iterator[str]:
    shown = [effect for effect in effects if effect.variant == look.winner] or effects
    for effect in shown:
        better, worse = (effect.variant, report.control) if effect.better else (report.control, effect.variant)
        yield f"{better} beats {worse} on {effect.metric}: {_difference(effect, analysis)}."


def _undecided(effect: MetricEffect, report: FindingsReport, analysis: Analysis) -> str:
    if effect.effect is None or effect.lower is None:
        return f"{effect.variant} cannot be compared with {report.control} on {effect.metric} yet."
    if effect.significant:
        side = "better" if effect.better else "worse"
        return f"{effect.variant} is {side} than {report.control} on {effect.metric}: {_difference(effect, analysis)}."
    return (
        f"{effect.variant} and {report.control} may be alike on {effect.metric}: {_difference(effect, analysis)}, "
        "which may be chance."
    )


def _difference(effect: MetricEffect, analysis: Analysis) -> str:
    relative = "" if effect.relative is None else f"{100 * effect.relative:+.3g} %, "
    return (
        f"the difference is {number(effect.effect, signed=True)} "
        f"({relative}{level_text(analysis)} interval {interval(effect.lower, effect.upper, signed=True)})"
    )


def _broken(report: FindingsReport) -> Iterator[str]:
    for check in report.newest.guardrails:
        if check.violated:
            told = f"{check.variant} breaks the guardrail {check.guardrail}: its value is {number(check.value)}"
            worse = check.regression is not None and check.regression > 0
            yield f"{told}, {percent(check.regression or 0.0)} worse than control's." if worse else f"{told}."


def _copies(report: FindingsReport) -> Iterator[str]:
    whole = [summary for summary in report.mirrored if not summary.branch]
    if not whole:
        yield "No request has been copied yet."
    for one in whole:
        failed = f"{percent(one.errors / one.requests)} of them failed" if one.errors else "none of them failed"
        told = f"{one.variant} got copies of {thousands(one.requests)} requests, and {failed}"
        if one.overlap is not None:
            told += f"; its answers held {percent(one.overlap)} of the items that {report.control} showed"
        yield f"{told}. Nobody saw what it answered."
