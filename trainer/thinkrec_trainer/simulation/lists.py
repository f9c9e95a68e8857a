# SPDX-License-Identifier: Apache-2.0
"""What a visitor could be shown, and what a variant shows of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thinkrec_trainer.metrics.rows import Floats, Ints
from thinkrec_trainer.simulation.draws import Draws
from thinkrec_trainer.simulation.people import Visits
from thinkrec_trainer.simulation.tastes import Tastes

SHOWN = 3
NOTHING = -1
"""In place of a row, where there are fewer than SHOWN."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """C rows of a taste that could be shown at N visits, each visit's together, in an order that no variant knows."""

    visits: Ints
    """(C,) place of the visit."""
    rows: Ints
    """(C,) row of the tastes."""
    count: int
    """N."""


def candidates_of(visits: Visits, tastes: Tastes, draws: Draws) -> Candidates:
    """Return a random half of the visitor's taste for each visit, one row at least."""
    whose = tastes.drawn(visits.numbers, draws)
    sizes = tastes.sizes[whose]
    owners, within = np.repeat(np.arange(len(sizes)), sizes), _counted(sizes)
    keys = draws.uniform("candidate", visits.numbers[owners], visits.ordinals[owners], within)
    order = np.lexsort((keys, owners))
    kept = order[_counted(sizes) < (sizes[owners] + 1) // 2]
    return Candidates(owners[kept], (tastes.starts[whose][owners] + within)[kept], len(sizes))


def lists_of(candidates: Candidates, scores: Floats) -> Ints:
    """Return (N, SHOWN) rows by falling score, given (C,) scores; ties stay in the candidates' order."""
    order = np.lexsort((-scores, candidates.visits))  # stable
    places = _counted(np.bincount(candidates.visits, minlength=candidates.count))
    shown = places < SHOWN
    found = np.full((candidates.count, SHOWN), NOTHING, dtype=np.int64)
    found[candidates.visits[shown], places[shown]] = candidates.rows[order[shown]]
    return found


def _counted(sizes: Ints) -> Ints:
    """Return 0, 1, … for each group of these sizes, one group after the other."""
    ends = np.cumsum(sizes)
    return np.arange(int(sizes.sum()), dtype=np.int64) - np.repeat(ends - sizes, sizes)
