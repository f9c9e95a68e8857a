# SPDX-License-Identifier: Apache-2.0
"""The projector: a CF vector -> one soft token in the base model's embedding space (method.md, stage 6).

Input row of a token: [vector (d), bias (1), flag (1)], where the flag is 1 for a user and 0 for an item; each dimension
is standardised with the stored mean and deviation. Then fc1, ReLU, fc2.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from thinkrec_inference.engine.collaborative import Collaborative
from thinkrec_inference.engine.errors import BundleError

PROJECTOR_NAME = "projector.safetensors"
EXTRA_INPUTS = 2
"""Bias and user flag, appended to the d dimensions of the vector."""
_NAMES = ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias", "input_mean", "input_std")


class Projector(nn.Module):
    """MLP d_in -> hidden -> D with ReLU, fp32; inputs are standardised inside."""

    input_mean: torch.Tensor
    input_std: torch.Tensor

    def __init__(self, input_size: int, hidden_size: int, output_size: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(input_size, hidden_size)
        self.fc2 = nn.Linear(hidden_size, output_size)
        self.register_buffer("input_mean", torch.zeros(input_size))
        self.register_buffer("input_std", torch.ones(input_size))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return soft tokens (..., D) of input rows (..., d_in)."""
        standardised = (inputs - self.input_mean) / self.input_std
        hidden = torch.relu(self.fc1(standardised))
        return self.fc2(hidden)  # type: ignore[no-any-return]

    @classmethod
    def create(
        cls, inputs: torch.Tensor, *, hidden_size: int, embeddings: torch.Tensor, generator: torch.Generator
    ) -> Projector:
        """Return an untrained projector for these input rows (n, d_in) and embedding table (V, D).

        Weights are drawn from `generator` alone. fc2 is scaled so that soft tokens begin with the spread of real token
        embeddings: much larger or smaller ones leave the base model outside of what it has seen.
        """
        made = cls(inputs.shape[1], hidden_size, embeddings.shape[1])
        made.input_mean.copy_(inputs.mean(0))
        made.input_std.copy_(_safe_std(inputs))
        with torch.no_grad():
            for layer in (made.fc1, made.fc2):
                bound = 1 / math.sqrt(layer.in_features)
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.zero_()
            spread = made(inputs).std()
            made.fc2.weight.mul_(embeddings.float().std().cpu() / spread.clamp_min(1e-12))
        return made

    def save(self, path: Path) -> None:
        """Write the safetensors file."""
        save_file(
            {name: tensor.detach().float().cpu().contiguous() for name, tensor in self.state_dict().items()}, path
        )

    @classmethod
    def load(cls, path: Path) -> Projector:
        """Read the safetensors file; raise BundleError naming missing tensors."""
        if not path.is_file():
            raise BundleError(f"{path.name} is missing from {path.parent}; publish the bundle again")
        tensors = load_file(path)
        missing = [name for name in _NAMES if name not in tensors]
        if missing:
            raise BundleError(f"{path}: tensors {missing} are missing; it has {sorted(tensors)}")
        hidden, inputs = tensors["fc1.weight"].shape
        made = cls(inputs, hidden, len(tensors["fc2.weight"]))
        made.load_state_dict(tensors)
        return made.eval()


def soft_inputs(
    user_vectors: torch.Tensor, user_bias: torch.Tensor, item_vectors: torch.Tensor, item_bias: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the projector's input rows of all users (U, d + 2) and all items (I, d + 2), not yet standardised."""
    users = torch.cat([user_vectors, user_bias[:, None], torch.ones(len(user_vectors), 1)], dim=1)
    items = torch.cat([item_vectors, item_bias[:, None], torch.zeros(len(item_vectors), 1)], dim=1)
    return users, items


def input_table(collaborative: Collaborative) -> torch.Tensor:
    """Return the input rows (U + I, d + 2) in soft-slot order: users first, then items (see `tokens.Slot`)."""
    rows = soft_inputs(
        collaborative.user_vectors, collaborative.user_bias, collaborative.item_vectors, collaborative.item_bias
    )
    return torch.cat(rows)


@torch.no_grad()
def soft_table(projector: Projector, collaborative: Collaborative) -> torch.Tensor:
    """Return the soft tokens (U + I, D) fp32 of all users, then all items, computed once."""
    return projector(input_table(collaborative))  # type: ignore[no-any-return]


def _safe_std(inputs: torch.Tensor) -> torch.Tensor:
    """Return the deviation per dimension, 1 where a dimension is constant."""
    std = inputs.std(0, correction=0)
    return torch.where(std > 1e-8, std, torch.ones_like(std))
