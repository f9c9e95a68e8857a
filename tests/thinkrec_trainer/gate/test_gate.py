# SPDX-License-Identifier: Apache-2.0
"""The gate stage: known groups are found, described by the right items, routed home; bad inputs are refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.numpy import load_file

from support import block_world
from support.block_world import COLD_USER, GROUPS, user_groups, write_block_world
from support.llm_stages import seal, stage_context
from thinkrec_crds.engine_api import Branch
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_crds.stages import GateParameters
from thinkrec_inference.engine.collaborative import COLLABORATIVE_NAME, Collaborative
from thinkrec_inference.engine.gate import route_many
from thinkrec_trainer.context import LocalArtifact, StageResult
from thinkrec_trainer.errors import BadInput
from thinkrec_trainer.gate import run
from thinkrec_trainer.grouping import Clusterer, Standard, by_size, typical_items

WIDTH = 6


def vectors(noise: float = 0.3) -> Collaborative:
    """User vectors around one centre per true group, the dimensions on very different scales and far from zero."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(GROUPS, WIDTH)) * 2
    users = centres[user_groups()] + noise * generator.normal(size=(block_world.USERS, WIDTH))
    users = users * np.geomspace(0.01, 10, WIDTH) + 50
    users[COLD_USER] = 0
    items = torch.zeros(block_world.ITEMS, WIDTH)
    zeros = torch.zeros(block_world.USERS), torch.zeros(block_world.ITEMS), torch.zeros(1)
    return Collaborative(torch.from_numpy(users).float(), items, *zeros)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LocalArtifact]:
    root = tmp_path_factory.mktemp("gate")
    return {"dataset": write_block_world(root / "dataset"), "collaborative": written(root / "cf", vectors())}


def written(folder: Path, encoder: Collaborative) -> LocalArtifact:
    folder.mkdir()
    encoder.save(folder / COLLABORATIVE_NAME)
    return seal(folder, StageKind.COLLABORATIVE)


def gate(output: Path, inputs: Mapping[str, LocalArtifact], **given: object) -> StageResult:
    return run(stage_context(output, GateParameters.model_validate(given), inputs))


@pytest.mark.parametrize("method", ["Ward", "MiniBatchKMeans"])
def test_finds_the_true_groups_and_their_number(tmp_path: Path, inputs: dict[str, LocalArtifact], method: str) -> None:
    result = gate(tmp_path / "out", inputs, method=method, min_count=2, max_count=6)
    table = pl.read_parquet(tmp_path / "out" / "assignment.parquet")
    assert table["user_index"].to_list() == list(range(COLD_USER)), "the cold user belongs to no group"
    assert table["group"].to_list() == user_groups()[:COLD_USER].tolist(), "the largest group is number 0"
    assert result.counts == {"groups": 3, "users": COLD_USER, "smallest_group": 14}
    assert result.metrics["routed_to_own_group"] == 1.0
    tried = {row["groups"]: row["silhouette"] for row in json.loads((tmp_path / "out" / "silhouette.json").read_text())}
    assert set(tried) == {2, 3, 4, 5, 6}
    assert max(tried, key=tried.__getitem__) == 3


def test_groups_are_described_by_the_items_they_alone_like(tmp_path: Path, inputs: dict[str, LocalArtifact]) -> None:
    gate(tmp_path / "out", inputs, count=3)
    groups = json.loads((tmp_path / "out" / "groups.json").read_text())
    assert [group["users"] for group in groups] == [26, 20, 14]
    for group in groups:
        colour = ("Red", "Green", "Blue")[group["group"]]
        assert len(group["typical_items"]) == 10
        assert all(item["title"].startswith(colour) and item["lift"] > 1 for item in group["typical_items"])


def test_centroids_are_the_means_of_standardised_vectors(tmp_path: Path, inputs: dict[str, LocalArtifact]) -> None:
    gate(tmp_path / "out", inputs, count=3)
    written_gate = load_file(tmp_path / "out" / "gate.safetensors")
    warm = vectors().user_vectors.numpy()[:COLD_USER].astype(np.float64)
    np.testing.assert_allclose(written_gate["mean"], warm.mean(axis=0), rtol=1e-5)
    standardised = (warm - warm.mean(axis=0)) / warm.std(axis=0)
    expected = [standardised[user_groups()[:COLD_USER] == group].mean(axis=0) for group in range(3)]
    np.testing.assert_allclose(written_gate["centroids"], expected, atol=1e-4)


def test_the_engine_routes_every_user_home_only_in_the_standardised_space(
    tmp_path: Path, inputs: dict[str, LocalArtifact]
) -> None:
    """Far from zero all raw vectors point the same way, so a raw cosine cannot tell the groups apart."""
    gate(tmp_path / "out", inputs, count=3)
    parts = {name: torch.from_numpy(part) for name, part in load_file(tmp_path / "out" / "gate.safetensors").items()}
    users, truth = vectors().user_vectors[:COLD_USER], user_groups()[:COLD_USER]
    routes = route_many(users, parts["centroids"], parts["mean"], parts["std"])
    assert [int(route.weights.argmax()) for route in routes] == truth.tolist()
    raw_centres = torch.stack([users[torch.from_numpy(truth == group)].mean(0) for group in range(3)])
    raw = route_many(users, raw_centres, torch.zeros(WIDTH), torch.ones(WIDTH))
    assert max(float(route.weights.max()) for route in raw) < 0.5


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, inputs: dict[str, LocalArtifact]) -> None:
    for name in ("one", "two"):
        gate(tmp_path / name, inputs, method="MiniBatchKMeans", max_count=5)
    for file in ("gate.safetensors", "assignment.parquet", "groups.json", "silhouette.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_one_group_holds_everybody(tmp_path: Path, inputs: dict[str, LocalArtifact]) -> None:
    result = gate(tmp_path / "out", inputs, count=1)
    assert result.counts["smallest_group"] == COLD_USER
    assert "silhouette" not in result.metrics


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"count": 61}, r"60 users have train rows, spec\.experts\.count 61 needs at least 61"),
        ({"min_count": 80, "max_count": 90}, r"60 users have train rows, experts\.auto\.min 80 needs at least 81"),
        ({"min_count": 5, "max_count": 4}, r"auto\.max 4 is below experts\.auto\.min 5"),
    ],
)
def test_impossible_numbers_of_groups(
    tmp_path: Path, inputs: dict[str, LocalArtifact], given: dict[str, int], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        gate(tmp_path / "out", inputs, **given)


def test_one_group_is_served_by_the_general_adapter(tmp_path: Path, inputs: dict[str, LocalArtifact]) -> None:
    """docs/adr/0004: the rule as written, until a threshold is given that a weight of 1 exceeds."""
    gate(tmp_path / "out", inputs, count=1)
    file = tmp_path / "out" / "gate.safetensors"
    stored = {name: torch.from_numpy(value) for name, value in load_file(file).items()}
    arguments = (vectors().user_vectors[:1], stored["centroids"], stored["mean"], stored["std"])
    as_written = route_many(*arguments)[0]
    assert (as_written.branch, as_written.slots.tolist()) == (Branch.GENERAL, [0.0, 1.0])
    assert route_many(*arguments, hard_route_threshold=0.5)[0].slots.tolist() == [1.0, 0.0]


def test_equal_vectors_are_refused(tmp_path: Path, inputs: dict[str, LocalArtifact]) -> None:
    equal = vectors()
    equal.user_vectors[:] = 1.0
    with pytest.raises(BadInput, match="all 60 user vectors are equal"):
        gate(tmp_path / "out", {**inputs, "collaborative": written(tmp_path / "cf", equal)}, count=3)


def test_a_constant_dimension_is_only_centred() -> None:
    standard = Standard.of(np.array([[1.0, 5.0], [3.0, 5.0]]))
    assert standard.apply(np.array([[3.0, 6.0]])).tolist() == [[1.0, 1.0]]


def test_numbering_by_size_then_by_first_row() -> None:
    assert by_size(np.array([7, 7, 2, 2, 2, 9, 9])).tolist() == [1, 1, 0, 0, 0, 2, 2]


def test_silhouette_is_undefined_for_one_group_and_for_singletons() -> None:
    points = np.array([[0.0], [1.0], [5.0]])
    clusterer = Clusterer(points, ward=True, seed=0)
    assert np.isnan(clusterer.silhouette(np.array([0, 0, 0])))
    assert np.isnan(clusterer.silhouette(np.array([0, 1, 2])))
    assert clusterer.silhouette(clusterer.cut(2)) > 0.5


def test_lift_by_hand() -> None:
    """Of 40 likes, group 0 gives 15 to item 0 and 5 to item 1, group 1 the opposite: expected 10 each."""
    groups = np.repeat([0, 0, 1, 1], [15, 5, 5, 15])
    items = np.repeat([0, 1, 0, 1], [15, 5, 5, 15])
    first, second = typical_items(groups, items, group_count=2, item_count=3, top=2)
    assert [(item.item_index, item.lift) for item in first] == [(0, pytest.approx(20 / 15))]
    assert [(item.item_index, item.lift) for item in second] == [(1, pytest.approx(20 / 15))]
