# SPDX-License-Identifier: Apache-2.0
"""Bonferroni: p-values and levels change by the same factor."""

from __future__ import annotations

import math

import pytest

from thinkrec_trainer.analysis.correction import corrected_level, corrected_p_value


@pytest.mark.parametrize("comparisons", [1, 2, 7])
@pytest.mark.parametrize("p_value", [0.0, 0.004, 0.04, 0.3, 1.0])
def test_corrected_values_decide_as_corrected_levels_do(p_value: float, comparisons: int) -> None:
    corrected = corrected_p_value(p_value, comparisons)
    assert (corrected < 0.05) == (p_value < corrected_level(0.05, comparisons))
    assert corrected <= 1


def test_nan_stays() -> None:
    assert math.isnan(corrected_p_value(math.nan, 3))
