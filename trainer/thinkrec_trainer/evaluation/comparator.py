# SPDX-License-Identifier: Apache-2.0
"""Scores of the revision now serving on the same rows: its own bundle and base model, our histories."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from thinkrec_crds.engine_api import EngineError, HistoryItem, ScoreRequest
from thinkrec_inference.engine.engine import Engine
from thinkrec_trainer.context import CheckpointStore, ProgressSink
from thinkrec_trainer.evaluation.passes import Floats
from thinkrec_trainer.evaluation.sample import TestUser


def serving_scores(
    serving: Engine,
    users: Sequence[TestUser],
    item_ids: Sequence[str],
    *,
    progress: ProgressSink,
    checkpoint: CheckpointStore,
) -> list[Floats]:
    """Return (candidates,) scores of each user, NaN for items that the serving revision does not know.

    The histories are the ones given to the new revision, so that it sees no later interaction either. Raises
    Interrupted between two users when asked to stop.
    """
    scores = []
    for number, user in enumerate(users):
        scores.append(_score(serving, user, item_ids))
        progress.update(number + 1, len(users), "scoring with the serving revision")
        checkpoint.raise_if_interrupted()
    return scores


def completed(scores: Sequence[Floats]) -> tuple[Floats, int]:
    """Return (N,) scores without gaps, and how many rows the serving revision could not score.

    Items that its catalogue lacks get the median of the user's other scores, 0 where it scores none: neither better nor
    worse.
    """
    unknown = sum(int(np.isnan(one).sum()) for one in scores)
    return np.concatenate([np.where(np.isnan(one), _median(one), one) for one in scores]), unknown


def _median(scores: Floats) -> float:
    known = scores[~np.isnan(scores)]
    return float(np.median(known)) if len(known) else 0.0


def _score(serving: Engine, user: TestUser, item_ids: Sequence[str]) -> Floats:
    """(candidates,) scores, NaN for items that the serving catalogue lacks."""
    rows = serving.bundle.item_rows
    scores = np.full(len(user.candidates), np.nan)
    known = [place for place, item in enumerate(user.candidates) if item_ids[item] in rows]
    if not known:
        return scores
    history = tuple(
        HistoryItem(item_id=item_ids[item], liked=liked) for item, liked in user.history if item_ids[item] in rows
    )
    wanted = tuple(item_ids[user.candidates[place]] for place in known)
    answer = serving.score([ScoreRequest(user_id=user.user_id, item_ids=wanted, history=history)])[0]
    if isinstance(answer, EngineError):
        raise RuntimeError(f"the serving revision refused user {user.user_id!r}: {answer.error}")
    scores[known] = answer.scores
    return scores
