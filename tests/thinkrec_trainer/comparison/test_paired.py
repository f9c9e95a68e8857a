# SPDX-License-Identifier: Apache-2.0
"""Paired differences and their p-values: right in known cases, and honest where there is no difference."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest

from thinkrec_crds.comparison import ComparisonReport, effect, measured
from thinkrec_crds.evaluation import Estimate
from thinkrec_crds.stages import CompareParameters
from thinkrec_trainer.compare import compared
from thinkrec_trainer.comparison.page import sentence
from thinkrec_trainer.comparison.paired import gaps, holm, measure
from thinkrec_trainer.comparison.rows import side_by_side
from thinkrec_trainer.errors import BadInput

USERS, ROWS = 60, 8


def scored(scores: np.ndarray, *, trained_on: np.ndarray | None = None) -> pl.DataFrame:
    """Return the table of one variant; every other row is liked, in an order of its own for each user."""
    count = USERS * ROWS
    liked = np.array([np.random.default_rng(user).permutation(ROWS) % 2 == 0 for user in range(USERS)]).ravel()
    return pl.DataFrame(
        {
            "user_index": np.repeat(np.arange(USERS, dtype=np.int32), ROWS),
            "user_id": [f"u{user:02}" for user in range(USERS) for _ in range(ROWS)],
            "item_id": [f"i{row}" for row in range(count)],
            "position": np.tile(np.arange(ROWS, dtype=np.int32), USERS),
            "liked": liked,
            "score": scores,
            "trained_on": np.zeros(count, dtype=bool) if trained_on is None else trained_on,
        }
    )


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=USERS * ROWS)


def knowing(seed: int, strength: float) -> np.ndarray:
    liked = scored(noise(0))["liked"].to_numpy()
    return noise(seed) + strength * liked


def test_a_better_variant_is_found_and_the_effect_is_the_difference_of_the_values() -> None:
    board = side_by_side({"old": scored(noise(1)), "new": scored(knowing(2, 1.5))})
    found = measure(board, ("UAUC", "NDCG@5"), samples=500, seed=3)
    first, _ = gaps(found, "old", ("UAUC", "NDCG@5"))
    assert first.interval.value == pytest.approx(found["new"]["UAUC"].value - found["old"]["UAUC"].value)
    assert first.interval.lower > 0
    assert first.p_value == pytest.approx(2 / 501)  # no draw favours the old one: the least that 500 draws can say


def test_a_variant_is_even_with_itself() -> None:
    table = scored(noise(1))
    (gap,) = gaps(measure(side_by_side({"a": table, "b": table}), ("UAUC",), samples=200, seed=0), "a", ("UAUC",))
    assert (gap.interval.value, gap.interval.lower, gap.interval.upper, gap.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_chance_is_called_significant_about_as_often_as_stated() -> None:
    """300 comparisons of variants that know nothing: 5 % within four standard errors."""
    values = []
    for seed in range(300):
        board = side_by_side({"a": scored(noise(2 * seed + 10)), "b": scored(noise(2 * seed + 11))})
        (gap,) = gaps(measure(board, ("UAUC",), samples=300, seed=seed), "a", ("UAUC",))
        values.append(gap.p_value)
    share = float(np.mean(np.array(values) < 0.05))
    assert abs(share - 0.05) < 4 * math.sqrt(0.05 * 0.95 / 300)


def test_pairing_sees_what_two_intervals_do_not() -> None:
    base = knowing(5, 0.8)
    better = base + 0.15 * scored(base)["liked"].to_numpy()
    board = side_by_side({"old": scored(base), "new": scored(better)})
    found = measure(board, ("UAUC",), samples=500, seed=1)
    (gap,) = gaps(found, "old", ("UAUC",))
    assert gap.p_value < 0.05
    assert found["new"]["UAUC"].interval().lower < found["old"]["UAUC"].interval().upper


@pytest.mark.parametrize(
    ("given", "corrected"),
    [
        ([0.01, 0.02, 0.03, 0.04, 0.05], [0.05, 0.08, 0.09, 0.09, 0.09]),  # as R's p.adjust(…, "holm")
        ([0.04, 0.01], [0.04, 0.02]),
        ([0.7, 0.9], [1.0, 1.0]),
        ([0.2], [0.2]),
    ],
)
def test_holm(given: list[float], corrected: list[float]) -> None:
    assert holm(given) == pytest.approx(corrected)


def test_holm_counts_a_test_that_told_nothing() -> None:
    assert holm([0.01, math.nan])[0] == pytest.approx(0.02)
    assert math.isnan(holm([0.01, math.nan])[1])


def test_rows_that_one_variant_learned_from_are_compared_by_none() -> None:
    learned = np.zeros(USERS * ROWS, dtype=bool)
    learned[:ROWS] = True  # all rows of the first user
    board = side_by_side({"old": scored(noise(1)), "new": scored(noise(2), trained_on=learned)})
    assert (board.user_count, len(board.liked), board.trained_on) == (USERS - 1, (USERS - 1) * ROWS, ROWS)


def test_nothing_to_compare_on_is_told_with_a_remedy() -> None:
    everything = np.ones(USERS * ROWS, dtype=bool)
    with pytest.raises(BadInput, match=r"all|each of the 480 test rows.*offline\.dataset"):
        side_by_side({"old": scored(noise(1)), "new": scored(noise(2), trained_on=everything)})


def test_variants_of_different_rows_are_not_compared() -> None:
    with pytest.raises(BadInput, match="'old' and 'new' did not score the same rows"):
        side_by_side({"old": scored(noise(1)), "new": scored(noise(2)).head(10)})


def test_items_that_a_variant_does_not_know_get_the_users_median() -> None:
    scores = np.arange(USERS * ROWS, dtype=np.float64)
    table = scored(scores).with_columns(score=pl.when(pl.col("position") == 0).then(None).otherwise(pl.col("score")))
    nobody = table.with_columns(score=pl.when(pl.col("user_id") == "u01").then(None).otherwise(pl.col("score")))
    board = side_by_side({"a": table, "b": nobody})
    assert board.unknown == {"a": USERS, "b": USERS + ROWS - 1}
    assert board.scores["a"][0] == np.median(scores[1:ROWS])
    assert set(board.scores["b"][ROWS : 2 * ROWS]) == {0.0}


def report(variants: int, metrics: tuple[str, ...]) -> ComparisonReport:
    names = tuple(f"a-rather-long-variant-name-{place}" for place in range(variants))
    tables = {name: scored(noise(place)) for place, name in enumerate(names)}
    given = CompareParameters(variants=names, control=names[0], metrics=metrics, bootstrap_samples=20)
    return compared(side_by_side(tables), given, seed=0)


def test_flat_numbers_say_everything_where_they_fit() -> None:
    found = report(2, ("UAUC", "NDCG@5"))
    numbers = found.numbers()
    told = effect(numbers, 1, "NDCG@5")
    difference = found.differences[1]
    assert told is not None
    assert told.value == pytest.approx(difference.effect.value, abs=1e-6)
    assert told.p_value == pytest.approx(difference.adjusted_p_value, abs=1e-6)
    assert effect(numbers, 0, "UAUC") is None
    value = measured(numbers, 0, "UAUC")
    assert value is not None
    assert value.lower is not None


@pytest.mark.parametrize(
    ("alone", "rows"),
    [
        (Estimate(users=0), "no user's rows define it"),
        (Estimate(users=6), "no user's rows define it"),  # AUC over rows that are all liked
        (Estimate(value=0.0, users=1), "only one user's rows define it"),
    ],
)
def test_a_metric_that_tells_nothing_says_why(alone: Estimate, rows: str) -> None:
    found = report(2, ("UAUC",))
    undefined = found.differences[0].model_copy(update={"effect": alone, "p_value": None, "adjusted_p_value": None})
    given = CompareParameters(variants=("old", "new"), control="old", metrics=("UAUC",), bootstrap_samples=20)
    told = sentence(undefined, given)
    assert told == f"a-rather-long-variant-name-1 cannot be compared with old on UAUC: {rows}."


def test_the_deciding_numbers_fit_at_the_largest_size() -> None:
    metrics = ("UAUC", *(f"NDCG@{k}" for k in range(1, 16)))
    found = report(8, metrics)
    numbers = found.numbers()
    assert sum(len(name) + len(repr(value)) + 4 for name, value in numbers.items()) <= 2800
    for place in range(1, 8):
        told = effect(numbers, place, "UAUC")
        assert told is not None
        assert None not in (told.lower, told.upper, told.p_value)
        assert measured(numbers, place, "UAUC") is not None
    told = {name.split("/")[1] for name in numbers}
    assert "ndcg@9" in told, "values of other metrics as far as there is room"
    assert "ndcg@15" not in told, "then this test does not test anything any more"


def test_undefined_numbers_are_absent() -> None:
    nothing = Estimate()
    found = report(2, ("UAUC",))
    result = found.variants[1].model_copy(update={"metrics": {"UAUC": nothing}})
    difference = found.differences[0].model_copy(update={"effect": nothing, "adjusted_p_value": None})
    update = {"variants": (found.variants[0], result), "differences": (difference,)}
    numbers = found.model_copy(update=update).numbers()
    assert measured(numbers, 1, "UAUC") is None
    assert effect(numbers, 1, "UAUC") is None
