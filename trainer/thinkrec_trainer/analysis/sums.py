# SPDX-License-Identifier: Apache-2.0
"""What is kept of the users of one variant for one metric: enough for every estimate here, for any number of users.

Kept are the number of users, the means of C columns and their scatter matrix, that is the sums of centred squares and
products. Raw sums of squares would lose all digits where the mean is large against the spread (a watch time in
milliseconds, say): the variance of 100 million of them is a small difference of two numbers near 1e20. Centred moments
merge without that loss (Chan, Golub and LeVeque 1983, "Algorithms for Computing the Sample Variance").

Columns: the outcome (of a Ratio: numerator, denominator), then the covariates of CUPED, if any: first whether the user
was known before the experiment (1 or 0), then what the user did then, 0 for unknown users.

The unit is the user. All events of a user must have been summed before, in one shard: a user in two shards counts
twice, and values that belong together would pass for independent ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Kind = Literal["Conversion", "Mean", "Ratio"]
"""As in the manifest: share of users with the event, its mean per user, its count over another event's count."""


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """Centred moments of some users' values."""

    kind: Kind
    users: int
    """Exposed users, those without any event among them."""
    mean: Floats
    """(C,)"""
    scatter: Floats
    """(C, C) sums of products of deviations from the mean."""

    @property
    def outcomes(self) -> int:
        """Columns before the covariates."""
        return 2 if self.kind == "Ratio" else 1

    @property
    def known_users(self) -> int:
        """Users whose earlier behaviour is known."""
        return round(self.users * float(self.mean[self.outcomes])) if len(self.mean) > self.outcomes else 0

    def of_nobody(self) -> Sums:
        """Return the sums of no users, in the same shape."""
        return Sums(self.kind, 0, np.zeros_like(self.mean), np.zeros_like(self.scatter))

    def merged(self, other: Sums) -> Sums:
        """Return the sums over both sets of users, which must not overlap.

        Commutative to the bit; associative up to rounding, a few units in the last place.

        Raises:
            ValueError: they are of different metrics.
        """
        if self.kind != other.kind or self.mean.shape != other.mean.shape:
            raise ValueError(
                f"sums of a {self.kind} with {len(self.mean)} columns and of a {other.kind} with {len(other.mean)} "
                "do not add up: they must be of one metric"
            )
        if not self.users or not other.users:
            return self if self.users else other
        users = self.users + other.users
        apart = other.mean - self.mean
        return Sums(
            kind=self.kind,
            users=users,
            # Equal means stay as they are: rounding must not give values that are all alike a variance.
            mean=np.where(apart == 0, self.mean, (self.users * self.mean + other.users * other.mean) / users),
            scatter=self.scatter + other.scatter + np.outer(apart, apart) * (self.users * other.users / users),
        )


def total(parts: Iterable[Sums]) -> Sums:
    """Return the sums over all parts, which must be one at least."""
    return reduce(Sums.merged, parts)


def no_users(kind: Kind, *, history: int = 0) -> Sums:
    """Return the sums of nobody; `history` is how many columns of earlier behaviour the other parts have."""
    columns = (2 if kind == "Ratio" else 1) + (history + 1 if history else 0)
    return Sums(kind, 0, np.zeros(columns), np.zeros((columns, columns)))


def sums_of(kind: Kind, outcomes: Floats, history: Floats | None = None) -> Sums:
    """Return the sums over U users.

    Args:
        kind: the metric's.
        outcomes: (U,) each user's value; of a Conversion 0 or 1, of a Ratio (U, 2) numerators and denominators.
        history: (U,) or (U, H) what each user did before the first exposure; NaN in any column where that is unknown.

    Raises:
        ValueError: a value is not finite, the shapes do not fit, or a Conversion is neither 0 nor 1.
    """
    columns = _columns(kind, outcomes, history)
    users = len(columns)
    if not users:
        return Sums(kind, 0, np.zeros(columns.shape[1]), np.zeros((columns.shape[1],) * 2))
    shifted = columns - columns[0]  # exactly 0 where all are alike, and small where the mean is large
    shift = shifted.mean(axis=0)
    deviations = shifted - shift
    return Sums(kind, users, columns[0] + shift, deviations.T @ deviations)


def _columns(kind: Kind, outcomes: Floats, history: Floats | None) -> Floats:
    values, expected = _table(outcomes), 2 if kind == "Ratio" else 1
    if values.shape[1] != expected:
        raise ValueError(f"a {kind} has {expected} values per user, not {values.shape[1]}")
    if not np.isfinite(values).all():
        raise ValueError(f"values of a {kind} must be finite; check the events' values")
    if kind == "Conversion" and ((values != 0) & (values != 1)).any():
        raise ValueError("values of a Conversion must be 0 or 1: whether the user had the event, not how often")
    return values if history is None else np.hstack([values, _covariates(_table(history))])


def _table(values: Floats) -> Floats:
    """Return (U,) values as (U, 1), and (U, C) as they are."""
    found = np.asarray(values, dtype=np.float64)
    return found[:, None] if found.ndim == 1 else found


def _covariates(history: Floats) -> Floats:
    """Return (U, 1 + H): whether a user is known, and its history with 0 for unknown users.

    A user who is new is no gap in the data: "new" is itself known before the experiment and tells something about the
    outcome. The indicator lets CUPED use it, and keeps unknown users from bending the slope of the known ones.
    """
    known = np.isfinite(history).all(axis=1)
    return np.column_stack([known.astype(np.float64), np.where(known[:, None], history, 0.0)])
