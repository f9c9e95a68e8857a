# SPDX-License-Identifier: Apache-2.0
"""Caps bound what one user weighs."""

from __future__ import annotations

import numpy as np
import pytest

from thinkrec_trainer.analysis.winsorize import capped, capped_ratio, limit_at


def test_a_bot_weighs_no_more_than_the_limit() -> None:
    np.testing.assert_array_equal(capped(np.array([3.0, 1e6, -1e6, 0.0]), 50.0), [3.0, 50.0, -50.0, 0.0])


def test_a_ratio_keeps_each_users_own_ratio() -> None:
    numerators, denominators = capped_ratio(np.array([5.0, 800.0, 0.0]), np.array([10.0, 1000.0, 0.0]), 100.0)
    np.testing.assert_allclose(denominators, [10.0, 100.0, 0.0])
    np.testing.assert_allclose(numerators, [5.0, 80.0, 0.0])


def test_the_limit_is_a_quantile() -> None:
    assert limit_at(np.arange(101.0), 0.99) == 99.0
    assert limit_at(np.zeros(0), 0.99) == float("inf")
    with pytest.raises(ValueError, match="quantile"):
        limit_at(np.ones(3), 99.0)
