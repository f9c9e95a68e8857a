# SPDX-License-Identifier: Apache-2.0
"""Stage `compare`: the variants of an experiment measured on the same rows, and how each differs from control."""

from __future__ import annotations

import math

import polars as pl

from thinkrec_crds.comparison import (
    COMPARISON_NAME,
    SCORES_NAME,
    VARIANT_PREFIX,
    ComparisonReport,
    Difference,
    VariantResult,
)
from thinkrec_crds.stages import CompareParameters
from thinkrec_trainer.comparison.page import write_page
from thinkrec_trainer.comparison.paired import Gap, gaps, measure
from thinkrec_trainer.comparison.rows import Scoreboard, side_by_side
from thinkrec_trainer.context import StageContext, StageResult
from thinkrec_trainer.evaluation.measure import estimate


def run(context: StageContext) -> StageResult:
    """Measure, write comparison.json and the page; what a status can hold goes into the termination message."""
    given = context.spec.parameters
    assert isinstance(given, CompareParameters)
    context.progress.update(0, 2, "reading the scores")
    board = side_by_side(
        {name: pl.read_parquet(context.input(f"{VARIANT_PREFIX}{name}").file(SCORES_NAME)) for name in given.variants}
    )
    report = compared(board, given, seed=context.spec.seed)
    context.progress.update(1, 2, "writing the page")
    (context.output / COMPARISON_NAME).write_text(report.to_json(indent=2), encoding="utf-8")
    write_page(context.output, report, given)
    context.progress.update(2, 2)
    return StageResult(
        metrics=report.numbers(),
        counts={"users": report.users, "rows": report.rows, "trained_on_rows": report.trained_on_rows},
    )


def compared(board: Scoreboard, given: CompareParameters, *, seed: int) -> ComparisonReport:
    """Return the whole comparison."""
    found = measure(board, given.metrics, samples=given.bootstrap_samples, seed=seed)
    return ComparisonReport(
        control=given.control,
        variants=tuple(
            VariantResult(
                name=name,
                metrics={metric: estimate(value.interval()) for metric, value in found[name].items()},
                unknown_rows=board.unknown[name],
            )
            for name in given.variants
        ),
        differences=tuple(_difference(gap) for gap in gaps(found, given.control, given.metrics)),
        users=board.user_count,
        rows=len(board.liked),
        trained_on_rows=board.trained_on,
        seed=seed,
        bootstrap_samples=given.bootstrap_samples,
    )


def _difference(gap: Gap) -> Difference:
    defined = not math.isnan(gap.p_value)
    return Difference(
        variant=gap.variant,
        metric=gap.metric,
        effect=estimate(gap.interval),
        p_value=gap.p_value if defined else None,
        adjusted_p_value=gap.adjusted if defined else None,
    )
