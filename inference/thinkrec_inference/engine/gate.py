# SPDX-License-Identifier: Apache-2.0
"""The gate: a user's CF vector -> weights of the adapter slots (ThinkRec, arXiv 2505.15091; rule in method.md).

    c_k = mean CF vector of group k,  w = softmax(cos(v, c_k) / temperature)
    max w > threshold              -> one-hot on that expert
    entropy(w) >= share * ln K     -> the general adapter
    otherwise                      -> the experts, weighted by w

Slots are the K experts and, last, the general adapter. All of it is computed in fp64 on the CPU: a branch must not
depend on the device, and the weights' bits are part of a cache key.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from thinkrec_crds.engine_api import Branch


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """What the gate decided for one user."""

    weights: torch.Tensor
    """(K,) fp64: the softmax, whatever the branch."""
    slots: torch.Tensor
    """(K + 1,) fp32: what the adapters are multiplied with; sums to 1."""
    branch: Branch


def default_threshold(experts: int) -> float:
    """Return the method's one-hot threshold for K experts, 0.5 + 0.6 / K (unreachable for K = 1)."""
    return 0.5 + 0.6 / experts


def route(
    user_vector: torch.Tensor,
    centroids: torch.Tensor,
    mean: torch.Tensor,
    std: torch.Tensor,
    *,
    temperature: float = 0.1,
    hard_route_threshold: float | None = None,
    uniform_entropy_share: float = 0.95,
) -> Route:
    """Route one user; arguments as in `route_many`, with `user_vector` (d,)."""
    return route_many(
        user_vector[None],
        centroids,
        mean,
        std,
        temperature=temperature,
        hard_route_threshold=hard_route_threshold,
        uniform_entropy_share=uniform_entropy_share,
    )[0]


def route_many(
    user_vectors: torch.Tensor,
    centroids: torch.Tensor,
    mean: torch.Tensor,
    std: torch.Tensor,
    *,
    temperature: float = 0.1,
    hard_route_threshold: float | None = None,
    uniform_entropy_share: float = 0.95,
) -> list[Route]:
    """Route users by the rule above.

    user_vectors (n, d) raw; centroids (K, d) of standardised vectors; mean and std (d,) standardise: (v - mean) / std.
    `hard_route_threshold` None takes the method's own. With K = 1 the softmax is both certain and uniform; the rule as
    written then takes the general adapter, unless a reachable threshold is given.
    Raises ValueError for a width that differs from the centroids'.
    """
    weights = gate_weights(user_vectors, centroids, mean, std, temperature=temperature)
    threshold = default_threshold(len(centroids)) if hard_route_threshold is None else hard_route_threshold
    return [_decide(row, threshold, uniform_entropy_share) for row in weights]


def gate_weights(
    user_vectors: torch.Tensor, centroids: torch.Tensor, mean: torch.Tensor, std: torch.Tensor, *, temperature: float
) -> torch.Tensor:
    """Return softmax(cos / temperature), (n, K) fp64; a zero vector has cosine 0 with everything."""
    if user_vectors.shape[-1] != centroids.shape[-1]:
        raise ValueError(
            f"user vectors have {user_vectors.shape[-1]} dimensions, the gate's centroids {centroids.shape[-1]}; "
            "both must come from the same collaborative artifact"
        )
    if temperature <= 0:
        raise ValueError(f"gate temperature must be positive, got {temperature}")
    vectors = (user_vectors.double().cpu() - mean.double().cpu()) / std.double().cpu()
    cosine = (
        torch.nn.functional.normalize(vectors, dim=-1)
        @ torch.nn.functional.normalize(centroids.double().cpu(), dim=-1).T
    )
    return torch.softmax(cosine / temperature, dim=-1)


def general_slots(experts: int) -> torch.Tensor:
    """Return the slot weights of the general adapter alone, (K + 1,) fp32."""
    return one_hot(experts, experts)


def one_hot(experts: int, slot: int) -> torch.Tensor:
    """Return (K + 1,) fp32 slot weights with 1 at `slot`."""
    slots = torch.zeros(experts + 1)
    slots[slot] = 1.0
    return slots


def _decide(weights: torch.Tensor, threshold: float, uniform_share: float) -> Route:
    """Apply the three branches to one softmax row (K,)."""
    experts = len(weights)
    if float(weights.max()) > threshold:
        return Route(weights, one_hot(experts, int(weights.argmax())), Branch.ONE_HOT)
    entropy = float(-torch.special.xlogy(weights, weights).sum())
    if entropy >= uniform_share * math.log(experts):
        return Route(weights, general_slots(experts), Branch.GENERAL)
    return Route(weights, torch.cat([weights, weights.new_zeros(1)]).float(), Branch.FUSED)
