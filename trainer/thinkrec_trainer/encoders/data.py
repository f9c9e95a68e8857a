# SPDX-License-Identifier: Apache-2.0
"""Rows as tensors, and parameters drawn from an explicit generator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from thinkrec_trainer.interactions import Interactions


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows as tensors on one device."""

    users: torch.Tensor
    """(N,) int64"""
    items: torch.Tensor
    """(N,) int64"""
    liked: torch.Tensor
    """(N,) float32, 0 or 1"""

    @classmethod
    def of(cls, rows: Interactions, device: torch.device) -> Batch:
        """Copy the rows to `device`."""
        return cls(
            torch.from_numpy(rows.users).to(device),
            torch.from_numpy(rows.items).to(device),
            torch.from_numpy(rows.liked.astype(np.float32)).to(device),
        )

    def take(self, index: torch.Tensor) -> Batch:
        """Return the rows at `index`."""
        return Batch(self.users[index], self.items[index], self.liked[index])


def normal(shape: tuple[int, ...], *, std: float, generator: torch.Generator, device: torch.device) -> torch.Tensor:
    """Return a leaf tensor of N(0, std^2) drawn on the CPU, so that every device starts from the same numbers."""
    return (torch.randn(shape, generator=generator) * std).to(device).requires_grad_()
