# SPDX-License-Identifier: Apache-2.0
"""What every CF encoder must do, run as the whole stage on data whose truth is a checkerboard."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from support import block_world
from support.block_world import COLD_ITEM, COLD_USER, item_groups, user_groups, write_block_world
from support.llm_stages import MemoryCheckpoints, ProgressList, stage_context
from thinkrec_crds.stages import CollaborativeParameters
from thinkrec_inference.engine.collaborative import COLLABORATIVE_NAME, Collaborative
from thinkrec_trainer.collaborative import run
from thinkrec_trainer.context import LocalArtifact, StageResult
from thinkrec_trainer.encoders.scores import pair_scores
from thinkrec_trainer.errors import Interrupted

ENCODERS = ("MF", "LightGCN", "SASRec")
RATES = {"MF": 1e-2, "LightGCN": 2e-3, "SASRec": 2e-3}


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> LocalArtifact:
    return write_block_world(tmp_path_factory.mktemp("world") / "dataset")


def settings(encoder: str, **changes: object) -> CollaborativeParameters:
    given = {"encoder": encoder, "dimension": 16, "epochs": 20, "learning_rate": RATES[encoder]} | changes
    return CollaborativeParameters.model_validate(given)


def train(output: Path, world: LocalArtifact, encoder: str, **changes: object) -> StageResult:
    return run(stage_context(output, settings(encoder, **changes), {"dataset": world}))


@pytest.fixture(scope="session", params=ENCODERS)
def trained(
    request: pytest.FixtureRequest, world: LocalArtifact, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, StageResult, Path]:
    output = tmp_path_factory.mktemp(request.param) / "output"
    return request.param, train(output, world, request.param), output


def test_learns_the_checkerboard(trained: tuple[str, StageResult, Path]) -> None:
    """Pairs that were never rated, of warm users and items: like and dislike are told apart for nearly all."""
    _, result, output = trained
    vectors = Collaborative.load(output / COLLABORATIVE_NAME)
    seen = set(block_world.table().select("user_index", "item_index").iter_rows())
    pairs = [(u, i) for u in range(COLD_USER) for i in range(COLD_ITEM) if (u, i) not in seen]
    users, items = (np.array(side, dtype=np.int64) for side in zip(*pairs, strict=True))
    truth = user_groups()[users] == item_groups()[items]
    scores = pair_scores(vectors, users, items)
    separated = (scores[truth][:, None] > scores[~truth][None, :]).mean()
    assert separated > 0.95
    assert result.metrics["validation_auc"] > 0.95
    assert result.metrics["validation_uauc"] > 0.95


def test_the_artifact_is_complete(trained: tuple[str, StageResult, Path]) -> None:
    _, result, output = trained
    vectors = Collaborative.load(output / COLLABORATIVE_NAME)
    assert vectors.user_vectors.shape == (block_world.USERS, 16)
    assert vectors.item_vectors.shape == (block_world.ITEMS, 16)
    assert all(tensor.dtype == torch.float32 for tensor in (vectors.user_vectors, vectors.item_bias, vectors.offset))
    curve = json.loads((output / "curve.json").read_text())
    assert [point["step"] for point in curve] == list(range(1, len(curve) + 1))
    assert curve[-1]["train_loss"] < curve[0]["train_loss"]
    assert result.counts["epochs"] <= len(curve)
    assert result.counts["warm_users"] == block_world.USERS - 1


def test_cold_users_and_items_are_zero(trained: tuple[str, StageResult, Path]) -> None:
    vectors = Collaborative.load(trained[2] / COLLABORATIVE_NAME)
    assert not vectors.user_vectors[COLD_USER].any()
    assert not vectors.item_vectors[COLD_ITEM].any()
    assert vectors.user_bias[COLD_USER] == vectors.item_bias[COLD_ITEM] == 0
    assert (vectors.user_vectors[:COLD_USER].abs().sum(1) > 0).all()


def test_the_same_seed_gives_the_same_bytes(
    trained: tuple[str, StageResult, Path], world: LocalArtifact, tmp_path: Path
) -> None:
    encoder, _, output = trained
    torch.manual_seed(99)
    torch.rand(7)
    train(tmp_path / "again", world, encoder)
    assert (tmp_path / "again" / COLLABORATIVE_NAME).read_bytes() == (output / COLLABORATIVE_NAME).read_bytes()


def test_later_rows_never_change_a_byte(trained: tuple[str, StageResult, Path], tmp_path: Path) -> None:
    """Flip every test label and add interactions with items that nobody had rated."""
    encoder, _, output = trained
    rows = block_world.table()
    future = rows.with_columns(
        liked=pl.when(pl.col("split") == "test").then(~pl.col("liked")).otherwise(pl.col("liked"))
    )
    extra = rows.filter(pl.col("position") == 0, pl.col("user_index") != COLD_USER).with_columns(
        item_index=pl.lit(COLD_ITEM, pl.Int32), position=pl.lit(900, pl.Int32), split=pl.lit("test")
    )
    changed = write_block_world(tmp_path / "changed", rows=pl.concat([future, extra]))
    train(tmp_path / "output", changed, encoder)
    assert (tmp_path / "output" / COLLABORATIVE_NAME).read_bytes() == (output / COLLABORATIVE_NAME).read_bytes()


@pytest.mark.parametrize("encoder", ENCODERS)
def test_an_interrupted_run_continues_to_the_same_bytes(encoder: str, world: LocalArtifact, tmp_path: Path) -> None:
    train(tmp_path / "straight", world, encoder, epochs=5)
    checkpoints = MemoryCheckpoints(tmp_path / "checkpoints", interrupt_at=2)
    given = settings(encoder, epochs=5)
    with pytest.raises(Interrupted):
        run(stage_context(tmp_path / "first", given, {"dataset": world}, checkpoint=checkpoints))
    checkpoints.interrupt_at = None
    context = stage_context(tmp_path / "second", given, {"dataset": world}, checkpoint=checkpoints)
    run(context)
    straight, resumed = (tmp_path / name / COLLABORATIVE_NAME for name in ("straight", "second"))
    assert resumed.read_bytes() == straight.read_bytes()
    assert isinstance(context.progress, ProgressList)
    assert [step for step, _, _ in context.progress.updates] == [3, 4, 5], "finished epochs are not run again"
