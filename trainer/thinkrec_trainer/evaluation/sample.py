# SPDX-License-Identifier: Apache-2.0
"""The rows that are evaluated: test rows of sampled users, each with the history before the user's first test row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from thinkrec_inference.engine.tokens import History
from thinkrec_trainer.context import LocalArtifact
from thinkrec_trainer.cursor import sample_of
from thinkrec_trainer.errors import BadInput
from thinkrec_trainer.timelines import read_timelines


@dataclass(frozen=True, slots=True)
class TestUser:
    """One evaluated user."""

    index: int
    user_id: str
    history: History
    """(item, liked) of train and validation rows, oldest first, at most H: never a test row."""
    candidates: tuple[int, ...]
    """Items of the user's first test rows, in time order."""
    liked: tuple[bool, ...]
    positions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TestSample:
    """What is evaluated, and of how much."""

    users: tuple[TestUser, ...]
    users_with_test_rows: int
    warm_users: npt.NDArray[np.bool_]
    """(U,) users with a train row."""
    warm_items: npt.NDArray[np.bool_]
    """(I,) items with a train row."""

    @property
    def rows(self) -> int:
        """Test rows of all users."""
        return sum(len(user.candidates) for user in self.users)

    def owners(self) -> npt.NDArray[np.int64]:
        """Return (N,) position in `users` of each row's user."""
        return np.repeat(np.arange(len(self.users)), [len(user.candidates) for user in self.users])

    def items(self) -> npt.NDArray[np.int64]:
        """Return (N,) item of each row."""
        return np.array([item for user in self.users for item in user.candidates], dtype=np.int64)

    def liked(self) -> npt.NDArray[np.bool_]:
        """Return (N,) label of each row."""
        return np.array([liked for user in self.users for liked in user.liked], dtype=np.bool_)

    def warm_rows(self) -> npt.NDArray[np.bool_]:
        """Return (N,) whether user and item of the row both have train rows."""
        users = np.array([user.index for user in self.users], dtype=np.int64)
        result: npt.NDArray[np.bool_] = self.warm_users[users][self.owners()] & self.warm_items[self.items()]
        return result


def read_sample(
    dataset: LocalArtifact, *, max_users: int | None, max_rows: int, history_length: int, seed: int
) -> TestSample:
    """Draw at most `max_users` users from those with test rows, and their first `max_rows` test rows.

    Raises:
        BadInput: the test split is empty.
    """
    test = pl.read_parquet(dataset.file("test.parquet"), columns=["user_index", "item_index", "liked", "position"])
    if not test.height:
        raise BadInput(f"dataset {dataset.manifest.key} has no test rows: there is nothing to evaluate on")
    everybody = test["user_index"].unique().sort().to_list()
    chosen = sample_of(everybody, max_users or len(everybody), seed=seed, name="evaluate")
    ids = read_ids(dataset, "user")
    timelines = read_timelines(dataset)
    kept = test.filter(pl.col("user_index").is_in(chosen)).sort("user_index", "position")
    groups = {int(key[0]): part.head(max_rows) for key, part in kept.group_by("user_index", maintain_order=True)}
    users = []
    for user in chosen:
        past = timelines.rows(user)[-history_length:] if history_length else []
        history = tuple((row.item_index, row.liked) for row in past)
        users.append(_test_user(user, ids[user], history, groups[user]))
    return TestSample(tuple(users), len(everybody), _warm(dataset, "users"), _warm(dataset, "items"))


def _test_user(user: int, user_id: str, history: History, rows: pl.DataFrame) -> TestUser:
    return TestUser(
        index=user,
        user_id=user_id,
        history=history,
        candidates=tuple(rows["item_index"].to_list()),
        liked=tuple(rows["liked"].to_list()),
        positions=tuple(rows["position"].to_list()),
    )


def read_ids(dataset: LocalArtifact, kind: Literal["user", "item"]) -> list[str]:
    """Return the users' or the items' own ids, by index."""
    table = pl.read_parquet(dataset.file(f"{kind}s.parquet"), columns=[f"{kind}_index", f"{kind}_id"])
    result: list[str] = table.sort(f"{kind}_index")[f"{kind}_id"].to_list()
    return result


def _warm(dataset: LocalArtifact, name: str) -> npt.NDArray[np.bool_]:
    index = f"{name[:-1]}_index"
    table = pl.read_parquet(dataset.file(f"{name}.parquet"), columns=[index, "warm"]).sort(index)
    return table["warm"].to_numpy().astype(np.bool_)
