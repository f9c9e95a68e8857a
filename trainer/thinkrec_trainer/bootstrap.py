# SPDX-License-Identifier: Apache-2.0
"""Bootstrap intervals over users: users are drawn with replacement, and all rows of a drawn user come along.

Rows of one user are not independent, so it is the user that is resampled (Efron and Tibshirani 1993, chapter 8). All
models are measured on the SAME draws, which makes every difference a paired one. Each draw is a vector of
multiplicities, and both kinds of metric are computed from multiplicities without touching the rows again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from thinkrec_trainer.metrics.auc import auc
from thinkrec_trainer.metrics.mean import mean_over_users
from thinkrec_trainer.metrics.rows import Floats, Rows

LEVEL = 0.95
"""Two-sided coverage of every interval."""
_BLOCK = 64
"""Draws handled at once: bounds memory to 64 times the rows."""

Draws = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its percentile interval; NaN where undefined."""

    value: float
    lower: float
    upper: float
    users: int
    """Users that the value stands on."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """A value, its users, and its bootstrap replicates (B,)."""

    value: float
    replicates: Floats
    users: int

    def interval(self) -> Interval:
        """Return the central 95 % of the replicates around the value."""
        return _interval(self.value, self.replicates, self.users)

    def minus(self, other: Sampled) -> Interval:
        """Return the paired difference self - other; both must come from the same draws."""
        return _interval(self.value - other.value, self.replicates - other.replicates, min(self.users, other.users))


def _interval(value: float, replicates: Floats, users: int) -> Interval:
    defined = replicates[~np.isnan(replicates)]
    if not len(defined) or np.isnan(value) or users < 2:  # every draw of one user is that user
        return Interval(value, float("nan"), float("nan"), users)
    tail = (1 - LEVEL) / 2
    lower, upper = np.quantile(defined, [tail, 1 - tail])
    return Interval(value, float(lower), float(upper), users)


def draw_users(user_count: int, *, samples: int, seed: int) -> Draws:
    """Return (B, U) multiplicities of `samples` draws of U users out of U; float64 because they enter products."""
    if user_count == 0:
        return np.zeros((samples, 0))
    generator = np.random.default_rng(seed)
    return generator.multinomial(user_count, np.full(user_count, 1.0 / user_count), size=samples).astype(np.float64)


def sampled_mean(values: Floats, draws: Draws) -> Sampled:
    """Bootstrap the mean of (U,) per-user values; NaN users never count."""
    defined = ~np.isnan(values)
    drawn = draws[:, defined]
    weight = drawn.sum(axis=1)
    replicates = np.divide(drawn @ values[defined], weight, out=np.full(len(draws), np.nan), where=weight > 0)
    mean = mean_over_users(values)
    return Sampled(mean.value, replicates, mean.users)


def sampled_auc(rows: Rows, draws: Draws) -> Sampled:
    """Bootstrap the AUC over all rows, a user's rows weighing as often as the user was drawn.

    Rows are sorted by score once and gathered into (U, G) counts per tie group; a draw then costs two sparse products
    and one running sum: O(B * N) in all.
    """
    positive, negative = _counts_by_score(rows)
    replicates = np.concatenate(
        [_weighted_auc(draws[at : at + _BLOCK], positive, negative) for at in range(0, len(draws), _BLOCK)]
        or [np.zeros(0)]
    )
    return Sampled(auc(rows), replicates, len(np.unique(rows.users)))


def _counts_by_score(rows: Rows) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Return liked and disliked rows as (U, G) counts, G the distinct scores in rising order."""
    levels, group = np.unique(rows.scores, return_inverse=True)
    shape = (rows.user_count, len(levels))

    def gather(keep: npt.NDArray[np.bool_]) -> sparse.csr_array:
        ones = np.ones(int(keep.sum()))
        return sparse.coo_array((ones, (rows.users[keep], group[keep])), shape=shape).tocsr()

    return gather(rows.liked), gather(~rows.liked)


def _weighted_auc(draws: Draws, positive: sparse.csr_array, negative: sparse.csr_array) -> Floats:
    """AUC of each draw (b, U): the weight of won pairs, ties by half, over the weight of all pairs."""
    liked, disliked = draws @ positive, draws @ negative
    below = np.cumsum(disliked, axis=1) - 0.5 * disliked
    pairs = liked.sum(axis=1) * disliked.sum(axis=1)
    won = np.einsum("bg,bg->b", liked, below)
    result: Floats = np.divide(won, pairs, out=np.full(len(draws), np.nan), where=pairs > 0)
    return result
