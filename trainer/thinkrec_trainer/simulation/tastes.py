# SPDX-License-Identifier: Apache-2.0
"""What each test user likes, and how each variant scores it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from thinkrec_trainer.comparison.rows import side_by_side
from thinkrec_trainer.metrics.rows import Bools, Floats, Ints
from thinkrec_trainer.simulation.draws import Draws


@dataclass(frozen=True, slots=True, eq=False)
class Tastes:
    """R rows of T test users, each user's together."""

    users: npt.NDArray[np.object_]
    """(T,) ids."""
    items: npt.NDArray[np.object_]
    """(R,) ids."""
    liked: Bools
    """(R,)"""
    scores: Floats
    """(V, R), variants in the order of the tables."""
    starts: Ints
    """(T,) each user's first row."""
    sizes: Ints
    """(T,) each user's rows, at least 1."""

    @property
    def count(self) -> int:
        """T."""
        return len(self.sizes)

    def drawn(self, numbers: Ints, draws: Draws) -> Ints:
        """Return (P,) whose taste persons of these numbers have, as places of test users."""
        return draws.below(np.full_like(numbers, self.count), "taste", numbers)


def read_tastes(tables: Mapping[str, pl.DataFrame]) -> Tastes:
    """Return the tastes in variants' scores, without rows that one of the variants learned from.

    Raises:
        BadInput: the variants did not score the same rows, or every row was learned from by one of them.
    """
    board = side_by_side(tables)
    order = np.argsort(board.users, kind="stable")
    sizes = np.bincount(board.users)
    return Tastes(
        users=board.user_ids,
        items=board.items.to_numpy()[order],
        liked=board.liked[order],
        scores=np.stack([scores[order] for scores in board.scores.values()]),
        starts=np.cumsum(sizes) - sizes,
        sizes=sizes,
    )
