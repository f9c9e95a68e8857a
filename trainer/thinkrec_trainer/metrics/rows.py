# SPDX-License-Identifier: Apache-2.0
"""The scored rows that every ranking metric reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Rows:
    """N judged candidates. Build with `Rows.of`, which validates."""

    users: Ints
    """(N,) position of the row's user, 0 <= users < user_count."""
    liked: Bools
    """(N,) the label y."""
    scores: Floats
    """(N,) higher is better; only their order counts."""
    user_count: int
    """U; users without a row are allowed and are undefined (NaN) in every metric."""

    @classmethod
    def of(
        cls, users: npt.ArrayLike, liked: npt.ArrayLike, scores: npt.ArrayLike, *, user_count: int | None = None
    ) -> Rows:
        """Build rows from array-likes of one length.

        Raises:
            ValueError: lengths differ, a score is NaN, or a user lies outside 0..user_count-1.
        """
        user, label = np.asarray(users, dtype=np.int64), np.asarray(liked, dtype=np.bool_)
        score = np.asarray(scores, dtype=np.float64)
        if not (user.ndim == 1 and user.shape == label.shape == score.shape):
            raise ValueError(f"users {user.shape}, liked {label.shape} and scores {score.shape} must have one length")
        if np.isnan(score).any():
            raise ValueError(
                f"{int(np.isnan(score).sum())} of {len(score)} scores are NaN; a model must score every row"
            )
        count = int(user.max(initial=-1)) + 1 if user_count is None else user_count
        if len(user) and (user.min() < 0 or user.max() >= count):
            raise ValueError(f"users must lie in 0..{count - 1}, got {int(user.min())}..{int(user.max())}")
        return cls(user, label, score, count)

    def select(self, keep: Bools) -> Rows:
        """Return the rows where `keep` (N,) holds; user numbers stay as they are."""
        return Rows(self.users[keep], self.liked[keep], self.scores[keep], self.user_count)

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True, slots=True)
class Ties:
    """Rows of each user by falling score, cut into runs of equal score (G runs, sorted by user, then score)."""

    user: Ints
    """(G,) whose run it is."""
    start: Ints
    """(G,) 0-based rank of the run's first row in the user's list."""
    size: Ints
    """(G,) rows in the run."""
    positives: Ints
    """(G,) liked rows in the run."""
    positives_before: Ints
    """(G,) liked rows of the user ranked above the run."""


def exclusive_cumsum(values: npt.NDArray[Any], first_of_user: Ints) -> npt.NDArray[Any]:
    """Sum before each entry, restarting where the user changes; `first_of_user` (G,): index of the user's first one."""
    before = np.cumsum(values) - values
    result: npt.NDArray[Any] = before - before[first_of_user]
    return result


def tie_runs(rows: Rows) -> Ties:
    """Sort each user's rows by falling score and return the runs of equal scores."""
    order = np.lexsort((-rows.scores, rows.users))
    user, score, liked = rows.users[order], rows.scores[order], rows.liked[order]
    begins = np.ones(len(user), dtype=np.bool_)
    begins[1:] = (user[1:] != user[:-1]) | (score[1:] != score[:-1])
    at = np.flatnonzero(begins)
    run_user = user[at]
    size = np.diff(np.append(at, len(user)))
    positives = np.add.reduceat(liked.astype(np.int64), at) if len(at) else np.zeros(0, dtype=np.int64)
    first = np.searchsorted(run_user, run_user, side="left")
    return Ties(run_user, exclusive_cumsum(size, first), size, positives, exclusive_cumsum(positives, first))
