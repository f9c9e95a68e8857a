# SPDX-License-Identifier: Apache-2.0
"""Caps of what one user can weigh. One bot with 10 000 events outweighs thousands of people in a mean.

A capped mean is another quantity than the mean, less noisy and a little smaller; both variants are capped alike, so no
difference appears where there is none. The limit must be one number for all variants and all looks: a limit of each
variant's own would take part of the effect away. Best is a number fixed beforehand ("no one watches 500 films a day");
else a high quantile of all variants' users together, taken at the first analysis and kept.

A Conversion needs no cap: a user counts once.
"""

from __future__ import annotations

import numpy as np

from thinkrec_trainer.analysis.sums import Floats


def limit_at(values: Floats, quantile: float) -> float:
    """Return the limit that a share of 1 - quantile of all variants' (U,) values exceeds; infinity without users.

    Raises:
        ValueError: the quantile is not above 0 and at most 1.
    """
    if not 0 < quantile <= 1:
        raise ValueError(f"quantile must be above 0 and at most 1, not {quantile}")
    return float(np.quantile(values, quantile)) if len(values) else float("inf")


def capped(values: Floats, limit: float) -> Floats:
    """Return (U,) values, none of them farther from 0 than the limit."""
    return np.clip(values, -limit, limit)


def capped_ratio(numerators: Floats, denominators: Floats, limit: float) -> tuple[Floats, Floats]:
    """Return (U,) numerators and denominators of which no denominator exceeds the limit.

    A user's numerator shrinks with the denominator: the user's own ratio stays, its weight is bounded.
    """
    share = np.divide(limit, denominators, out=np.ones_like(denominators), where=denominators > limit)
    return numerators * share, denominators * share
