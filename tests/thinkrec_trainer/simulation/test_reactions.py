# SPDX-License-Identifier: Apache-2.0
"""Where visitors look, and how often something happens."""

from __future__ import annotations

import numpy as np
import pytest

from thinkrec_crds.analysis_spec import EventMetric
from thinkrec_trainer.metrics.rows import Ints
from thinkrec_trainer.simulation.draws import Draws
from thinkrec_trainer.simulation.lists import NOTHING
from thinkrec_trainer.simulation.people import Visits
from thinkrec_trainer.simulation.reactions import Happening, Reactions, happenings_of, looked_at, reactions_of

COUNT, SPAN = 20_000, 3_600_000_000
PERSONS = np.arange(COUNT)
VISITS = Visits(PERSONS, PERSONS, np.zeros_like(PERSONS), PERSONS * (SPAN // COUNT))
LIKED = np.array([True, False])
LIKE = Happening("Like", always=False, value=None)
VIEW = Happening("View", always=True, value=None)


def react(happening: Happening, seen: Ints, visits: Visits = VISITS, span: int = SPAN) -> Reactions:
    (found,) = reactions_of([happening], visits, seen, LIKED, span=span, draws=Draws(4))
    return found


def test_visitors_look_at_the_first_places_most_and_at_the_last_one_of_a_short_list() -> None:
    shown = np.tile([10, 11, 12], (COUNT, 1))
    places = np.bincount(looked_at(shown, VISITS, Draws(4)) - 10, minlength=3) / COUNT
    assert places.tolist() == pytest.approx([0.6, 0.25, 0.15], abs=0.015)
    short = np.tile([10, 11, NOTHING], (COUNT, 1))
    assert np.mean(looked_at(short, VISITS, Draws(4)) == 11) == pytest.approx(0.4, abs=0.015)
    assert set(looked_at(np.tile([10, NOTHING, NOTHING], (COUNT, 1)), VISITS, Draws(4)).tolist()) == {10}


def test_what_is_liked_gets_four_in_five_and_what_is_not_one_in_twenty() -> None:
    liked, disliked = react(LIKE, np.zeros(COUNT, dtype=int)), react(LIKE, np.ones(COUNT, dtype=int))
    assert len(liked.visits) / COUNT == pytest.approx(0.8, abs=0.012)
    assert len(disliked.visits) / COUNT == pytest.approx(0.05, abs=0.007)
    assert set(disliked.visits.tolist()) < set(liked.visits.tolist()), "one draw decides either way"
    assert set(liked.rows.tolist()) == {0}


def test_what_a_ratio_divides_by_happens_at_every_visit_before_anything_else() -> None:
    seen = PERSONS % 2
    views, likes = react(VIEW, seen), react(LIKE, seen)
    assert views.visits.tolist() == PERSONS.tolist()
    assert views.rows.tolist() == seen.tolist()
    assert (views.moments[likes.visits] <= likes.moments).all()


def test_events_follow_the_visit_and_come_before_the_end_even_of_the_last_moment() -> None:
    late = Visits(PERSONS, PERSONS, np.zeros_like(PERSONS), SPAN - 2 - PERSONS % 50)
    found = react(LIKE, np.zeros(COUNT, dtype=int), late)
    assert (found.moments > late.moments[found.visits]).all()
    assert found.moments.max() == SPAN - 1
    delays = (early := react(LIKE, np.zeros(COUNT, dtype=int))).moments - VISITS.moments[early.visits]
    assert 55_000_000 < delays.max() <= 60_000_000


def test_names_are_independent_of_each_other() -> None:
    like, buy = (react(Happening(name, always=False, value=None), PERSONS * 0) for name in ("Like", "Buy"))
    both = len(np.intersect1d(like.visits, buy.visits)) / COUNT
    assert both == pytest.approx(0.64, abs=0.015)


def test_a_name_happens_once_however_many_metrics_count_it() -> None:
    metrics = (
        EventMetric(name="Like"),
        EventMetric(type="Mean", name="Like", cap="5"),
        EventMetric(type="Ratio", name="Buy", denominator="Click"),
        EventMetric(name="Click"),
    )
    assert happenings_of(metrics) == (
        Happening("Like", always=False, value=1.0),
        Happening("Buy", always=False, value=None),
        Happening("Click", always=True, value=None),
    )
