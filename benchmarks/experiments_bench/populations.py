# SPDX-License-Identifier: Apache-2.0
"""Users of known behaviour. A lift multiplies the mean of their values; everything else stays."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from thinkrec_trainer.analysis.sums import Sums, sums_of

Population = Callable[[np.random.Generator, int, float], Sums]
"""(generator, users, lift) -> sums of so many fresh users."""


def conversion(chance: float, generator: np.random.Generator, users: int, lift: float) -> Sums:
    """Each user converts with the same chance."""
    return sums_of("Conversion", (generator.random(users, dtype=np.float32) < chance * (1 + lift)).astype(np.float64))


def lognormal(sigma: float, generator: np.random.Generator, users: int, lift: float) -> Sums:
    """Values with a heavy tail; the mean is exp(σ² / 2)."""
    return sums_of("Mean", (1 + lift) * np.exp(sigma * generator.standard_normal(users)))


def spend(generator: np.random.Generator, users: int, lift: float) -> Sums:
    """Two users of a hundred have a value, and that one has a heavy tail."""
    amount = np.exp(1.5 * generator.standard_normal(users))
    return sums_of("Mean", (1 + lift) * amount * (generator.random(users) < 0.02))


def pareto(generator: np.random.Generator, users: int, lift: float) -> Sums:
    """A tail so heavy that the variance hardly exists: index 2.1."""
    return sums_of("Mean", (1 + lift) * generator.random(users) ** (-1 / 2.1))


def ratio(generator: np.random.Generator, users: int, lift: float) -> Sums:
    """Clicks over views; users differ in how much they view and in how much they like."""
    views = generator.poisson(generator.gamma(0.5, 16.0, users))
    clicks = generator.binomial(views, generator.beta(2.0, 18.0, users) * (1 + lift))
    return sums_of("Ratio", np.column_stack([clicks, views]).astype(np.float64))


def remembered(correlation: float, known: float, generator: np.random.Generator, users: int, lift: float) -> Sums:
    """Normal values around 5, correlated with what a share of the users did earlier."""
    earlier, noise = generator.standard_normal((2, users))
    values = (1 + lift) * 5.0 + correlation * earlier + np.sqrt(1 - correlation**2) * noise
    return sums_of("Mean", values, np.where(generator.random(users) < known, earlier, np.nan))


def remembered_ratio(generator: np.random.Generator, users: int, lift: float) -> Sums:
    """Clicks over views of users whose taste and eagerness were seen earlier."""
    eager, taste = generator.gamma(2.0, 8.0, users), generator.beta(2.0, 6.0, users)
    before, during = generator.poisson(eager), generator.poisson(eager)
    history = np.column_stack([generator.binomial(before, taste), before]).astype(np.float64)
    clicks = generator.binomial(during, taste * (1 + lift))
    return sums_of("Ratio", np.column_stack([clicks, during]).astype(np.float64), history)


CONVERSION, RARE = partial(conversion, 0.05), partial(conversion, 0.003)
HEAVY = partial(lognormal, 2.0)
"""The largest of 1 000 users weighs 500 times as much as the median one."""
