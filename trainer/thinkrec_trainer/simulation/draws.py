# SPDX-License-Identifier: Apache-2.0
"""Random numbers by place, not by order: each is a function of seed, purpose and counters such as person and visit.

A generator's next number depends on how many were drawn before, so one person more would change all that follow. Here
counters go through the mixing function of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014), whole arrays at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from thinkrec_trainer.cursor import derived_seed
from thinkrec_trainer.metrics.rows import Floats, Ints

Words = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True, slots=True)
class Draws:
    """Everything that is random in one simulation."""

    seed: int

    def uniform(self, purpose: str, *counters: Ints) -> Floats:
        """Return (N,) numbers from 0 up to, not including, 1 for N places; purposes are independent of each other."""
        state = words(derived_seed(self.seed, "simulate", purpose), *counters)
        return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def below(self, limits: Ints, purpose: str, *counters: Ints) -> Ints:
        """Return (N,) whole numbers from 0 up to, not including, each one's own limit, which is at least 1."""
        return (self.uniform(purpose, *counters) * limits).astype(np.int64)


def words(key: int, *counters: Ints) -> Words:
    """Return (N,) words of 64 bits: SplitMix64's output after seed `key`, number `counter`, once for each counter."""
    state: Words = np.full(len(counters[0]), key, dtype=np.uint64)
    for counter in counters:
        state = _mixed(state + _GOLDEN * (counter.astype(np.uint64) + np.uint64(1)))
    return state


def _mixed(state: Words) -> Words:
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    return state ^ (state >> np.uint64(31))
