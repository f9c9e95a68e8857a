# SPDX-License-Identifier: Apache-2.0
"""Test rows by user, with every variant's scores beside them."""

from __future__ import annotations

import polars as pl

from thinkrec_trainer.simulation.tastes import read_tastes

ROWS = pl.DataFrame(
    {
        "user_id": ["zoe", "ann", "zoe", "ann", "zoe", "zoe", "ann"],
        "item_id": ["a", "b", "c", "d", "e", "f", "g"],
        "position": [0, 0, 1, 1, 2, 3, 2],
        "liked": [True, False, False, True, True, False, True],
        "score": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7],
        "trained_on": [False, False, True, False, False, False, False],
    }
)


def test_each_users_rows_lie_together_and_learned_ones_are_gone() -> None:
    other = ROWS.with_columns(score=-pl.col("score"), trained_on=pl.col("item_id") == "g")
    tastes = read_tastes({"old": ROWS, "new": other})
    assert tastes.count == 2
    assert tastes.users.tolist() == ["ann", "zoe"]
    spans = list(zip(tastes.starts.tolist(), tastes.sizes.tolist(), strict=True))
    assert [tastes.items[start : start + size].tolist() for start, size in spans] == [["b", "d"], ["a", "e", "f"]]
    assert tastes.liked.tolist() == [False, True, True, True, False]
    assert tastes.scores.tolist() == [[0.2, 0.4, 0.1, 0.5, 0.6], [-0.2, -0.4, -0.1, -0.5, -0.6]]


def test_an_item_that_a_variant_does_not_know_has_its_median_score_for_that_user() -> None:
    forgetful = ROWS.with_columns(score=pl.when(pl.col("item_id") != "a").then("score"))
    tastes = read_tastes({"old": ROWS, "new": forgetful})
    assert tastes.items.tolist() == ["b", "d", "g", "a", "e", "f"]
    assert tastes.scores[1].tolist() == [0.2, 0.4, 0.7, 0.55, 0.5, 0.6]
