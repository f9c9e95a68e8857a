# SPDX-License-Identifier: Apache-2.0
"""Soft tokens: their inputs, their spread at the start, and their file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from thinkrec_inference.engine.base_model import BaseModel
from thinkrec_inference.engine.collaborative import Collaborative
from thinkrec_inference.engine.errors import BundleError
from thinkrec_inference.engine.projector import Projector, input_table, soft_table


def make(collaborative: Collaborative, base: BaseModel, seed: int = 1) -> Projector:
    embeddings = base.model.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(seed)
    return Projector.create(input_table(collaborative), hidden_size=80, embeddings=embeddings, generator=generator)


def test_an_input_row_is_vector_bias_and_user_flag(collaborative: Collaborative) -> None:
    table = input_table(collaborative)
    assert table.shape == (6 + 16, 8 + 2)
    assert torch.equal(table[2, :8], collaborative.user_vectors[2])
    assert torch.equal(table[6 + 5, :8], collaborative.item_vectors[5])
    assert torch.equal(table[:, 8], torch.cat([collaborative.user_bias, collaborative.item_bias]))
    assert table[:, 9].tolist() == [1.0] * 6 + [0.0] * 16


def test_soft_tokens_begin_with_the_spread_of_real_ones(collaborative: Collaborative, base: BaseModel) -> None:
    soft = soft_table(make(collaborative, base), collaborative)
    assert soft.shape == (22, base.hidden_size)
    assert float(soft.std()) == pytest.approx(float(base.model.get_input_embeddings().weight.std()), rel=1e-4)


def test_inputs_are_standardised_with_what_was_stored(collaborative: Collaborative, base: BaseModel) -> None:
    made, table = make(collaborative, base), input_table(collaborative)
    standardised = (table - made.input_mean) / made.input_std
    assert torch.allclose(standardised.mean(0), torch.zeros(10), atol=1e-6)
    assert torch.allclose(standardised.std(0, correction=0), torch.ones(10), atol=1e-5)
    expected = torch.relu(standardised @ made.fc1.weight.T + made.fc1.bias) @ made.fc2.weight.T + made.fc2.bias
    assert torch.allclose(made(table), expected, atol=1e-6)


def test_a_constant_dimension_is_left_alone(base: BaseModel) -> None:
    inputs = torch.tensor([[1.0, 5.0], [2.0, 5.0]])
    embeddings = base.model.get_input_embeddings().weight
    made = Projector.create(inputs, hidden_size=4, embeddings=embeddings, generator=torch.Generator().manual_seed(0))
    assert made.input_std.tolist() == [0.5, 1.0]


def test_the_seed_alone_decides(collaborative: Collaborative, base: BaseModel) -> None:
    one, same, other = (make(collaborative, base, seed) for seed in (1, 1, 2))
    assert torch.equal(one.fc1.weight, same.fc1.weight)
    assert not torch.equal(one.fc1.weight, other.fc1.weight)


def test_a_projector_survives_its_file(collaborative: Collaborative, base: BaseModel, tmp_path: Path) -> None:
    made = make(collaborative, base)
    made.save(tmp_path / "projector.safetensors")
    names = {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias", "input_mean", "input_std"}
    assert set(load_file(tmp_path / "projector.safetensors")) == names
    again = Projector.load(tmp_path / "projector.safetensors")
    assert torch.equal(soft_table(again, collaborative), soft_table(made, collaborative))
    with pytest.raises(BundleError, match="missing from"):
        Projector.load(tmp_path / "nothing.safetensors")


def test_collaborative_vectors_survive_their_file(collaborative: Collaborative, tmp_path: Path) -> None:
    collaborative.save(tmp_path / "c.safetensors")
    again = Collaborative.load(tmp_path / "c.safetensors")
    assert all(torch.equal(getattr(again, name), getattr(collaborative, name)) for name in again.__slots__)
    by_hand = sum(float(a * b) for a, b in zip(again.user_vectors[4], again.item_vectors[7], strict=True))
    by_hand += float(again.user_bias[4] + again.item_bias[7] + again.offset)
    assert float(collaborative.scores(4)[7]) == pytest.approx(by_hand, abs=1e-5)
