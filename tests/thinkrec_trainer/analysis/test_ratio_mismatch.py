# SPDX-License-Identifier: Apache-2.0
"""Sample-ratio mismatch: scipy's chi-square, and what it means when a variant has nobody."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from thinkrec_trainer.analysis.ratio_mismatch import mismatch


def test_it_is_scipys_chi_square_against_the_shares_in_force() -> None:
    found = mismatch({"a": 880, "b": 120}, {"a": 90, "b": 10})
    assert found.p_value == pytest.approx(stats.chisquare([880, 120], [900, 100]).pvalue)
    assert not found.void
    assert mismatch({"a": 860, "b": 140}, {"a": 90, "b": 10}).void


def test_a_loss_of_one_percent_of_a_million_users_is_found() -> None:
    assert mismatch({"a": 500_000, "b": 495_000}, {"a": 50, "b": 50}).void
    assert not mismatch({"a": 5_000, "b": 4_950}, {"a": 50, "b": 50}).void


def test_an_empty_variant_is_a_mismatch() -> None:
    assert mismatch({"a": 1000, "b": 0}, {"a": 1, "b": 1}).void


def test_users_where_none_may_be_are_a_mismatch_and_none_is_none() -> None:
    assert mismatch({"a": 1000, "b": 990, "c": 1}, {"a": 50, "b": 50, "c": 0}).void
    assert not mismatch({"a": 1000, "b": 990, "c": 0}, {"a": 50, "b": 50, "c": 0}).void


@pytest.mark.parametrize("users", [{"a": 0, "b": 0}, {"a": 7, "b": 0}])
def test_too_few_users_tell_nothing(users: dict[str, int]) -> None:
    found = mismatch(users, {"a": 1, "b": 1})
    assert math.isnan(found.p_value)
    assert not found.void


def test_shares_must_be_told() -> None:
    with pytest.raises(ValueError, match="no expected share for b"):
        mismatch({"a": 1, "b": 2}, {"a": 1})
    with pytest.raises(ValueError, match="above 0"):
        mismatch({"a": 1}, {"a": 0})


def test_false_alarms_are_as_rare_as_stated() -> None:
    arrived = np.random.default_rng(0).binomial(20_000, 0.3, size=3000)
    alarms = sum(mismatch({"a": int(n), "b": 20_000 - int(n)}, {"a": 3, "b": 7}).void for n in arrived)
    assert stats.binom.sf(alarms - 1, 3000, 0.001) > 0.001
