# SPDX-License-Identifier: Apache-2.0
"""Ranking metrics against values worked out by hand, brute force and scikit-learn."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score, roc_auc_score

from thinkrec_trainer.metrics import Rows, auc, average_precision, mean_over_users, ndcg, per_user_auc


def one_user(liked: list[int], scores: list[float]) -> Rows:
    return Rows.of([0] * len(liked), liked, scores)


@pytest.mark.parametrize(
    ("liked", "scores", "expected"),
    [
        ([1, 0], [2.0, 1.0], 1.0),
        ([1, 0], [1.0, 2.0], 0.0),
        ([1, 0], [1.0, 1.0], 0.5),
        ([1, 0, 1, 0], [4.0, 3.0, 2.0, 1.0], 0.75),
        ([1, 0, 0], [1.0, 1.0, 0.0], 0.75),
    ],
)
def test_auc_by_hand(liked: list[int], scores: list[float], expected: float) -> None:
    assert auc(one_user(liked, scores)) == expected


@pytest.mark.parametrize("liked", [[1, 1, 1], [0, 0], [1], []])
def test_auc_of_one_class_is_undefined(liked: list[int]) -> None:
    assert math.isnan(auc(one_user(liked, [float(i) for i in range(len(liked))])))


def test_uauc_counts_only_users_with_both_classes() -> None:
    rows = Rows.of([0, 0, 1, 1, 2, 4, 4], [1, 0, 1, 1, 0, 0, 1], [2, 1, 9, 8, 7, 5, 3], user_count=6)
    values = per_user_auc(rows)
    np.testing.assert_array_equal(values, [1.0, np.nan, np.nan, np.nan, 0.0, np.nan])
    mean = mean_over_users(values)
    assert (mean.value, mean.users) == (0.5, 2)


def test_uauc_ignores_what_auc_sees_between_users() -> None:
    """Two users in perfect order, but the second one's scores lie far below: AUC suffers, UAUC does not."""
    rows = Rows.of([0, 0, 1, 1], [1, 0, 1, 0], [4.0, 3.0, 2.0, 1.0])
    assert mean_over_users(per_user_auc(rows)).value == 1.0
    assert auc(rows) == 0.75


@pytest.mark.parametrize(
    ("liked", "expected"),
    [
        ([1, 0, 0], 1.0),
        ([0, 1, 0], 1 / math.log2(3)),
        ([0, 1, 1], (1 / math.log2(3) + 0.5) / (1 + 1 / math.log2(3))),
        ([0, 0, 0, 0, 0, 1], 0.0),
        ([1, 1, 1, 1, 1, 1, 0], 1.0),
    ],
)
def test_ndcg_by_hand(liked: list[int], expected: float) -> None:
    values = ndcg(one_user(liked, [-float(i) for i in range(len(liked))]))
    assert values[0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("liked", "official", "capped"),
    [
        ([1, 0, 1, 0], (1 + 2 / 3) / 2, (1 + 2 / 3) / 2),
        ([0, 1, 0], 0.5, 0.5),
        ([1, 1, 1, 1, 1, 1, 1, 1, 1, 1], 5 / 10, 1.0),
        ([0, 0, 0, 0, 0, 1], 0.0, 0.0),
        ([0, 1, 1, 0, 1, 1, 1], (1 / 2 + 2 / 3 + 3 / 5) / 5, (1 / 2 + 2 / 3 + 3 / 5) / 5),
    ],
)
def test_average_precision_by_hand(liked: list[int], official: float, capped: float) -> None:
    rows = one_user(liked, [-float(i) for i in range(len(liked))])
    assert average_precision(rows)[0] == pytest.approx(official, abs=1e-12)
    assert average_precision(rows, denominator="Capped")[0] == pytest.approx(capped, abs=1e-12)


@pytest.mark.parametrize("liked", [[1], [0]])
def test_one_row_is_undefined(liked: list[int]) -> None:
    rows = one_user(liked, [1.0])
    for values in (ndcg(rows), average_precision(rows), average_precision(rows, denominator="Capped")):
        assert np.isnan(values).all()


def test_a_user_without_likes_counts_as_zero_except_in_the_usual_definition() -> None:
    rows = one_user([0, 0, 0], [3.0, 2.0, 1.0])
    assert ndcg(rows).tolist() == [0.0]
    assert average_precision(rows).tolist() == [0.0]
    assert np.isnan(average_precision(rows, denominator="Capped")).all()


def brute_force_over_ties(liked: list[int], scores: list[float], k: int) -> float:
    """Mean AP@k over every order that the scores allow."""
    values = []
    for order in itertools.permutations(range(len(liked))):
        if any(scores[a] < scores[b] for a, b in itertools.pairwise(order)):
            continue
        hits, total = 0, 0.0
        for rank, row in enumerate(order[:k], start=1):
            hits += liked[row]
            total += liked[row] * hits / rank
        values.append(total / sum(liked))
    return float(np.mean(values))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2)), min_size=2, max_size=6))
def test_average_precision_is_the_mean_over_orders_of_tied_rows(rows: list[tuple[bool, int]]) -> None:
    liked, scores = [int(y) for y, _ in rows], [float(s) for _, s in rows]
    value = average_precision(one_user(liked, scores), k=4)[0]
    if sum(liked) == 0:
        assert value == 0.0
    else:
        assert value == pytest.approx(brute_force_over_ties(liked, scores, 4), abs=1e-12)


many_rows = st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.integers(-3, 3)), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None)
@given(many_rows)
def test_agrees_with_scikit_learn_user_by_user(table: list[tuple[int, bool, int]]) -> None:
    rows = Rows.of([u for u, _, _ in table], [y for _, y, _ in table], [s for _, _, s in table], user_count=5)
    aucs, gains = per_user_auc(rows), ndcg(rows)
    for user in range(5):
        mine = rows.users == user
        liked, scores = rows.liked[mine], rows.scores[mine]
        if 0 < liked.sum() < len(liked):
            assert aucs[user] == pytest.approx(roc_auc_score(liked, scores), abs=1e-12)
        else:
            assert math.isnan(aucs[user])
        if len(liked) > 1:
            assert gains[user] == pytest.approx(ndcg_score([liked.astype(float)], [scores], k=5), abs=1e-12)
        else:
            assert math.isnan(gains[user])


@settings(max_examples=30, deadline=None)
@given(many_rows, st.randoms(use_true_random=False))
def test_no_metric_depends_on_the_order_of_rows(
    table: list[tuple[int, bool, int]], random: np.random.Generator
) -> None:
    shuffled = list(table)
    random.shuffle(shuffled)
    first, second = (
        Rows.of([u for u, _, _ in t], [y for _, y, _ in t], [s for _, _, s in t], user_count=5)
        for t in (table, shuffled)
    )
    for metric in (per_user_auc, ndcg, average_precision):
        np.testing.assert_allclose(metric(first), metric(second), atol=1e-12)


@pytest.mark.parametrize(
    ("users", "liked", "scores", "message"),
    [
        ([0, 1], [1], [1.0, 2.0], "one length"),
        ([0], [1], [math.nan], "1 of 1 scores are NaN"),
        ([0, 7], [1, 0], [1.0, 2.0], r"0\.\.2, got 0\.\.7"),
        ([-1], [1], [1.0], "users must lie"),
    ],
)
def test_bad_rows_are_refused(users: list[int], liked: list[int], scores: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rows.of(users, liked, scores, user_count=3)
