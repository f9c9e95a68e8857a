# SPDX-License-Identifier: Apache-2.0
"""The bootstrap: fast multiplicity arithmetic equals drawing the rows, and its intervals mean what they say."""

from __future__ import annotations

import time

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from thinkrec_trainer.bootstrap import draw_users, sampled_auc, sampled_mean
from thinkrec_trainer.metrics import Rows, per_user_auc


def noisy_rows(user_count: int, rows_per_user: int, *, seed: int, signal: float = 1.0) -> Rows:
    generator = np.random.default_rng(seed)
    users = np.repeat(np.arange(user_count), rows_per_user)
    liked = generator.random(len(users)) < 0.55
    scores = np.round(signal * liked + generator.normal(size=len(users)) + generator.normal(size=user_count)[users], 1)
    return Rows.of(users, liked, scores, user_count=user_count)


def test_weighted_auc_equals_repeating_the_rows_of_drawn_users() -> None:
    rows = noisy_rows(12, 8, seed=1)
    draws = draw_users(12, samples=70, seed=2)
    replicates = sampled_auc(rows, draws).replicates
    for draw, value in zip(draws.astype(int), replicates, strict=True):
        times = draw[rows.users]
        expected = roc_auc_score(np.repeat(rows.liked, times), np.repeat(rows.scores, times))
        assert value == pytest.approx(expected, abs=1e-12)


def test_weighted_mean_equals_repeating_the_users() -> None:
    values = np.array([0.1, np.nan, 0.7, 0.4])
    draws = draw_users(4, samples=50, seed=3)
    replicates = sampled_mean(values, draws).replicates
    for draw, value in zip(draws.astype(int), replicates, strict=True):
        kept = np.repeat(values, draw)
        kept = kept[~np.isnan(kept)]
        if len(kept):
            assert value == pytest.approx(kept.mean(), abs=1e-12)
        else:
            assert np.isnan(value)


def test_draws_are_seeded_and_keep_the_number_of_users() -> None:
    first, again, other = (draw_users(9, samples=20, seed=seed) for seed in (5, 5, 6))
    assert (first == again).all()
    assert (first != other).any()
    assert (first.sum(axis=1) == 9).all()


def test_interval_covers_the_truth_about_as_often_as_promised() -> None:
    """The mean of 60 uniform values has truth 0.5; of 200 repetitions about 95 % must cover it."""
    covered = 0
    for seed in range(200):
        values = np.random.default_rng(seed).random(60)
        interval = sampled_mean(values, draw_users(60, samples=300, seed=seed)).interval()
        covered += interval.lower <= 0.5 <= interval.upper
    assert 0.90 <= covered / 200 <= 0.99


def test_paired_difference_is_narrower_than_the_two_intervals() -> None:
    """Two models that share their errors: each value is uncertain, their difference is not."""
    rows = noisy_rows(80, 10, seed=4)
    better = Rows(rows.users, rows.liked, rows.scores + 0.3 * rows.liked, rows.user_count)
    draws = draw_users(80, samples=400, seed=0)
    one, two = sampled_mean(per_user_auc(rows), draws), sampled_mean(per_user_auc(better), draws)
    difference, alone = two.minus(one), one.interval()
    assert difference.value == pytest.approx(two.value - one.value)
    assert 0 < difference.lower < difference.value < difference.upper
    assert difference.upper - difference.lower < alone.upper - alone.lower


def test_a_model_minus_itself_is_exactly_zero() -> None:
    rows = noisy_rows(20, 6, seed=8)
    sampled = sampled_auc(rows, draw_users(20, samples=100, seed=1))
    difference = sampled.minus(sampled)
    assert (difference.value, difference.lower, difference.upper) == (0.0, 0.0, 0.0)


def test_one_class_has_no_interval() -> None:
    rows = Rows.of([0, 1], [1, 1], [0.3, 0.2])
    interval = sampled_auc(rows, draw_users(2, samples=10, seed=0)).interval()
    assert np.isnan([interval.value, interval.lower, interval.upper]).all()


def test_one_user_has_a_value_but_no_interval() -> None:
    rows = Rows.of([0, 0, 0], [1, 0, 1], [0.3, 0.2, 0.1])
    draws = draw_users(1, samples=10, seed=0)
    for sampled in (sampled_auc(rows, draws), sampled_mean(per_user_auc(rows), draws)):
        interval = sampled.interval()
        assert (interval.value, interval.users) == (0.5, 1)
        assert np.isnan([interval.lower, interval.upper]).all()


def test_a_thousand_draws_of_a_thousand_users_take_seconds() -> None:
    rows = noisy_rows(1000, 20, seed=0)
    started = time.perf_counter()
    sampled_auc(rows, draw_users(1000, samples=1000, seed=0)).interval()
    assert time.perf_counter() - started < 20
