# SPDX-License-Identifier: Apache-2.0
"""AUC over all rows and per user (UAUC): the chance that a liked row outranks a disliked one; a tie counts one half.

Source: Hanley and McNeil 1982, "The meaning and use of the area under a ROC curve"; UAUC as in CoLLM (arXiv
2310.19488): the plain mean of per-user AUC over users with both classes.
"""

from __future__ import annotations

import numpy as np

from thinkrec_trainer.metrics.rows import Floats, Rows, tie_runs


def per_user_auc(rows: Rows) -> Floats:
    """Return (U,) AUC of each user; NaN for users without a liked or without a disliked row.

    AUC = sum over disliked rows of (liked rows above + half of the liked rows tied) / (liked * disliked).
    """
    ties = tie_runs(rows)
    negatives = ties.size - ties.positives
    won = negatives * (ties.positives_before + 0.5 * ties.positives)
    liked = np.bincount(ties.user, weights=ties.positives, minlength=rows.user_count)
    disliked = np.bincount(ties.user, weights=negatives, minlength=rows.user_count)
    pairs = liked * disliked
    wins = np.bincount(ties.user, weights=won, minlength=rows.user_count)
    result: Floats = np.divide(wins, pairs, out=np.full(rows.user_count, np.nan), where=pairs > 0)
    return result


def auc(rows: Rows) -> float:
    """Return the AUC over all rows together; NaN when they have one class only."""
    together = Rows(np.zeros_like(rows.users), rows.liked, rows.scores, 1)
    return float(per_user_auc(together)[0])
