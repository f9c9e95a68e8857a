# SPDX-License-Identifier: Apache-2.0
"""Random numbers that depend on their place and on nothing else."""

from __future__ import annotations

import numpy as np

from thinkrec_trainer.simulation.draws import Draws, words


def test_words_are_those_of_splitmix64() -> None:
    """The first outputs of the published generator with seed 0."""
    assert [hex(word) for word in words(0, np.arange(3)).tolist()] == [
        "0xe220a8397b1dcdaf",
        "0x6e789e6aa1b965f4",
        "0x6c45d188009454f",
    ]


def test_a_number_does_not_depend_on_which_others_are_drawn() -> None:
    draws, persons = Draws(5), np.arange(100)
    visits = persons % 3
    whole = draws.uniform("attention", persons, visits)
    np.testing.assert_array_equal(draws.uniform("attention", persons[40:][::-1], visits[40:][::-1]), whole[40:][::-1])


def test_purposes_seeds_and_counters_are_independent() -> None:
    persons = np.arange(20_000)
    one = Draws(5).uniform("attention", persons, np.zeros_like(persons))
    others = [
        Draws(5).uniform("reaction", persons, np.zeros_like(persons)),
        Draws(6).uniform("attention", persons, np.zeros_like(persons)),
        Draws(5).uniform("attention", persons, np.ones_like(persons)),
        Draws(5).uniform("attention", persons + 1, np.zeros_like(persons)),
        Draws(5).uniform("attention", np.zeros_like(persons), persons),
    ]
    assert [abs(np.corrcoef(one, other)[0, 1]) < 0.03 for other in others] == [True] * 5


def test_numbers_are_uniform() -> None:
    draws, persons = Draws(0), np.arange(100_000)
    tenths = np.bincount((10 * draws.uniform("taste", persons)).astype(int), minlength=10)
    assert len(tenths) == 10
    assert np.abs(tenths - 10_000).max() < 400  # more than four standard deviations
    dice = np.bincount(draws.below(np.full_like(persons, 3), "visits", persons), minlength=3)
    assert len(dice) == 3
    assert np.abs(dice - 100_000 / 3).max() < 600
