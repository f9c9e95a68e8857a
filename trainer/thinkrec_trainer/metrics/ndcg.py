# SPDX-License-Identifier: Apache-2.0
"""NDCG@k with binary gain.

Source: Järvelin and Kekäläinen 2002, discount 1 / log2(rank + 1); equal scores share the mean gain of the ranks they
occupy (McSherry and Najork 2008), so that the value never depends on the order of the rows.
"""

from __future__ import annotations

import numpy as np

from thinkrec_trainer.metrics.rows import Floats, Ints, Rows, tie_runs


def _discounted(first: Ints, last: Ints, k: int) -> Floats:
    """Sum of the discounts of 0-based ranks first..last-1 that lie within the first k."""
    table = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(2, k + 2)))])
    result: Floats = table[np.minimum(last, k)] - table[np.minimum(first, k)]
    return result


def ndcg(rows: Rows, *, k: int = 5) -> Floats:
    """Return (U,) NDCG@k of each user.

    NaN for users with fewer than two rows (any order is ideal). Users without a liked row, whose ideal is zero, count
    as 0: so do the published code and scikit-learn, and only so are values comparable with the paper's. It lowers every
    model alike. The ideal list is the user's own rows, liked ones first.
    """
    ties = tie_runs(rows)
    gain = ties.positives / ties.size * _discounted(ties.start, ties.start + ties.size, k)
    reached = np.bincount(ties.user, weights=gain, minlength=rows.user_count)
    total = np.bincount(rows.users, minlength=rows.user_count)
    liked = np.bincount(rows.users, weights=rows.liked, minlength=rows.user_count).astype(np.int64)
    ideal = _discounted(np.zeros_like(liked), liked, k)
    values = np.divide(reached, ideal, out=np.zeros(rows.user_count), where=liked > 0)
    result: Floats = np.where(total > 1, values, np.nan)
    return result
