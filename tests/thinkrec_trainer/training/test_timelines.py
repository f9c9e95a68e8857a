# SPDX-License-Identifier: Apache-2.0
"""Reading timelines, tiling them with blocks, choosing whom to validate on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.llm_stages import ITEMS, TRAIN, USERS, VALIDATION, basic_artifacts, interactions, kind, liked, title
from thinkrec_trainer.context import LocalArtifact
from thinkrec_trainer.samples import validation_blocks, validation_users
from thinkrec_trainer.timelines import Timelines, index_blocks, read_catalogue, read_timelines


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LocalArtifact]:
    """Dataset and keywords."""
    return basic_artifacts(tmp_path_factory.mktemp("artifacts"))


def made(lengths: list[int], later: int = 0, *, like: int = 2) -> Timelines:
    """Users with these train rows and `later` more; every `like`-th row is liked."""
    totals = np.array(lengths) + later
    offsets = np.concatenate([[0], np.cumsum(totals)]).astype(np.int64)
    rows = np.concatenate([np.arange(total) for total in totals])
    return Timelines(offsets, rows, rows % like == 0, np.array(lengths, dtype=np.int64))


def test_rows_are_in_time_order_and_hold_no_test_row(artifacts: dict[str, LocalArtifact]) -> None:
    """Train and validation of user 3."""
    timelines = read_timelines(artifacts["dataset"])
    rows = timelines.rows(3)
    assert [row.item_index for row in rows] == interactions(3)[: TRAIN + VALIDATION]
    assert [row.liked for row in rows] == [liked(row.item_index) for row in rows]
    assert timelines.later_positions(3) == range(TRAIN, TRAIN + VALIDATION)
    assert timelines.users == USERS


def test_the_catalogue_joins_titles_and_keywords(artifacts: dict[str, LocalArtifact]) -> None:
    """In the order of item indices."""
    catalogue = read_catalogue(artifacts["dataset"], artifacts["keywords"])
    assert len(catalogue) == ITEMS
    assert (catalogue[7].title, catalogue[7].keywords) == (title(7), (kind(7),))


def test_blocks_of_a_long_and_of_a_short_user() -> None:
    """Thirty rows, history ten, blocks of eight: 10-17, 18-25, 26-29. Four rows: the first two are history only."""
    index = index_blocks(made([30, 4]), np.array([0, 1]), size=8, history_length=10)
    assert list(zip(index.users, index.starts, index.counts, strict=True)) == [
        (0, 10, 8),
        (0, 18, 8),
        (0, 26, 4),
        (1, 2, 2),
    ]


@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    size=st.integers(1, 9),
    history_length=st.integers(1, 12),
)
def test_blocks_tile_the_train_rows(lengths: list[int], size: int, history_length: int) -> None:
    """Every train row after a user's first ones is the target of exactly one block, and no later row is."""
    timelines = made(lengths, later=3)
    users = np.arange(len(lengths))
    index = index_blocks(timelines, users, size=size, history_length=history_length)
    covered: dict[int, list[int]] = {user: [] for user in users.tolist()}
    for user, start, count in zip(index.users, index.starts, index.counts, strict=True):
        assert 1 <= count <= size
        covered[int(user)] += range(int(start), int(start + count))
    for user, rows in enumerate(lengths):
        first = max(1, min(history_length, rows // 2))
        assert covered[user] == list(range(first, rows))


def test_validation_prefers_users_with_both_classes() -> None:
    """User 1 has only likes afterwards and would have no AUC."""
    timelines = made([4, 4, 4], later=4)
    timelines.liked[timelines.offsets[1] :][4:8] = True
    assert validation_users(timelines, np.arange(3), count=10, seed=0) == [0, 2]


def test_without_both_classes_anyone_with_a_row_is_taken() -> None:
    """AUC over all rows is then still defined."""
    assert validation_users(made([4, 4], later=1), np.arange(2), count=10, seed=0) == [0, 1]
    assert validation_users(made([4, 4], later=0), np.arange(2), count=10, seed=0) == []


def test_validation_histories_end_before_their_block() -> None:
    """Six validation rows in blocks of four: the second block may know the first one's answers, never its own."""
    [(user, blocks)] = validation_blocks(made([10], later=6), [0], size=4, history_length=3)
    assert user == 0
    assert [[row.item_index for row in block.history] for block in blocks] == [[7, 8, 9], [11, 12, 13]]
    assert [[target.position for target in block.targets] for block in blocks] == [[10, 11, 12, 13], [14, 15]]


def test_a_data_set_without_a_row_is_bad_input(artifacts: dict[str, LocalArtifact], tmp_path: Path) -> None:
    """The message says where to look."""
    import polars as pl

    from support.llm_stages import seal
    from thinkrec_crds.stage_kinds import StageKind
    from thinkrec_trainer.errors import BadInput

    for path in artifacts["dataset"].path.iterdir():
        table = pl.read_parquet(path)
        (table.clear() if path.stem in ("train", "validation") else table).write_parquet(tmp_path / path.name)
    with pytest.raises(BadInput, match=r"no row in \['train', 'validation'\]"):
        read_timelines(seal(tmp_path, StageKind.DATASET))
