# SPDX-License-Identifier: Apache-2.0
"""A variant's value with its variance, and the difference of two variants.

    Mean, Conversion    X̄,      spread s²_x
    Ratio               X̄ / Ȳ,  spread (s²_x - 2 R s_xy + R² s²_y) / Ȳ²  with R = X̄ / Ȳ

The spread is the variance of one user's (linearised) value, with N - 1 in the denominator; the value's own variance is
spread / N. The ratio is the delta method over users (Deng, Knoblich and Lu 2018, "Applying the Delta Method in Metric
Analytics"): counts of events are not independent where one user has several, users are.

What cannot be told is NaN: no users, one user's spread, a ratio whose denominator is 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from thinkrec_trainer.analysis.sums import Floats, Sums


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value that stands on N users."""

    value: float
    spread: float
    """Variance of one user's value; NaN below two users."""
    users: int

    @property
    def variance(self) -> float:
        """Square of the value's standard error."""
        return self.spread / self.users if self.users else math.nan

    def scaled(self, factor: float) -> Estimate:
        """Return the estimate of factor times the quantity."""
        return replace(self, value=factor * self.value, spread=factor * factor * self.spread)


@dataclass(frozen=True, slots=True)
class Difference:
    """Variant minus control; their users are different ones, so variances add."""

    control: Estimate
    variant: Estimate

    @property
    def value(self) -> float:
        """The effect."""
        return self.variant.value - self.control.value

    @property
    def variance(self) -> float:
        """Square of the effect's standard error."""
        return self.variant.variance + self.control.variance

    @property
    def fewest_users(self) -> int:
        """Users of the smaller side."""
        return min(self.control.users, self.variant.users)


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a quantity may lie, and how surprising zero would be; NaN where undefined."""

    lower: float
    upper: float
    p_value: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the quantity differs from zero by more than chance; False where undefined."""
        return self.lower > 0 or self.upper < 0


UNDEFINED = Interval(math.nan, math.nan, math.nan)
"""Never significant: NaN compares as False."""


def estimate(sums: Sums) -> Estimate:
    """Return the metric's value with its spread."""
    if not sums.users:
        return Estimate(math.nan, math.nan, 0)
    outcome = sums.mean[: sums.outcomes]
    return Estimate(_value(outcome), spread(sums, gradient(outcome)), sums.users)


def gradient(outcome: Floats) -> Floats:
    """Return how the value changes with the outcome's means: (1,) for a mean, (2,) for a ratio."""
    if len(outcome) == 1:
        return np.ones(1)
    if outcome[1] == 0:
        return np.full(2, math.nan)
    return np.array([1.0, -outcome[0] / outcome[1]], dtype=np.float64) / float(outcome[1])


def spread(sums: Sums, weights: Floats) -> float:
    """Return the variance of the users' weighted sums of their first columns; never below 0, NaN below two users."""
    if sums.users < 2:
        return math.nan
    columns = len(weights)
    squares = float(weights @ sums.scatter[:columns, :columns] @ weights)
    return squares / (sums.users - 1) if not squares < 0 else 0.0


def _value(outcome: Floats) -> float:
    if len(outcome) == 1:
        return float(outcome[0])
    return float(outcome[0] / outcome[1]) if outcome[1] else math.nan
