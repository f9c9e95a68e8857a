# SPDX-License-Identifier: Apache-2.0
"""Data order and randomness of a training run, both functions of (seed, place): a checkpoint holds a few integers.

Nothing here keeps a generator's state. A permutation depends on seed, stream and epoch; a step's dropout on seed and
step. So a resumed run sees exactly what an uninterrupted one would have seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")


def derived_seed(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed for one named purpose, independent of every other purpose's."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@dataclass(slots=True)
class Deck:
    """Walks through `size` indices in a fresh permutation per epoch."""

    name: str
    seed: int
    size: int
    drawn: int = 0
    """Indices handed out so far, over all epochs: the whole state."""
    _epoch: int = field(default=-1, repr=False)
    _order: Sequence[int] = field(default=(), repr=False)

    def draw(self, count: int) -> list[int]:
        """Return the next `count` indices; raise ValueError when there is nothing to draw from."""
        if self.size < 1:
            raise ValueError(f"deck {self.name!r} is empty")
        return [self._next() for _ in range(count)]

    def _next(self) -> int:
        epoch, place = divmod(self.drawn, self.size)
        if epoch != self._epoch:
            rng = np.random.default_rng(derived_seed(self.seed, self.name, epoch))
            self._epoch, self._order = epoch, rng.permutation(self.size).tolist()
        self.drawn += 1
        return self._order[place]


@dataclass(slots=True)
class Cursor:
    """Where a run stands: optimiser steps done, and how far each deck was drawn."""

    seed: int
    step: int = 0
    decks: dict[str, Deck] = field(default_factory=dict)

    def deck(self, name: str, size: int) -> Deck:
        """Return the deck of that name, made on first use; its size must not change within a run."""
        deck = self.decks.setdefault(name, Deck(name, self.seed, size))
        if deck.size != size:
            raise ValueError(f"deck {name!r} had {deck.size} indices when the run began and has {size} now")
        return deck

    def chance(self, name: str) -> float:
        """Return this step's uniform number in [0, 1) for one purpose."""
        return float(np.random.default_rng(derived_seed(self.seed, name, self.step)).random())

    def step_seed(self, name: str) -> int:
        """Return this step's seed for one purpose (dropout)."""
        return derived_seed(self.seed, name, self.step)

    def state(self) -> dict[str, object]:
        """Return the JSON form."""
        decks = {name: {"size": deck.size, "drawn": deck.drawn} for name, deck in sorted(self.decks.items())}
        return {"seed": self.seed, "step": self.step, "decks": decks}

    @classmethod
    def restore(cls, seed: int, step: int, decks: dict[str, dict[str, int]]) -> Cursor:
        """Return the cursor that `state` described."""
        made = {name: Deck(name, seed, deck["size"], deck["drawn"]) for name, deck in decks.items()}
        return cls(seed=seed, step=step, decks=made)


def sample_of(items: Sequence[Item], count: int, *, seed: int, name: str) -> list[Item]:
    """Return at most `count` items drawn without replacement, in their original order."""
    if count >= len(items):
        return list(items)
    rng = np.random.default_rng(derived_seed(seed, name))
    chosen = np.sort(rng.choice(len(items), size=count, replace=False))
    return [items[int(index)] for index in chosen]
