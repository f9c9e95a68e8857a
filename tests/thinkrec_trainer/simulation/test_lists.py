# SPDX-License-Identifier: Apache-2.0
"""Candidates are a random half of the visitor's taste, and lists are what sorting them by score gives."""

from __future__ import annotations

import numpy as np

from thinkrec_trainer.simulation.draws import Draws
from thinkrec_trainer.simulation.lists import NOTHING, SHOWN, candidates_of, lists_of
from thinkrec_trainer.simulation.people import Visits
from thinkrec_trainer.simulation.tastes import Tastes

SIZES = np.array([1, 2, 5, 12, 40])
TASTES = Tastes(
    users=np.array([f"u{user}" for user in range(len(SIZES))], dtype=object),
    items=np.array([f"i{row}" for row in range(SIZES.sum())], dtype=object),
    liked=np.zeros(SIZES.sum(), dtype=bool),
    scores=np.random.default_rng(0).integers(0, 6, (2, SIZES.sum())).astype(np.float64),
    starts=np.cumsum(SIZES) - SIZES,
    sizes=SIZES,
)
PERSONS = np.repeat(np.arange(200), 2)
VISITS = Visits(PERSONS, PERSONS, np.tile([0, 1], 200), np.zeros(400, dtype=np.int64))
CANDIDATES = candidates_of(VISITS, TASTES, Draws(1))


def rows_at(visit: int) -> list[int]:
    found: list[int] = CANDIDATES.rows[CANDIDATES.visits == visit].tolist()
    return found


def test_candidates_are_half_of_one_taste_which_is_the_persons_own() -> None:
    owner = np.repeat(np.arange(len(SIZES)), SIZES)
    tastes = [set(owner[rows_at(visit)].tolist()) for visit in range(400)]
    assert {len(taste) for taste in tastes} == {1}
    assert all(first == second for first, second in zip(tastes[::2], tastes[1::2], strict=True))
    assert {next(iter(taste)) for taste in tastes} == set(range(len(SIZES))), "every taste is somebody's"
    for visit, (taste,) in enumerate(tastes):
        assert len(set(rows_at(visit))) == len(rows_at(visit)) == (SIZES[taste] + 1) // 2


def test_visits_of_a_person_differ_and_every_row_has_its_turn() -> None:
    large = [visit for visit in range(0, 400, 2) if len(rows_at(visit)) == 20]
    assert all(set(rows_at(visit)) != set(rows_at(visit + 1)) for visit in large)
    assert set(CANDIDATES.rows.tolist()) == set(range(SIZES.sum()))


def test_lists_are_the_candidates_sorted_by_score() -> None:
    """Scores have many ties, which stay in the candidates' order whatever the variant."""
    for scores in TASTES.scores:
        found = lists_of(CANDIDATES, scores[CANDIDATES.rows])
        for visit in range(400):
            wanted = sorted(rows_at(visit), key=lambda row: -scores[row])[:SHOWN]
            assert found[visit].tolist() == wanted + [NOTHING] * (SHOWN - len(wanted))


def test_a_variant_that_knows_nothing_shows_no_row_more_often_than_another() -> None:
    persons = np.arange(8000)
    visits = Visits(persons, persons, np.zeros_like(persons), persons)
    one = Tastes(
        TASTES.users[:1], TASTES.items[:12], TASTES.liked[:12], np.zeros((1, 12)), np.array([0]), np.array([12])
    )
    candidates = candidates_of(visits, one, Draws(2))
    first = lists_of(candidates, np.zeros(len(candidates.rows)))[:, 0]
    assert np.abs(np.bincount(first, minlength=12) - 8000 / 12).max() < 130  # five standard deviations
