# SPDX-License-Identifier: Apache-2.0
"""Buckets: pinned for ever, exact shares of two variants, and what a change of weights may move among more."""

from __future__ import annotations

import hashlib
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare

from thinkrec_crds.buckets import BUCKETS, Weights, bucket_counts, bucket_of, bucket_table

UID = "6b0f8b6e-2f3c-4f9d-9a1e-0c2a2d9f1b11"
OTHER = "d1f2a3b4-0000-4000-8000-000000000001"


def weights(*percents: int) -> Weights:
    return tuple((name, percent) for name, percent in zip(("control", "a", "b", "c", "d"), percents, strict=False))


@st.composite
def percents(draw: st.DrawFn, count: int) -> Weights:
    """Weights of `count` variants that add up to 100, zeros among them."""
    cuts = sorted(draw(st.lists(st.integers(0, 100), min_size=count - 1, max_size=count - 1)))
    return weights(*(high - low for low, high in zip([0, *cuts], [*cuts, 100], strict=True)))


def total_variation(p: Weights, q: Weights) -> float:
    return sum(abs(a - b) for (_, a), (_, b) in zip(p, q, strict=True)) / 200


class TestPinned:
    """These values must never change: a running experiment would move its users at the next rollout."""

    def test_buckets(self) -> None:
        assert [bucket_of(UID, user) for user in ("1", "2", "42", "", "zoë", "a" * 256)] == GOLDEN_BUCKETS

    def test_the_table_of_two_variants_is_a_threshold(self) -> None:
        assert bucket_table(UID, weights(70, 30)) == b"\1" * 3000 + b"\0" * 7000

    def test_the_table_of_three_variants(self) -> None:
        table = bucket_table(UID, weights(50, 30, 20))
        assert hashlib.sha256(table).hexdigest()[:16] == GOLDEN_TABLE
        assert bucket_counts(UID, weights(50, 30, 20)) == GOLDEN_COUNTS


class TestTwoVariants:
    @given(percent=st.integers(0, 100))
    def test_shares_are_exact(self, percent: int) -> None:
        assert bucket_counts(UID, weights(100 - percent, percent)) == {
            "control": 100 * (100 - percent),
            "a": 100 * percent,
        }

    @given(low=st.integers(0, 100), high=st.integers(0, 100))
    def test_a_weight_that_rises_moves_exactly_the_added_share_and_only_to_that_variant(
        self, low: int, high: int
    ) -> None:
        low, high = min(low, high), max(low, high)
        before, after = (bucket_table(UID, weights(100 - percent, percent)) for percent in (low, high))
        moved = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
        assert moved == [(0, 1)] * (100 * (high - low))


class TestThreeAndMore:
    @settings(max_examples=40, derandomize=True, deadline=None)
    @given(count=st.integers(3, 5), data=st.data())
    def test_a_bucket_moves_only_to_a_variant_that_grew_against_the_one_it_leaves(
        self, count: int, data: st.DataObject
    ) -> None:
        p, q = data.draw(percents(count)), data.draw(percents(count))
        for old, new in set(zip(bucket_table(UID, p), bucket_table(UID, q), strict=True)):
            if old != new:
                assert q[new][1] * p[old][1] > p[new][1] * q[old][1], f"{p} -> {q}: {old} -> {new}"

    @settings(max_examples=40, derandomize=True, deadline=None)
    @given(count=st.integers(3, 5), data=st.data())
    def test_no_more_buckets_move_than_the_bound_of_correlated_sampling(self, count: int, data: st.DataObject) -> None:
        p, q = data.draw(percents(count)), data.draw(percents(count))
        tv = total_variation(p, q)
        moved = sum(old != new for old, new in zip(bucket_table(UID, p), bucket_table(UID, q), strict=True))
        assert moved / BUCKETS <= 2 * tv / (1 + tv) + 5 * math.sqrt(0.25 / BUCKETS)  # buckets are 10 000 draws

    def test_the_bound_is_reached_where_no_scheme_without_memory_does_better(self) -> None:
        """Halves on {control, a}, {a, b} and {control, b}: each pair agrees on a third of the buckets, not on half."""
        tables = [bucket_table(UID, weights(*w)) for w in ((50, 50, 0), (0, 50, 50), (50, 0, 50))]
        tables[0] = bucket_table(UID, (*weights(50, 50, 0), ("zero", 0)))  # three and more, not a threshold
        for one, other in ((0, 1), (1, 2), (0, 2)):
            agree = sum(a == b for a, b in zip(tables[one], tables[other], strict=True)) / BUCKETS
            assert agree == pytest.approx(1 / 3, abs=0.02)

    def test_the_actual_shares_are_near_the_weights_and_told_exactly(self) -> None:
        chosen = weights(40, 30, 20, 10)
        counts = bucket_counts(UID, chosen)
        table = bucket_table(UID, chosen)
        assert [counts[name] for name, _ in chosen] == [table.count(index) for index in range(4)]
        assert chisquare(list(counts.values()), [BUCKETS * weight / 100 for _, weight in chosen]).pvalue > 0.001

    def test_a_variant_without_weight_gets_nobody(self) -> None:
        assert bucket_counts(UID, weights(0, 60, 40))["control"] == 0

    def test_no_weight_at_all_is_refused(self) -> None:
        with pytest.raises(ValueError, match="no variant has a weight above 0"):
            bucket_table(UID, weights(0, 0, 0))


class TestUsers:
    @pytest.mark.parametrize("pattern", ["{}", "user-{:08d}", "https://shop.example/u/{}"])
    def test_users_spread_evenly_whatever_their_ids_look_like(self, pattern: str) -> None:
        buckets = np.array([bucket_of(UID, pattern.format(number)) for number in range(50_000)])
        assert chisquare(np.bincount(buckets // 100, minlength=100)).pvalue > 0.001

    def test_layers_on_the_same_users_are_independent(self) -> None:
        """Two experiments at 50/50 and three variants: a chi-square test of all pairs over 100 000 users."""
        users = [str(number) for number in range(100_000)]
        halves, thirds = weights(50, 50), weights(34, 33, 33)
        first = [bucket_table(UID, halves)[bucket_of(UID, user)] for user in users]
        second = [bucket_table(OTHER, thirds)[bucket_of(OTHER, user)] for user in users]
        table = np.zeros((2, 3))
        np.add.at(table, (first, second), 1)
        assert chi2_contingency(table).pvalue > 0.001

    def test_the_same_experiment_twice_would_fail_that_test(self) -> None:
        buckets = np.array([bucket_of(UID, str(number)) for number in range(2000)])
        table = np.zeros((2, 2))
        np.add.at(table, (buckets // 5000, buckets // 5000), 1)
        assert chi2_contingency(table).pvalue < 1e-9

    def test_uid_and_user_do_not_run_together(self) -> None:
        assert bucket_of("a", "bc") != bucket_of("ab", "c")

    def test_one_assignment_takes_microseconds(self) -> None:
        table = bucket_table(UID, weights(50, 30, 20))
        begun = time.perf_counter()
        for number in range(10_000):
            table[bucket_of(UID, str(number))]
        assert (time.perf_counter() - begun) / 10_000 < 20e-6


GOLDEN_BUCKETS = [816, 3804, 6528, 4000, 7638, 282]
GOLDEN_TABLE = "efbb5b6931363bcc"
GOLDEN_COUNTS = {"control": 5001, "a": 2980, "b": 2019}
