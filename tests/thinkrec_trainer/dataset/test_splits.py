# SPDX-License-Identifier: Apache-2.0
"""Time splits: sizes, order, ties, and that nothing of the future is trained on."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkrec_trainer.dataset.splits import split_rows
from thinkrec_trainer.errors import BadInput


def interactions(rows: list[tuple[int, int, int]]) -> pl.DataFrame:
    """(user, item, time) -> what split_rows takes."""
    frame = pl.DataFrame(
        rows, schema={"user_index": pl.Int32, "item_index": pl.Int32, "timestamp": pl.Int64}, orient="row"
    )
    return frame.sort("user_index", "timestamp", "item_index")


def sizes(frame: pl.DataFrame) -> tuple[int, int, int]:
    found = dict(frame.group_by("split").len().iter_rows())
    return found.get("train", 0), found.get("validation", 0), found.get("test", 0)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (1, (1, 0, 0)),
        (2, (2, 0, 0)),
        (3, (1, 1, 1)),
        (9, (7, 1, 1)),
        (10, (8, 1, 1)),
        (19, (17, 1, 1)),
        (70, (56, 7, 7)),
    ],
)
def test_per_user_sizes(rows: int, expected: tuple[int, int, int]) -> None:
    assert sizes(split_rows(interactions([(0, n, n) for n in range(rows)]), "PerUserTemporal")) == expected


def test_ties_are_broken_by_item() -> None:
    split = split_rows(interactions([(0, item, 7) for item in (4, 2, 9)]), "PerUserTemporal")
    assert split.select("item_index", "split", "position").rows() == [
        (2, "train", 0),
        (4, "validation", 1),
        (9, "test", 2),
    ]


rows_strategy = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 30), st.integers(0, 50)),
    min_size=1,
    max_size=80,
    unique_by=lambda r: r[:2],
)


@given(rows_strategy)
def test_per_user_keeps_order_in_time(rows: list[tuple[int, int, int]]) -> None:
    """Every row is in one split; positions count from 0; a user's later splits are never earlier in time."""
    split = split_rows(interactions(rows), "PerUserTemporal")
    assert split.height == len(rows)
    rank = {"train": 0, "validation": 1, "test": 2}
    for (_,), group in split.group_by("user_index"):
        ordered = group.sort("position")
        assert ordered["position"].to_list() == list(range(group.height))
        assert ordered["timestamp"].is_sorted()
        ranks = [rank[name] for name in ordered["split"]]
        assert ranks == sorted(ranks)


@given(rows_strategy)
def test_global_cuts_the_same_times_for_all(rows: list[tuple[int, int, int]]) -> None:
    times = sorted(time for _, _, time in rows)
    n = len(times)
    if not times[0] < times[n * 8 // 10] < times[n * 9 // 10]:
        with pytest.raises(BadInput, match="GlobalTemporal"):
            split_rows(interactions(rows), "GlobalTemporal")
        return
    split = split_rows(interactions(rows), "GlobalTemporal")
    bounds: dict[str, Any] = {
        name: (part["timestamp"].min(), part["timestamp"].max()) for (name,), part in split.group_by("split")
    }
    assert bounds["train"][1] < bounds["validation"][0] <= bounds["validation"][1] < bounds["test"][0]


def test_global_sizes_without_ties() -> None:
    assert sizes(split_rows(interactions([(n % 3, n, n) for n in range(100)]), "GlobalTemporal")) == (80, 10, 10)


def test_global_with_one_time_is_bad_input() -> None:
    with pytest.raises(BadInput, match=r"GlobalTemporal needs different times.*use PerUserTemporal"):
        split_rows(interactions([(0, n, 5) for n in range(50)]), "GlobalTemporal")
