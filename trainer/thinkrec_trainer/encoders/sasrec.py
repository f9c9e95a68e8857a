# SPDX-License-Identifier: Apache-2.0
"""SASRec on labels: a causal transformer over the user's past says how the next item will be liked.

Source: Kang and McAuley 2018 (arXiv 1808.09781): self-attention blocks over item and position embeddings, the next item
scored by the dot product with the state. Two changes, both because the labels are likes and dislikes of items that were
all consumed. A past item enters as item * gate[label] + label embedding, with gates that start at -1 and +1, so that
attention can average "liked minus disliked" (adding the label alone, no layer before the second could tell which item
it belongs to: on a checkerboard of tastes that learnt nothing). And the loss is pointwise on the next item's label
instead of contrasting it with items never seen. A linear head reads the user's readiness to like from the state.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from thinkrec_inference.engine.collaborative import Collaborative
from thinkrec_trainer.encoders.data import normal
from thinkrec_trainer.encoders.fit import FitOptions
from thinkrec_trainer.interactions import Interactions

LENGTH = 50
"""Past items the state sees (the paper: 50 to 200)."""
BLOCKS = 2
HEADS = 2
DROPOUT = 0.2
INITIAL_STD = 0.05
_VECTOR_BATCH = 512
"""Users whose states are computed at once."""


def options(*, epochs: int, learning_rate: float, seed: int) -> FitOptions:
    """Return the loop's settings; a unit is a window of LENGTH rows, so 32 units are up to 1600 rows."""
    return FitOptions(epochs, 2 * learning_rate, batch=32, weight_decay=1.0, seed=seed)


@dataclass(frozen=True, slots=True)
class Windows:
    """W windows of consecutive rows of one user, padded at the end; each row is followed by its target."""

    items: npt.NDArray[np.int64]
    """(W, LENGTH + 1); padding is item 0 with `present` false."""
    liked: npt.NDArray[np.int64]
    """(W, LENGTH + 1), 0 or 1"""
    present: npt.NDArray[np.bool_]
    """(W, LENGTH + 1)"""


def cut_windows(train: Interactions) -> Windows:
    """Cut users' rows into windows that overlap by one row: every row but a user's first is a target exactly once."""
    starts, stops = [], []
    first = np.searchsorted(train.users, np.arange(train.user_count + 1))
    for begin, end in itertools.pairwise(first.tolist()):
        for start in range(begin, max(end - 1, begin), LENGTH):
            starts.append(start)
            stops.append(min(start + LENGTH + 1, end))
    return _gather(train, np.array(starts, dtype=np.int64), np.array(stops, dtype=np.int64), LENGTH + 1)


def last_rows(train: Interactions) -> Windows:
    """Return each user's last LENGTH train rows, (U, LENGTH): what the user's vector is the state after."""
    first = np.searchsorted(train.users, np.arange(train.user_count + 1))
    return _gather(train, np.maximum(first[:-1], first[1:] - LENGTH), first[1:], LENGTH)


def _gather(train: Interactions, starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64], width: int) -> Windows:
    at = starts[:, None] + np.arange(width)
    present = at < stops[:, None]
    at = np.where(present, at, 0)
    return Windows(np.where(present, train.items[at], 0), np.where(present, train.liked[at], 0), present)


class SasRec:
    """The sequence encoder; satisfies `fit.Encoder`."""

    def __init__(self, train: Interactions, *, dimension: int, seed: int, device: torch.device) -> None:
        """Draw all parameters from `seed`.

        Raises:
            ValueError: `dimension` is not a multiple of the number of heads.
        """
        if dimension % HEADS:
            raise ValueError(f"collaborative.dimension must be a multiple of {HEADS} for SASRec, got {dimension}")
        generator = torch.Generator().manual_seed(seed)
        windows, last = cut_windows(train), last_rows(train)
        self._windows = tuple(
            torch.from_numpy(part).to(device) for part in (windows.items, windows.liked, windows.present)
        )
        self._last = tuple(torch.from_numpy(part).to(device) for part in (last.items, last.liked, last.present))
        self._tensors = _parameters(train.item_count, dimension, generator, device)
        self._offset = torch.full((1,), train.logit_of_mean(), device=device)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return embeddings, blocks, head and item biases."""
        return self._tensors

    def units(self) -> int:
        """Return the number of windows."""
        return len(self._windows[0])

    def loss(self, index: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return the mean cross-entropy over the targets of the windows at `index`."""
        items, liked, present = (part[index] for part in self._windows)
        states = self._states(items[:, :-1], liked[:, :-1], generator)
        logit = (states * self._tensors["item"][items[:, 1:]]).sum(-1) + states @ self._tensors["head"]
        logit = logit + self._tensors["item_bias"][items[:, 1:]] + self._offset
        each = functional.binary_cross_entropy_with_logits(logit, liked[:, 1:].float(), reduction="none")
        targets = present[:, 1:].float()
        return (each * targets).sum() / targets.sum().clamp_min(1.0)

    def vectors(self) -> Collaborative:
        """Return the states after each user's last train row, and the item embeddings."""
        with torch.no_grad():
            batches = zip(*(torch.split(part, _VECTOR_BATCH) for part in self._last), strict=True)
            states = torch.cat([self._state_after(*batch) for batch in batches])
            bias = states @ self._tensors["head"]
        tensors = (states, self._tensors["item"], bias, self._tensors["item_bias"], self._offset)
        return Collaborative(*(tensor.detach().cpu() for tensor in tensors))

    def _state_after(self, items: torch.Tensor, liked: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """(u, d) state at the last present row; users without one get a state of padding, zeroed later as cold."""
        states = self._states(items, liked, None)
        last = (present.sum(-1) - 1).clamp_min(0)
        return states[torch.arange(len(states), device=states.device), last]

    def _states(self, items: torch.Tensor, liked: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """(w, L, d) causal states; padding lies after the rows, where causality keeps it from being seen."""
        named = self._tensors
        scale = math.sqrt(named["item"].shape[-1])
        hidden = named["item"][items] * named["gate"][liked] * scale + named["label"][liked]
        hidden = dropout(hidden + named["position"][: items.shape[1]], generator)
        for block in range(BLOCKS):
            parts = {name.split(".")[1]: value for name, value in named.items() if name.startswith(f"block{block}.")}
            hidden = _block(hidden, parts, generator)
        return _normed(hidden, named["norm"])


def dropout(values: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    """Inverted dropout from an explicit generator (torch's own reads the global seed); no generator, no dropout."""
    if generator is None:
        return values
    keep = torch.rand(values.shape, generator=generator) >= DROPOUT
    return values * keep.to(values.device) / (1 - DROPOUT)


def _normed(values: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    return functional.layer_norm(values, gain.shape, weight=gain)


def _block(hidden: torch.Tensor, named: dict[str, torch.Tensor], generator: torch.Generator | None) -> torch.Tensor:
    """One pre-norm block: causal self-attention, then a two-layer ReLU network, each with a residual."""
    batch, length, width = hidden.shape
    mixed = functional.linear(_normed(hidden, named["norm1"]), named["qkv"])
    query, key, value = mixed.view(batch, length, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
    seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    seen = functional.linear(seen.transpose(1, 2).reshape(batch, length, width), named["out"])
    hidden = hidden + dropout(seen, generator)
    inner = functional.relu(functional.linear(_normed(hidden, named["norm2"]), named["up"]))
    return hidden + dropout(functional.linear(inner, named["down"]), generator)


def _parameters(items: int, width: int, generator: torch.Generator, device: torch.device) -> dict[str, torch.Tensor]:
    """Draw every parameter; gains start at one, biases and head at zero."""
    shapes: dict[str, tuple[int, ...]] = {"item": (items, width), "label": (2, width), "position": (LENGTH, width)}
    for block in range(BLOCKS):
        square = {"qkv": (3 * width, width), "out": (width, width), "up": (width, width), "down": (width, width)}
        shapes |= {f"block{block}.{name}": shape for name, shape in square.items()}
    drawn = {name: normal(shape, std=INITIAL_STD, generator=generator, device=device) for name, shape in shapes.items()}
    gains = ["norm", *(f"block{block}.norm{half}" for block in range(BLOCKS) for half in (1, 2))]
    drawn |= {name: torch.ones(width, device=device, requires_grad=True) for name in gains}
    drawn["gate"] = torch.tensor([[-1.0], [1.0]]).repeat(1, width).to(device).requires_grad_()
    zeros = {"head": width, "item_bias": items}
    return drawn | {name: torch.zeros(size, device=device, requires_grad=True) for name, size in zeros.items()}
