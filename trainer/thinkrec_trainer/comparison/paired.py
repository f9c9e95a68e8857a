# SPDX-License-Identifier: Apache-2.0
"""Differences between variants, paired over users. Pure.

Every metric of every variant is measured on the same bootstrap draws of users, so a difference is taken draw by draw.
Its p-value inverts the percentile interval: twice the smaller share of draws on one side of zero (Efron and Tibshirani
1993, section 15.4), each share with one draw more, since a share of none would claim more than B draws can tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from thinkrec_trainer.bootstrap import Draws, Interval, Sampled, draw_users
from thinkrec_trainer.comparison.rows import Scoreboard
from thinkrec_trainer.evaluation.measure import sampled_metric

Measured = Mapping[str, Mapping[str, Sampled]]
"""Variant -> metric -> value with its replicates."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Variant minus control on one metric."""

    variant: str
    metric: str
    interval: Interval
    p_value: float
    """NaN where the difference is undefined."""
    adjusted: float


def measure(board: Scoreboard, metrics: Sequence[str], *, samples: int, seed: int) -> Measured:
    """Return every metric of every variant on the same draws of users."""
    draws = draw_users(board.user_count, samples=samples, seed=seed)
    return {variant: _metrics(board, variant, metrics, draws) for variant in board.scores}


def gaps(measured: Measured, control: str, metrics: Sequence[str]) -> list[Gap]:
    """Return every other variant against control, metric by metric; p-values are corrected over the variants."""
    others = [variant for variant in measured if variant != control]
    found = []
    for metric in metrics:
        base = measured[control][metric]
        values = [p_value(measured[variant][metric], base) for variant in others]
        for variant, value, adjusted in zip(others, values, holm(values), strict=True):
            found.append(Gap(variant, metric, measured[variant][metric].minus(base), value, adjusted))
    return found


def p_value(one: Sampled, other: Sampled) -> float:
    """Return the two-sided p-value of the hypothesis that both are equal; NaN where fewer than two users tell."""
    differences = one.replicates - other.replicates
    defined = differences[~np.isnan(differences)]
    if not len(defined) or min(one.users, other.users) < 2:
        return float("nan")
    below, above = (int(side.sum()) + 1 for side in (defined <= 0, defined >= 0))
    return float(min(1.0, 2 * min(below, above) / (len(defined) + 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected by Holm's step-down method (Holm 1979); NaN stays, and counts as a test."""
    values = np.array(p_values, dtype=np.float64)
    order, count = np.argsort(values, kind="stable"), len(values)
    stepped = np.maximum.accumulate(np.minimum(1.0, values[order] * np.arange(count, 0, -1)))
    adjusted = np.empty(count)
    adjusted[order] = stepped
    result: list[float] = np.where(np.isnan(values), np.nan, adjusted).tolist()
    return result


def _metrics(board: Scoreboard, variant: str, metrics: Sequence[str], draws: Draws) -> dict[str, Sampled]:
    rows = board.rows(variant)
    return {name: sampled_metric(name, rows, draws)[name] for name in metrics}
