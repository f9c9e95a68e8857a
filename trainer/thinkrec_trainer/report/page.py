# SPDX-License-Identifier: Apache-2.0
"""Renders the page: report, explanations and facts through page.html.j2, with everything escaped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from thinkrec_crds.engine_api import Branch
from thinkrec_crds.evaluation import (
    MAIN_METRIC,
    REPORT_NAME,
    Estimate,
    EvaluationReport,
    EvaluationSlice,
    Explanation,
    metric_names,
    metrics_table,
    verdict,
)
from thinkrec_trainer.context import StageContext
from thinkrec_trainer.report import figures
from thinkrec_trainer.report.facts import Facts, gather
from thinkrec_trainer.report.limits import limits
from thinkrec_trainer.report.svg import SERIES

BRANCH_WORDS = {
    Branch.ONE_HOT: "one expert alone",
    Branch.FUSED: "experts fused",
    Branch.GENERAL: "general adapter (no group stands out)",
    Branch.COLD_START: "general adapter (unknown user)",
}


def write_page(
    context: StageContext,
    report: EvaluationReport,
    explanations: Sequence[Explanation],
    slots: Sequence[Sequence[float]],
    *,
    experts: Sequence[str],
) -> Path:
    """Write report/index.html into the output and return its path; `slots` are the users' gate weights."""
    path = context.output / REPORT_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = gather(context.inputs, experts)
    path.write_text(render(report, explanations, facts, slots=slots, experts=experts), encoding="utf-8")
    return path


def render(
    report: EvaluationReport,
    explanations: Sequence[Explanation],
    facts: Facts,
    *,
    slots: Sequence[Sequence[float]],
    experts: Sequence[str],
) -> str:
    """Return the page's HTML. The same arguments give the same text."""
    names = [*experts, "general"]
    colours = [*(SERIES[number % len(SERIES)] for number in range(len(experts))), "var(--muted)"]
    part = report.all_rows
    environment = templates("thinkrec_trainer.report")
    environment.filters |= {
        "duration": duration,
        "thousands": thousands,
        "percent": percent,
        "probability": probability,
    }
    return environment.get_template("page.html.j2").render(
        report=report,
        part=part,
        model=report.base_model.storage_uri.rstrip("/").rsplit("/", 1)[-1].removeprefix("file:"),
        verdict=verdict(report),
        tables=[(piece, metrics_table(report, piece)) for piece in report.slices],
        kinds={piece.name: [row.kind for row in piece.rows] for piece in report.slices},
        notes=[row for row in part.rows if row.note],
        gaps=gap_lines(part),
        forests=[figures.forest(part.rows, name) for name in metric_names(part)[:2]],
        losses=figures.curves(facts.curves, "train_loss", "training loss"),
        uaucs=figures.curves(facts.curves, "validation_uauc", "validation UAUC"),
        histogram=figures.gate_weights(slots, names) if slots else None,
        ratings=figures.ratings(facts.statistics["ratingHistogram"], facts.threshold) if facts.statistics else None,
        branches=[(BRANCH_WORDS[branch], count, count / part.users) for branch, count in report.branches.items()],
        facts=facts,
        explanations=explanations,
        adapters=list(zip(names, colours, strict=True)),
        limits=limits(report, facts),
        main_metric=MAIN_METRIC,
    )


def templates(*packages: str) -> Environment:
    """Return what renders the templates of these packages, the first one's before the next one's; all is escaped."""
    return Environment(
        loader=ChoiceLoader([PackageLoader(package, ".") for package in packages]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def gap_lines(part: EvaluationSlice) -> list[tuple[str, str, str]]:
    """Return (other row's title, difference fused - other with interval, what it means) on the main metric."""
    lines = []
    for difference in part.differences:
        row, gap = part.row(difference.other), difference.metrics.get(MAIN_METRIC)
        if row is None or gap is None or gap.value is None or gap.lower is None or gap.upper is None:
            continue
        lines.append((row.title, f"{gap.value:+.3f} [{gap.lower:+.3f}, {gap.upper:+.3f}]", _meaning(gap)))
    return lines


def _meaning(gap: Estimate) -> str:
    if gap.value == gap.lower == gap.upper == 0:
        return "the same order for every user"
    if not gap.excludes_zero():
        return "may be chance"
    return "fused is ahead" if (gap.value or 0.0) > 0 else "fused is behind"


def duration(seconds: float) -> str:
    """Return `3 min 20 s`, `12.3 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


def thousands(value: float) -> str:
    """Return a whole number with thin spaces between thousands."""
    return f"{round(value):,}".replace(",", "\u202f")


def percent(value: float) -> str:
    """Return a share as a percentage with as many digits as it needs."""
    if 0 < value < 0.001:
        return "< 0.1 %"
    return f"{100 * value:.0f} %" if value == 0 or value >= 0.1 else f"{100 * value:.2g} %"


def probability(logit: float) -> str:
    """Return sigmoid(logit) as a percentage."""
    return percent(1 / (1 + math.exp(-max(-60.0, min(60.0, logit)))))
