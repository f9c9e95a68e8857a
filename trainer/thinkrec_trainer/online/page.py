# SPDX-License-Identifier: Apache-2.0
"""The page of one look: what happened so far in a sentence, drawn over time, and every number behind it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

from thinkrec_crds.analysis_spec import Analysis, Guardrail
from thinkrec_crds.evaluation import REPORT_NAME
from thinkrec_crds.findings import FindingsReport, GuardrailCheck, Look
from thinkrec_crds.stages import AnalyseParameters
from thinkrec_trainer.online.figures import over_time
from thinkrec_trainer.online.gathered import Counts
from thinkrec_trainer.online.sentences import interval, level_text, number, sentences
from thinkrec_trainer.report.page import percent, templates, thousands


def write_page(output: Path, report: FindingsReport, given: AnalyseParameters, counts: Counts, *, moved: int) -> Path:
    """Write report/index.html into the output and return its path."""
    path = output / REPORT_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(report, given, counts, moved=moved), encoding="utf-8")
    return path


def render(report: FindingsReport, given: AnalyseParameters, counts: Counts, *, moved: int) -> str:
    """Return the page's HTML. The same arguments give the same text."""
    environment = templates("thinkrec_trainer.online", "thinkrec_trainer.report")
    environment.filters |= {
        "thousands": thousands,
        "percent": percent,
        "number": number,
        "signed": lambda value: number(value, signed=True),
        "p_value": _p_value,
        "moment": lambda moment: f"{moment:%Y-%m-%d %H:%M} UTC",
    }
    look, analysis = report.newest, given.analysis
    environment.globals |= {
        "interval": interval,
        "state": partial(guardrail_state, read_elsewhere=_read_elsewhere(analysis)),
    }
    return environment.get_template("online.html.j2").render(
        report=report,
        given=given,
        look=look,
        counts=counts,
        moved=moved,
        others=[name for name in report.variants if name != report.control],
        sentences=sentences(report, given),
        picture=over_time(report, given.start),
        level=level_text(analysis) if analysis is not None else "",
        directions=_directions(analysis),
        bounds={guard.name: bounds(guard) for guard in analysis.guardrails} if analysis is not None else {},
        balance=balance(look),
        reductions=[effect for effect in look.effects if effect.reduction > 0],
        notes=list(_notes(report, given)),
    )


def balance(look: Look) -> list[tuple[str, int, float | None, float | None]]:
    """Return (variant, users, share of the users, expected share)."""
    everybody = sum(look.users.values())
    return [
        (name, users, users / everybody if everybody else None, look.expected.get(name))
        for name, users in look.users.items()
    ]


def bounds(guard: Guardrail) -> str:
    """Return a guardrail's bounds in words."""
    told = [
        f"at least {guard.minimum}" if guard.minimum is not None else "",
        f"at most {guard.maximum}" if guard.maximum is not None else "",
        f"at most {percent(float(guard.max_regression))} worse" if guard.max_regression is not None else "",
    ]
    return ", ".join(part for part in told if part)


def guardrail_state(check: GuardrailCheck, read_elsewhere: Collection[str]) -> str:
    """Return what is known of a guardrail; what has no interval is only known where a value is all there ever is."""
    if check.violated:
        return "violated"
    if check.value is None:
        return "no value"
    return "kept" if check.lower is not None or check.guardrail in read_elsewhere else "cannot be told yet"


def _read_elsewhere(analysis: Analysis | None) -> frozenset[str]:
    """Return the guardrails that Prometheus has."""
    guardrails = analysis.guardrails if analysis is not None else ()
    return frozenset(guard.name for guard in guardrails if guard.prometheus is not None)


def _directions(analysis: Analysis | None) -> dict[str, str]:
    words = {"Maximize": "more is better", "Minimize": "less is better"}
    return {metric.name: words[metric.direction] for metric in analysis.metrics} if analysis is not None else {}


def _notes(report: FindingsReport, given: AnalyseParameters) -> Sequence[str]:
    """Return what a reader of the values has to know, if anything."""
    if given.analysis is None or given.mode == "Mirror" or not sum(report.newest.users.values()):
        return []
    zero = {
        value.metric: value.value == 0
        for value in report.newest.values
        if all(other.value == 0 for other in report.newest.values if other.metric == value.metric)
    }
    named = {metric.name: metric.event.name for metric in given.analysis.metrics if metric.event is not None}
    return [
        f"{name} is 0 for everybody: no event {event!r} has been counted. Is that the name the gateway is sent?"
        for name, event in named.items()
        if zero.get(name)
    ]


def _p_value(value: float | None) -> str:
    if value is None:
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
