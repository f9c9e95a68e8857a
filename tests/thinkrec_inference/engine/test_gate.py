# SPDX-License-Identifier: Apache-2.0
"""The gate's three branches, on vectors whose cosines are known by construction."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thinkrec_crds.engine_api import Branch
from thinkrec_inference.engine.gate import default_threshold, gate_weights, route, route_many

AXES = torch.eye(4)
RAW = (torch.zeros(4), torch.ones(4))


def test_a_user_on_a_centroid_gets_that_expert_alone() -> None:
    found = route(AXES[2], AXES, *RAW)
    assert found.branch is Branch.ONE_HOT
    assert found.slots.tolist() == [0, 0, 1, 0, 0]


def test_a_user_between_all_centroids_gets_the_general_adapter() -> None:
    found = route(AXES.sum(0), AXES, *RAW)
    assert found.branch is Branch.GENERAL
    assert found.slots.tolist() == [0, 0, 0, 0, 1]
    assert found.weights.tolist() == pytest.approx([0.25] * 4)


def test_a_user_between_two_centroids_gets_the_softmax_of_the_cosines() -> None:
    found = route(AXES[0] + AXES[1], AXES, *RAW, temperature=0.3)
    near, far = math.exp(math.sqrt(0.5) / 0.3), 1.0
    assert found.branch is Branch.FUSED
    assert found.slots.tolist() == pytest.approx(
        [near / (2 * near + 2 * far)] * 2 + [far / (2 * near + 2 * far)] * 2 + [0]
    )


def test_vectors_are_standardised_before_the_cosine() -> None:
    mean, std = torch.tensor([5.0, 5, 5, 5]), torch.tensor([2.0, 2, 2, 2])
    moved = AXES[1] * 2 + 5
    assert torch.equal(
        gate_weights(moved[None], AXES, mean, std, temperature=0.1),
        gate_weights(AXES[1:2], AXES, *RAW, temperature=0.1),
    )


def test_the_scale_of_a_vector_does_not_matter() -> None:
    vector = torch.tensor([1.0, 0.7, 0.2, 0.1])
    assert torch.allclose(route(vector, AXES, *RAW).slots, route(vector * 16, AXES, *RAW).slots)


def test_one_group_is_certain_and_uniform_at_once_and_takes_the_general_adapter() -> None:
    assert default_threshold(1) > 1
    assert route(AXES[0], AXES[:1], *RAW).branch is Branch.GENERAL
    assert route(AXES[0], AXES[:1], *RAW, hard_route_threshold=0.9).branch is Branch.ONE_HOT


def test_a_zero_vector_has_no_direction_and_takes_the_general_adapter() -> None:
    assert route(torch.zeros(4), AXES, *RAW).branch is Branch.GENERAL


def test_the_threshold_is_exclusive() -> None:
    weights = gate_weights(AXES[:1], AXES, *RAW, temperature=0.5)[0]
    top = float(weights.max())
    assert route(AXES[0], AXES, *RAW, temperature=0.5, hard_route_threshold=top).branch is Branch.FUSED
    assert route(AXES[0], AXES, *RAW, temperature=0.5, hard_route_threshold=top - 1e-9).branch is Branch.ONE_HOT


vectors = st.lists(st.floats(-3, 3, width=32), min_size=4, max_size=4).map(torch.tensor)


@given(vectors, st.integers(1, 4), st.floats(0.02, 2))
def test_slots_are_a_distribution_and_agree_with_their_branch(
    vector: torch.Tensor, experts: int, temperature: float
) -> None:
    found = route(vector, AXES[:experts], *RAW, temperature=temperature)
    assert float(found.weights.sum()) == pytest.approx(1)
    assert float(found.slots.sum()) == pytest.approx(1, abs=1e-6)
    assert bool((found.slots >= 0).all())
    expected = {
        Branch.ONE_HOT: float(found.weights.max()) > default_threshold(experts) and float(found.slots.max()) == 1.0,
        Branch.GENERAL: float(found.slots[-1]) == 1.0,
        Branch.FUSED: float(found.slots[-1]) == 0.0 and torch.allclose(found.slots[:-1], found.weights.float()),
    }
    assert expected[found.branch]


@given(st.lists(vectors, min_size=1, max_size=5))
def test_many_users_are_routed_as_each_one_alone(rows: list[torch.Tensor]) -> None:
    together = route_many(torch.stack(rows), AXES, *RAW)
    for vector, found in zip(rows, together, strict=True):
        alone = route(vector, AXES, *RAW)
        assert alone.branch is found.branch
        assert torch.allclose(alone.slots, found.slots, atol=1e-7)


def test_a_vector_of_another_width_is_refused_with_both_widths() -> None:
    with pytest.raises(ValueError, match="3 dimensions, the gate's centroids 4"):
        route(torch.zeros(3), AXES, torch.zeros(3), torch.ones(3))


def test_a_temperature_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match="must be positive, got 0"):
        route(AXES[0], AXES, *RAW, temperature=0)
