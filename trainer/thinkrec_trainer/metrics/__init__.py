# SPDX-License-Identifier: Apache-2.0
"""Metrics: pure functions of (user, label, score) rows or of texts; each module is one metric.

    auc, ndcg, average_precision              of scored rows (rows), averaged over users (mean)
    agreement, grounding, repetition, rouge   of explanations

A metric says its definition, its citation and what it does with a user that it is not defined for (NaN, never 0 in
disguise). Nothing here knows of a model, a file or a stage.
"""

from thinkrec_trainer.metrics.auc import auc, per_user_auc
from thinkrec_trainer.metrics.average_precision import average_precision
from thinkrec_trainer.metrics.mean import Mean, mean_over_users
from thinkrec_trainer.metrics.ndcg import ndcg
from thinkrec_trainer.metrics.rows import Rows

__all__ = ["Mean", "Rows", "auc", "average_precision", "mean_over_users", "ndcg", "per_user_auc"]
