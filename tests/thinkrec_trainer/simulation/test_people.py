# SPDX-License-Identifier: Apache-2.0
"""Persons come one to three times, the later ones in order, and never too late for a reaction."""

from __future__ import annotations

import numpy as np
import pytest

from thinkrec_trainer.simulation.draws import Draws
from thinkrec_trainer.simulation.people import People, Visits, visits_of

COUNT = 20_000
NUMBERS = np.arange(COUNT)
PEOPLE = People(NUMBERS, NUMBERS.astype(object), NUMBERS * 0, NUMBERS * 0)


def visits_in(span: int) -> Visits:
    return visits_of(PEOPLE, span, Draws(9))


@pytest.mark.parametrize("span", [2, 3, 50, 3_600_000_000])
def test_two_microseconds_are_left_after_every_visit(span: int) -> None:
    moments = visits_in(span).moments
    assert moments.min() >= 0
    assert moments.max() <= span - 2
    assert span > 50 or set(moments.tolist()) == set(range(span - 1)), "and every earlier moment is somebody's"


def test_a_third_comes_once_a_third_twice_and_a_third_three_times() -> None:
    counts = np.bincount(visits_in(1_000_000).persons)
    assert np.bincount(counts).tolist() == pytest.approx([0, *3 * [COUNT / 3]], abs=350)  # five standard deviations


def test_first_visits_are_spread_evenly_and_later_ones_follow() -> None:
    visits = visits_in(1_000_000)
    first = visits.moments[visits.ordinals == 0]
    assert np.abs(np.histogram(first, bins=10, range=(0, 1_000_000))[0] - COUNT / 10).max() < 220
    follows = np.flatnonzero(visits.ordinals > 0)
    assert (visits.moments[follows] >= visits.moments[follows - 1]).all()
    assert (visits.persons[follows] == visits.persons[follows - 1]).all()
