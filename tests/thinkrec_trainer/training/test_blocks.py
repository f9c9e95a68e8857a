# SPDX-License-Identifier: Apache-2.0
"""Which history a target sees, and how a block is laid out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkrec_inference.engine.tokens import Encoded, Slot
from thinkrec_trainer.blocks import Answer, Row, Target, block_starts, make_block, pack, user_blocks


def timeline(length: int) -> list[Row]:
    """A timeline whose item index is its position, so that a history says where it came from."""
    return [Row(position, position % 3 == 0) for position in range(length)]


def test_full_blocks_and_a_shorter_last_one() -> None:
    """Ten consecutive targets in blocks of four: 4 + 4 + 2."""
    assert list(block_starts(range(1, 11), 4)) == [(1, (1, 2, 3, 4)), (5, (5, 6, 7, 8)), (9, (9, 10))]


def test_sparse_targets_share_a_block_only_within_its_span() -> None:
    """Position 8 is within five positions of 4; 9 is not."""
    assert list(block_starts([4, 8, 9, 30], 5)) == [(4, (4, 8)), (9, (9,)), (30, (30,))]


def test_no_targets_give_no_block() -> None:
    """A user without targets is simply absent."""
    assert list(block_starts([], 4)) == []


def test_a_block_size_of_zero_is_refused_by_name() -> None:
    """The message uses the manifest's field."""
    with pytest.raises(ValueError, match="history_block must be at least 1, got 0"):
        list(block_starts([1], 0))


def test_a_user_with_little_history_gets_what_there_is() -> None:
    """Two rows of history although ten were asked for; the first row of all has none."""
    blocks = user_blocks(timeline(4), [0, 2, 3], user_index=7, size=2, history_length=10)
    assert [[row.item_index for row in block.history] for block in blocks] == [[], [0, 1]]
    assert [[target.row.item_index for target in block.targets] for block in blocks] == [[0], [2, 3]]
    assert {block.user_index for block in blocks} == {7}


def test_a_target_before_its_block_is_refused() -> None:
    """Its answer would lie in its own history."""
    with pytest.raises(ValueError, match=r"targets at \[3\] lie before the block's start 5"):
        make_block(timeline(9), [Target(3, Row(3, True))], user_index=0, start=5, history_length=10)


@given(
    length=st.integers(1, 60),
    chosen=st.sets(st.integers(0, 59)),
    size=st.integers(1, 20),
    history_length=st.integers(1, 12),
)
def test_no_row_of_the_future_reaches_a_history(length: int, chosen: set[int], size: int, history_length: int) -> None:
    """For any user and any targets: histories end before the first target, and every target appears exactly once."""
    positions = sorted(position for position in chosen if position < length)
    blocks = user_blocks(timeline(length), positions, user_index=0, size=size, history_length=history_length)
    for block in blocks:
        first = min(target.position for target in block.targets)
        assert all(row.item_index < first for row in block.history)
        assert [row.item_index for row in block.history] == list(range(max(0, first - history_length), first))
        assert max(target.position for target in block.targets) < first + size
    assert [target.position for block in blocks for target in block.targets] == positions


def test_layout_of_two_suffixes_with_answers() -> None:
    """Three prefix tokens, suffixes of two and three, a two-token reason after the first one."""
    prefix = Encoded((1, 2, 3), (Slot(1, 7),))
    suffixes = [Encoded((4, 5)), Encoded((6, 7, 8), (Slot(2, 42),))]
    answers = [Answer(True, (50, 51), 0.1, 0.9), Answer(False, (60,), 0.9, 0.1)]
    packed = pack(prefix, suffixes, answers)
    assert packed.ids == (1, 2, 3, 4, 5, 50, 6, 7, 8)
    assert packed.positions == (0, 1, 2, 3, 4, 5, 3, 4, 5)
    assert packed.segments == (0, 0, 0, 1, 1, 1, 2, 2, 2)
    assert packed.score_at == (4, 8)
    assert packed.text_at == (4, 5, 8)
    assert packed.text_ids == (50, 51, 60)
    assert packed.text_weights == (0.45, 0.45, 0.1)
    assert packed.labels == (True, False)
    assert packed.slot_at == (1, 8)
    assert packed.slot_rows == (7, 42)


def test_without_text_weight_nothing_is_predicted_but_the_score() -> None:
    """Stages 2 and 3 train on the score alone."""
    packed = pack(Encoded((1,)), [Encoded((2,))], [Answer(True, (9,), 1.0, 0.0)])
    assert packed.ids == (1, 2)
    assert packed.text_at == ()
