# SPDX-License-Identifier: Apache-2.0
"""Sums of shards are the sums of all users, exactly enough for any number of users and any scale."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from thinkrec_trainer.analysis.estimates import estimate
from thinkrec_trainer.analysis.sums import Floats, Kind, Sums, no_users, sums_of, total

KINDS: tuple[Kind, ...] = ("Conversion", "Mean", "Ratio")
NUMBERS = st.floats(-1e6, 1e6, allow_subnormal=False)


def exact_scatter(values: Floats) -> float:
    """The sum of squared deviations in rational arithmetic."""
    exact = [Fraction(float(value)) for value in values]
    mean = sum(exact, Fraction(0)) / len(exact)
    return float(sum(((value - mean) ** 2 for value in exact), Fraction(0)))


def assert_same(left: Sums, right: Sums, *, scale: float) -> None:
    assert (left.kind, left.users) == (right.kind, right.users)
    np.testing.assert_allclose(left.mean, right.mean, rtol=0, atol=1e-13 * scale)
    np.testing.assert_allclose(left.scatter, right.scatter, rtol=1e-9, atol=1e-12 * scale**2 * max(1, left.users))


@settings(max_examples=150, deadline=None)
@given(st.data(), st.integers(0, 12), st.integers(0, 12), st.integers(0, 12))
def test_shards_add_up_to_one_pass_in_any_order_and_grouping(
    data: st.DataObject, first: int, second: int, third: int
) -> None:
    values = data.draw(st_numpy.arrays(np.float64, (first + second + third, 2), elements=NUMBERS))
    history = data.draw(st_numpy.arrays(np.float64, (len(values), 2), elements=NUMBERS | st.just(float("nan"))))
    cuts = [slice(0, first), slice(first, first + second), slice(first + second, None)]
    a, b, c = (sums_of("Ratio", values[cut], history[cut]) for cut in cuts)
    whole, scale = sums_of("Ratio", values, history), max(1.0, float(np.abs(np.nan_to_num(values)).max(initial=0)), 1e6)
    for merged in (total([a, b, c]), a.merged(b.merged(c)), c.merged(a).merged(b)):
        assert_same(merged, whole, scale=scale)
    assert (a.merged(b).mean == b.merged(a).mean).all()
    assert (a.merged(b).scatter == b.merged(a).scatter).all()


def test_users_without_an_entry_change_nothing() -> None:
    some = sums_of("Mean", np.array([0.1, 0.7]), np.array([1.0, 2.0]))
    for merged in (some.merged(no_users("Mean", history=1)), some.of_nobody().merged(some)):
        assert merged is some


@pytest.mark.parametrize("shards", [1, 1000])
def test_a_mean_that_is_large_against_the_spread_keeps_its_digits(shards: int) -> None:
    values = 1e9 + np.random.default_rng(0).normal(size=5000)
    found = total(sums_of("Mean", part) for part in np.array_split(values, shards)).scatter[0, 0]
    exact = exact_scatter(values)
    assert found == pytest.approx(exact, rel=1e-6)
    raw = float((values**2).sum() - values.sum() ** 2 / len(values))
    assert raw != pytest.approx(exact, rel=0.1), "raw squares would have done, too: the test shows nothing"


def test_a_hundred_million_users_are_counted_without_loss() -> None:
    """A shard of 2**20 users, doubled: 96 such shards have its mean and 96 times its scatter."""
    shard = sums_of("Mean", 1e4 + np.random.default_rng(1).normal(size=2**20))
    whole = total([shard] * 96)
    assert whole.users == 96 * 2**20 > 100_000_000
    assert whole.mean[0] == pytest.approx(shard.mean[0], rel=1e-14)
    assert whole.scatter[0, 0] == pytest.approx(96 * shard.scatter[0, 0], rel=1e-12)


@settings(max_examples=100, deadline=None)
@given(st.floats(1e-9, 1e9), st.lists(st.integers(1, 1000), min_size=2, max_size=9))
def test_values_that_are_all_alike_have_no_variance_at_all(value: float, sizes: list[int]) -> None:
    whole = total(sums_of("Mean", np.full(size, value)) for size in [*sizes, 3])
    assert whole.scatter[0, 0] == 0
    assert estimate(whole).spread == 0


def test_unknown_users_are_counted_as_unknown() -> None:
    found = sums_of("Mean", np.array([1.0, 2, 3, 4]), np.array([5.0, np.nan, 7, np.nan]))
    assert (found.users, found.known_users) == (4, 2)
    np.testing.assert_allclose(found.mean, [2.5, 0.5, 3.0])
    assert sums_of("Mean", np.ones(3)).known_users == 0


@pytest.mark.parametrize("kind", KINDS)
def test_nobody(kind: Kind) -> None:
    for empty in (no_users(kind), sums_of(kind, np.zeros((0, 2 if kind == "Ratio" else 1)))):
        assert empty.users == 0
        assert np.isnan(estimate(empty).value)
        assert empty.mean.shape == (empty.outcomes,)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        ("Mean", [1.0, float("nan")], "finite"),
        ("Mean", [1.0, float("inf")], "finite"),
        ("Conversion", [0.0, 1.0, 2.0], "0 or 1"),
        ("Ratio", [1.0, 2.0], "2 values per user, not 1"),
        ("Mean", [[1.0, 2.0]], "1 values per user, not 2"),
    ],
)
def test_values_that_cannot_be(kind: Kind, values: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sums_of(kind, np.array(values))


def test_sums_of_different_metrics_do_not_add_up() -> None:
    with pytest.raises(ValueError, match="of one metric"):
        no_users("Mean").merged(no_users("Conversion"))
    with pytest.raises(ValueError, match="of one metric"):
        no_users("Mean").merged(no_users("Mean", history=1))
