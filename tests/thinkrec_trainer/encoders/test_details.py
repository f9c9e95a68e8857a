# SPDX-License-Identifier: Apache-2.0
"""What single encoders rest on: LightGCN's adjacency, SASRec's windows and causality, the user's own vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from support import block_world
from support.block_world import write_block_world
from support.llm_stages import stage_context
from thinkrec_crds.stages import CollaborativeParameters
from thinkrec_inference.engine.collaborative import COLLABORATIVE_NAME, Collaborative
from thinkrec_trainer.collaborative import run
from thinkrec_trainer.encoders.lightgcn import LightGcn, normalised_adjacency
from thinkrec_trainer.encoders.sasrec import LENGTH, SasRec, cut_windows, last_rows
from thinkrec_trainer.errors import BadInput
from thinkrec_trainer.interactions import Interactions


def rows(pairs: list[tuple[int, int, bool]], *, users: int, items: int) -> Interactions:
    user, item, liked = (np.array(column) for column in zip(*pairs, strict=True))
    return Interactions(user.astype(np.int64), item.astype(np.int64), liked.astype(np.bool_), users, items)


def test_adjacency_by_hand() -> None:
    """User 0 likes items 0 and 1, user 1 likes item 1 and dislikes item 0: three edges, weights 1/sqrt(deg deg)."""
    graph = normalised_adjacency(
        rows([(0, 0, True), (0, 1, True), (1, 1, True), (1, 0, False)], users=2, items=2)
    ).to_dense()
    expected = torch.zeros(4, 4)
    expected[0, 2] = expected[2, 0] = 1 / np.sqrt(2 * 1)
    expected[0, 3] = expected[3, 0] = 1 / np.sqrt(2 * 2)
    expected[1, 3] = expected[3, 1] = 1 / np.sqrt(1 * 2)
    torch.testing.assert_close(graph, expected)


def test_lightgcn_averages_layers_zero_to_three() -> None:
    data = rows([(0, 0, True), (0, 1, True), (1, 1, True), (1, 0, False)], users=2, items=2)
    model = LightGcn(data, dimension=4, seed=0, device=torch.device("cpu"))
    graph, first = normalised_adjacency(data).to_dense(), model.tensors()["nodes"].detach()
    expected = sum(torch.linalg.matrix_power(graph, k) @ first for k in range(4)) / 4
    vectors = model.vectors()
    torch.testing.assert_close(torch.cat([vectors.user_vectors, vectors.item_vectors]), expected)


def test_every_row_but_a_users_first_is_a_target_once() -> None:
    lengths = [1, 2, LENGTH, LENGTH + 1, LENGTH + 2, 3 * LENGTH + 7]
    pairs = [(user, position, True) for user, count in enumerate(lengths) for position in range(count)]
    windows = cut_windows(rows(pairs, users=len(lengths), items=max(lengths)))
    targets = windows.items[:, 1:][windows.present[:, 1:]]
    expected = sorted(position for count in lengths for position in range(1, count))
    assert sorted(targets.tolist()) == expected


def test_the_state_is_taken_after_the_last_rows() -> None:
    count = LENGTH + 9
    last = last_rows(rows([(1, position, True) for position in range(count)], users=3, items=count))
    assert last.present.sum(axis=1).tolist() == [0, LENGTH, 0]
    assert last.items[1].tolist() == list(range(9, count))


def test_sasrec_is_causal_and_reads_labels() -> None:
    """Changing the last of three rows leaves the states after the first two alone; changing a label moves the state."""
    data = rows([(0, item, item % 2 == 0) for item in range(8)], users=1, items=8)
    model = SasRec(data, dimension=8, seed=0, device=torch.device("cpu"))
    items, liked = torch.tensor([[1, 2, 3]]), torch.tensor([[1, 0, 1]])
    states = model._states(items, liked, None)
    later = model._states(torch.tensor([[1, 2, 7]]), liked, None)
    torch.testing.assert_close(states[:, :2], later[:, :2], rtol=0, atol=0)
    assert not torch.allclose(states[:, 2], later[:, 2])
    assert not torch.allclose(states[:, 1], model._states(items, torch.tensor([[1, 1, 1]]), None)[:, 1])


def test_sasrec_refuses_an_odd_dimension(tmp_path: Path) -> None:
    world = write_block_world(tmp_path / "dataset")
    given = CollaborativeParameters(encoder="SASRec", dimension=7)
    with pytest.raises(BadInput, match=r"multiple of 2 for SASRec, got 7.*spec\.collaborative"):
        run(stage_context(tmp_path / "output", given, {"dataset": world}))


def own(path: Path, **changes: torch.Tensor) -> Path:
    generator = torch.Generator().manual_seed(0)
    users, items = (torch.randn(n, 5, generator=generator) for n in (block_world.USERS, block_world.ITEMS))
    save_file({"user_vectors": users, "item_vectors": items} | changes, path)
    return path


def adopt(tmp_path: Path, checkpoint: Path) -> Collaborative:
    world = write_block_world(tmp_path / "dataset")
    given = CollaborativeParameters(checkpoint_uri=str(checkpoint))
    result = run(stage_context(tmp_path / "output", given, {"dataset": world}))
    assert result.source_digests["collaborative_checkpoint"].startswith("sha256:")
    assert result.counts["epochs"] == 0
    assert "validation_auc" in result.metrics
    return Collaborative.load(tmp_path / "output" / COLLABORATIVE_NAME)


def test_own_vectors_are_taken_as_they_are(tmp_path: Path) -> None:
    bias = torch.linspace(-1, 1, block_world.ITEMS, dtype=torch.float64)
    found = adopt(tmp_path, own(tmp_path / "own.safetensors", item_bias=bias))
    assert found.dimension == 5
    torch.testing.assert_close(found.item_bias, bias.float())
    assert not found.user_bias.any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"user_vectors": torch.zeros(3, 5)}, r"user_vectors has shape \(3, 5\), expected \(61, 5\)"),
        ({"item_vectors": torch.zeros(block_world.ITEMS, 4)}, r"item_vectors has shape \(46, 4\), expected \(46, 5\)"),
        ({"user_bias": torch.zeros(2)}, r"user_bias has shape \(2,\)"),
        ({"item_vectors": torch.zeros(block_world.ITEMS, 5, dtype=torch.int64)}, "type torch.int64"),
        ({"item_vectors": torch.full((block_world.ITEMS, 5), torch.nan)}, "230 values that are not finite"),
    ],
)
def test_own_vectors_that_do_not_fit_are_refused(
    tmp_path: Path, changes: dict[str, torch.Tensor], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        adopt(tmp_path, own(tmp_path / "own.safetensors", **changes))


def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    path.write_text("not tensors")
    with pytest.raises(BadInput, match="not a safetensors file"):
        adopt(tmp_path, path)


def test_missing_tensors_are_named(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    save_file({"users": torch.zeros(2, 2)}, path)
    with pytest.raises(BadInput, match=r"lacks \['item_vectors', 'user_vectors'\]; it has \['users'\]"):
        adopt(tmp_path, path)
