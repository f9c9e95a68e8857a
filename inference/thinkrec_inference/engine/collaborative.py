# SPDX-License-Identifier: Apache-2.0
"""The frozen CF encoder's output (`collaborative.safetensors`): vectors and biases of users and items."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from thinkrec_inference.engine.errors import BundleError

COLLABORATIVE_NAME = "collaborative.safetensors"
_NAMES = ("user_vectors", "item_vectors", "user_bias", "item_bias", "offset")


@dataclass(frozen=True, slots=True, eq=False)
class Collaborative:
    """score(u, i) = user_vectors[u] . item_vectors[i] + user_bias[u] + item_bias[i] + offset; all fp32."""

    user_vectors: torch.Tensor
    """(U, d)"""
    item_vectors: torch.Tensor
    """(I, d)"""
    user_bias: torch.Tensor
    """(U,)"""
    item_bias: torch.Tensor
    """(I,)"""
    offset: torch.Tensor
    """(1,)"""

    @property
    def dimension(self) -> int:
        """Width d of the vectors."""
        return int(self.user_vectors.shape[1])

    def scores(self, user_index: int) -> torch.Tensor:
        """Return the CF scores of one user for all items, (I,) fp32."""
        return (
            self.item_vectors @ self.user_vectors[user_index]
            + self.user_bias[user_index]
            + self.item_bias
            + self.offset
        )

    def save(self, path: Path) -> None:
        """Write the safetensors file."""
        save_file({name: getattr(self, name).float().contiguous() for name in _NAMES}, path)

    @classmethod
    def load(cls, path: Path) -> Collaborative:
        """Read the safetensors file; raise BundleError naming missing or misshapen tensors."""
        if not path.is_file():
            raise BundleError(f"{path.name} is missing from {path.parent}; publish the bundle again")
        tensors = load_file(path)
        missing = [name for name in _NAMES if name not in tensors]
        if missing:
            raise BundleError(f"{path}: tensors {missing} are missing; it has {sorted(tensors)}")
        made = cls(**{name: tensors[name].float() for name in _NAMES})
        made._check(path)
        return made

    def _check(self, path: Path) -> None:
        """Refuse vectors and biases whose row counts disagree."""
        users, items, width = len(self.user_vectors), len(self.item_vectors), self.dimension
        expected = {"item_vectors": (items, width), "user_bias": (users,), "item_bias": (items,), "offset": (1,)}
        for name, shape in expected.items():
            found = tuple(getattr(self, name).shape)
            if found != shape:
                raise BundleError(
                    f"{path}: {name} has shape {found}, expected {shape} from user_vectors and item_vectors"
                )
