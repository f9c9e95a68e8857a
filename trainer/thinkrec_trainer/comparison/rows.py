# SPDX-License-Identifier: Apache-2.0
"""The variants' scores side by side, on rows that none of them was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from thinkrec_trainer.errors import BadInput
from thinkrec_trainer.metrics.rows import Bools, Floats, Ints, Rows

_IDENTITY = ["user_id", "item_id", "position", "liked"]


@dataclass(frozen=True, slots=True)
class Scoreboard:
    """N rows of U users that every variant scored."""

    user_ids: npt.NDArray[np.object_]
    """(U,) in rising order."""
    users: Ints
    """(N,) position of the row's user."""
    items: pl.Series
    """(N,) ids, as strings."""
    liked: Bools
    """(N,)"""
    scores: Mapping[str, Floats]
    """Variant -> (N,) scores, gaps filled."""
    unknown: Mapping[str, int]
    """Variant -> rows whose item it does not know."""
    trained_on: int
    """Rows left out."""

    @property
    def user_count(self) -> int:
        """U."""
        return len(self.user_ids)

    def rows(self, variant: str) -> Rows:
        """Return a variant's rows as metrics read them."""
        return Rows.of(self.users, self.liked, self.scores[variant], user_count=self.user_count)


def side_by_side(tables: Mapping[str, pl.DataFrame]) -> Scoreboard:
    """Return the rows of all variants, in the order of the first one.

    Raises:
        BadInput: the variants did not score the same rows, or every row was learned from by one of them.
    """
    (first, base), *others = tables.items()
    for name, table in others:
        if not table.select(_IDENTITY).equals(base.select(_IDENTITY)):
            raise BadInput(f"variants {first!r} and {name!r} did not score the same rows: compare them on one dataset")
    learned = np.logical_or.reduce([table["trained_on"].to_numpy() for table in tables.values()])
    if learned.all():
        raise BadInput(
            f"each of the {base.height} test rows is in the training data of one variant; "
            "give `offline.dataset` data that is newer than all of theirs"
        )
    kept = ~learned
    rows = {name: table.filter(pl.Series(kept)) for name, table in tables.items()}
    user_ids, users = np.unique(rows[first]["user_id"].to_numpy(), return_inverse=True)
    return Scoreboard(
        user_ids=user_ids,
        users=users.astype(np.int64),
        items=rows[first]["item_id"],
        liked=rows[first]["liked"].to_numpy().astype(np.bool_),
        scores={name: _without_gaps(table) for name, table in rows.items()},
        unknown={name: table["score"].null_count() for name, table in rows.items()},
        trained_on=int(learned.sum()),
    )


def _without_gaps(table: pl.DataFrame) -> npt.NDArray[np.float64]:
    """Return (N,) scores; an item that the variant does not know gets the user's median, neither better nor worse."""
    filled = pl.col("score").fill_null(pl.col("score").median().over("user_id")).fill_null(0.0)
    found: npt.NDArray[np.float64] = table.select(filled)["score"].to_numpy()
    return found
