# SPDX-License-Identifier: Apache-2.0
"""The test of one planned look: Welch's t, and a t interval of one value.

    D ± t(1 - α/2; ν) sqrt(V),    ν = V² / Σ V_i² / (N_i - 1)        (Welch 1947)

Equal to `scipy.stats.ttest_ind(equal_var=False)` for means; ratios and CUPED bring their own variances. Right when the
moment of the look was fixed before, wrong when one looks until it is significant.
"""

from __future__ import annotations

import math

from scipy.special import stdtr, stdtrit

from thinkrec_trainer.analysis.estimates import UNDEFINED, Difference, Estimate, Interval


def compare(difference: Difference, *, level: float) -> Interval:
    """Return the interval and two-sided p-value of an effect; undefined below two users a side or without variance."""
    if difference.fewest_users < 2:
        return UNDEFINED
    parts = [(side.variance, side.users - 1) for side in (difference.control, difference.variant)]
    return _interval(difference.value, parts, level)


def single(given: Estimate, *, level: float) -> Interval:
    """Return the interval of one variant's value; its p-value is against zero."""
    return _interval(given.value, [(given.variance, given.users - 1)], level) if given.users > 1 else UNDEFINED


def _interval(value: float, parts: list[tuple[float, int]], level: float) -> Interval:
    variance = sum(part for part, _ in parts)
    if not (variance > 0 and math.isfinite(value) and math.isfinite(variance)):
        return UNDEFINED
    # Shares first: squares of very small variances would vanish.
    freedom = 1 / sum((part / variance) ** 2 / degrees for part, degrees in parts)
    error = math.sqrt(variance)
    half = float(stdtrit(freedom, 1 - level / 2)) * error
    return Interval(value - half, value + half, 2 * float(stdtr(freedom, -abs(value) / error)))
