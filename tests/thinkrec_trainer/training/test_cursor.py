# SPDX-License-Identifier: Apache-2.0
"""Data order and randomness are functions of the seed and the place."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkrec_trainer.cursor import Cursor, Deck, derived_seed, sample_of


@given(size=st.integers(1, 30), epochs=st.integers(1, 3))
def test_an_epoch_meets_every_index_once(size: int, epochs: int) -> None:
    """Whatever the size of the draws."""
    deck = Deck("plain", 5, size)
    drawn = [index for _ in range(epochs * size) for index in deck.draw(1)]
    for epoch in range(epochs):
        assert sorted(drawn[epoch * size : (epoch + 1) * size]) == list(range(size))


def test_epochs_and_decks_have_orders_of_their_own() -> None:
    """A second epoch in the same order would show the same neighbours again."""
    deck, other = Deck("plain", 5, 50), Deck("traces", 5, 50)
    first, second = deck.draw(50), deck.draw(50)
    assert first != second
    assert first != other.draw(50)


@given(before=st.integers(0, 40), after=st.integers(1, 40))
def test_a_restored_cursor_goes_on_as_if_it_had_never_stopped(before: int, after: int) -> None:
    """Its state is a few integers that survive JSON."""
    straight, stopped = Cursor(9), Cursor(9)
    straight.deck("plain", 7).draw(before)
    stopped.deck("plain", 7).draw(before)
    straight.step = stopped.step = before
    resumed = Cursor.restore(**json.loads(json.dumps(stopped.state())))
    assert resumed.deck("plain", 7).draw(after) == straight.deck("plain", 7).draw(after)
    assert resumed.chance("trace") == straight.chance("trace")
    assert resumed.step_seed("dropout") == straight.step_seed("dropout")


def test_a_deck_must_not_change_its_size_within_a_run() -> None:
    """Other data under an old checkpoint would be a silent mixture."""
    cursor = Cursor(1)
    cursor.deck("plain", 4)
    with pytest.raises(ValueError, match="had 4 indices when the run began and has 5 now"):
        cursor.deck("plain", 5)


def test_an_empty_deck_is_refused() -> None:
    """Instead of a division by zero."""
    with pytest.raises(ValueError, match="deck 'traces' is empty"):
        Deck("traces", 1, 0).draw(1)


def test_purposes_and_steps_have_independent_numbers() -> None:
    """No two equal, and a share of steps near the asked one."""
    cursor = Cursor(3)
    hits = 0
    for step in range(1000):
        cursor.step = step
        hits += cursor.chance("trace") < 0.2
    assert 150 < hits < 250
    assert len({derived_seed(3, "a"), derived_seed(3, "b"), derived_seed(4, "a"), derived_seed(3, "a", 1)}) == 4


def test_a_sample_is_in_order_without_repeats_and_depends_on_its_name() -> None:
    """Twenty of a hundred."""
    chosen = sample_of(range(100), 20, seed=1, name="validation")
    assert len(set(chosen)) == 20
    assert chosen == sorted(chosen)
    assert chosen == sample_of(range(100), 20, seed=1, name="validation")
    assert chosen != sample_of(range(100), 20, seed=1, name="golden")
    assert sample_of(range(3), 20, seed=1, name="validation") == [0, 1, 2]
