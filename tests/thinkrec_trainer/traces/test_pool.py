# SPDX-License-Identifier: Apache-2.0
"""Which training samples count as wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkrec_trainer.timelines import Timelines
from thinkrec_trainer.traces.pool import Sample, matched_threshold, pool_blocks, samples_of, wrong_samples


def timelines(*lengths: int) -> Timelines:
    """Users with these many train rows; row p of user u is item 100 u + p."""
    offsets = np.cumsum([0, *lengths])
    items = np.concatenate([100 * user + np.arange(length) for user, length in enumerate(lengths)])
    return Timelines(offsets, items, items % 2 == 0, np.array(lengths))


def sample(number: int, liked: bool) -> Sample:
    """A sample that is only told apart."""
    return Sample(0, number, number, 0, liked)


def test_a_model_that_says_yes_to_all_is_wrong_in_both_classes() -> None:
    """All raw scores are positive; the order decides: one like below one dislike makes one error of each kind."""
    labels = [True, True, False, False]
    found = wrong_samples([sample(n, label) for n, label in enumerate(labels)], [9.0, 3.0, 5.0, 1.0])
    assert [wrong.item_index for wrong in found] == [1, 2]


def test_a_perfect_order_has_nothing_wrong() -> None:
    """However biased the scores are."""
    assert wrong_samples([sample(0, True), sample(1, False)], [-7.0, -8.0]) == []


def test_a_pool_of_one_class_is_all_right() -> None:
    """With every label true, everything is called liked."""
    assert wrong_samples([sample(0, True), sample(1, True)], [-7.0, 8.0]) == []


@given(st.lists(st.tuples(st.floats(-50, 50), st.booleans()), min_size=1, max_size=40, unique_by=lambda pair: pair[0]))
def test_as_many_are_called_liked_as_are_liked(pairs: list[tuple[float, bool]]) -> None:
    """So false likes and missed likes are equally many."""
    scores, labels = [score for score, _ in pairs], [label for _, label in pairs]
    threshold = matched_threshold(scores, labels)
    assert sum(score > threshold for score in scores) == sum(labels)


@pytest.mark.parametrize("size", [1, 7, 20])
def test_the_pool_has_the_asked_size_and_comes_from_train_rows(size: int) -> None:
    """And the same seed draws the same pool."""
    made = timelines(30, 12, 2)
    drawn = samples_of(pool_blocks(made, size=size, history_length=4, seed=1))
    assert len(drawn) == size
    assert len(set(drawn)) == size
    assert drawn == samples_of(pool_blocks(made, size=size, history_length=4, seed=1))
    assert all(entry.history_end <= entry.position < made.train_rows[entry.user_index] for entry in drawn)
    assert all(entry.item_index == 100 * entry.user_index + entry.position for entry in drawn)


def test_a_small_data_set_gives_a_small_pool() -> None:
    """Two users of four rows have two targets each beside their history."""
    assert len(samples_of(pool_blocks(timelines(4, 4), size=100, history_length=10, seed=0))) == 4
