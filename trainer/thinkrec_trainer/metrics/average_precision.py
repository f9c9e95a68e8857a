# SPDX-License-Identifier: Apache-2.0
"""Average precision at k, in both readings of its denominator.

AP@k = (sum over ranks j <= k of liked(j) * precision(j)) / denominator, where the denominator is the number of ALL
liked rows of the user (the published code: a user with twenty liked rows cannot exceed 5/20) or min(k, liked rows), the
usual one, under which a perfect list reaches 1. Equal scores: the expectation over all orders of the tied rows, in
closed form.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from thinkrec_trainer.metrics.rows import Floats, Rows, Ties, tie_runs

Denominator = Literal["AllLiked", "Capped"]


def _expected_precision_sum(ties: Ties, k: int) -> Floats:
    """(G,) expected sum of liked(j) * precision(j) over the ranks j <= k that each run occupies.

    In a run of n rows with m liked ones, at the run's i-th rank (i from 0): the row there is liked with chance m / n,
    and each of the i tied rows above it is liked together with it with chance m (m - 1) / (n (n - 1)).
    """
    size, liked = ties.size.astype(np.float64), ties.positives.astype(np.float64)
    single = liked / size
    pair = np.divide(liked * (liked - 1), size * (size - 1), out=np.zeros_like(size), where=size > 1)
    total = np.zeros_like(size)
    for rank in range(1, k + 1):
        inside = rank - 1 - ties.start
        expected_hits = single * (1 + ties.positives_before) + inside * pair
        total += np.where((inside >= 0) & (inside < ties.size), expected_hits / rank, 0.0)
    return total


def average_precision(rows: Rows, *, k: int = 5, denominator: Denominator = "AllLiked") -> Floats:
    """Return (U,) AP@k of each user; NaN for users with fewer than two rows.

    Users without a liked row count as 0 with AllLiked, as in the published code, and are left out (NaN) with Capped.
    """
    ties = tie_runs(rows)
    reached = np.bincount(ties.user, weights=_expected_precision_sum(ties, k), minlength=rows.user_count)
    total = np.bincount(rows.users, minlength=rows.user_count)
    liked = np.bincount(rows.users, weights=rows.liked, minlength=rows.user_count)
    most = np.minimum(liked, k) if denominator == "Capped" else liked
    without_likes = np.nan if denominator == "Capped" else 0.0
    values = np.divide(reached, most, out=np.full(rows.user_count, without_likes), where=liked > 0)
    result: Floats = np.where(total > 1, values, np.nan)
    return result
