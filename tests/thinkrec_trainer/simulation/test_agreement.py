# SPDX-License-Identifier: Apache-2.0
"""Lists are compared as the gateway compares them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from thinkrec_inference.gateway.mirroring import compare
from thinkrec_trainer.metrics.rows import Floats, Ints
from thinkrec_trainer.simulation.agreement import agreement
from thinkrec_trainer.simulation.lists import NOTHING

ITEMS, LISTS, PLACES = 7, 400, 5


def some_lists(rng: np.random.Generator) -> Ints:
    """Return lists of 0 to 5 out of 7 items: some have nothing in common, some one item, some all."""
    order = rng.permuted(np.tile(np.arange(ITEMS), (LISTS, 1)), axis=1)[:, :PLACES]
    lengths = rng.integers(0, PLACES + 1, LISTS)
    return np.where(np.arange(PLACES) < lengths[:, None], order, NOTHING)


def ranking(rows: Ints, scores: Floats) -> list[tuple[str, float]]:
    return [(str(row), float(scores[row])) for row in rows if row != NOTHING]


def test_all_at_once_is_what_the_gateway_finds_one_by_one() -> None:
    rng = np.random.default_rng(3)
    control, other = some_lists(rng), some_lists(rng)
    ours, theirs = rng.normal(size=ITEMS), rng.normal(size=ITEMS)
    found = agreement(control, other, ours, theirs)
    kinds = set()
    for place in range(LISTS):
        wanted = compare(ranking(control[place], ours), ranking(other[place], theirs))
        expected = (wanted.overlap, wanted.rank_correlation, wanted.score_shift)
        told = (found.overlap[place], found.rank_correlation[place], found.score_shift[place])
        assert [None if math.isnan(value) else value for value in told] == pytest.approx(expected)
        assert found.items[place] == (control[place] != NOTHING).sum()
        kinds.add(tuple(value is None for value in expected))
    assert len(kinds) == 4, "all known, no correlation, no shift, and nothing at all"
