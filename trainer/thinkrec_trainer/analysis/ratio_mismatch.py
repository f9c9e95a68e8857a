# SPDX-License-Identifier: Apache-2.0
"""Sample-ratio mismatch: users did not arrive in the stated proportion, so the variants' users are not alike.

A variant that loses 1 % of its users (a crash before the first event, a timeout) loses certain users, and any
difference may come from that. Pearson's chi-square of the users against their expected numbers finds it; below
p = 0.001 no verdict is trusted (Fabijan et al. 2019, "Diagnosing Sample Ratio Mismatch in Online Controlled
Experiments"). The level is that strict because every experiment is tested, at every look: of sound experiments 0.1 %
are void at one look, and 0.9 % were so at some look of 20 (benchmarks/experiments.py). What counts is the look at which
the verdict is reached.

Expected shares are those that were in force, not those last written down: where weights changed, the mean of the
weights over the users counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from scipy.special import chdtrc

VOID_BELOW = 0.001
_FEWEST = 5.0
"""Expected users of each variant below which the chi-square distribution is no good approximation (Cochran 1954)."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The comparison of users with their expected numbers."""

    p_value: float
    """NaN while there are too few users to tell."""

    @property
    def void(self) -> bool:
        """Whether no verdict may be based on these users."""
        return self.p_value < VOID_BELOW


def mismatch(users: Mapping[str, int], shares: Mapping[str, float]) -> Mismatch:
    """Compare users per variant with shares of any sum.

    A variant without share must have no users; one user there is a mismatch.

    Raises:
        ValueError: a variant has no entry in `shares`, or no share is above 0.
    """
    if missing := users.keys() - shares.keys():
        raise ValueError(f"no expected share for {', '.join(sorted(missing))}")
    in_force = [name for name in users if shares[name] > 0]
    if not in_force:
        raise ValueError("no variant has an expected share above 0")
    if any(users[name] for name in users if shares[name] <= 0):
        return Mismatch(0.0)
    observed = [users[name] for name in in_force]
    whole = sum(shares[name] for name in in_force)
    expected = [sum(observed) * shares[name] / whole for name in in_force]
    if len(in_force) < 2 or min(expected) < _FEWEST:
        return Mismatch(math.nan)
    statistic = sum((found - wanted) ** 2 / wanted for found, wanted in zip(observed, expected, strict=True))
    # `scipy.stats.chisquare` gives the same, and would take three quarters of the time of a whole analysis.
    return Mismatch(float(chdtrc(len(in_force) - 1, statistic)))
