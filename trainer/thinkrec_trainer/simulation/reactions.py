# SPDX-License-Identifier: Apache-2.0
"""What visitors do about what they are shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from thinkrec_crds.analysis_spec import EventMetric
from thinkrec_trainer.metrics.rows import Bools, Ints
from thinkrec_trainer.simulation.draws import Draws
from thinkrec_trainer.simulation.lists import NOTHING
from thinkrec_trainer.simulation.people import Visits

LOOKS_WITHIN = (0.6, 0.85, 1.0)
"""Probability that the visitor looks at the first place, at one of the first two, and so on."""
IF_LIKED, IF_NOT = 0.8, 0.05
LONGEST_DELAY = 60_000_000
"""Microseconds from the exposure to the event."""


@dataclass(frozen=True, slots=True)
class Happening:
    """A name of events, and when they happen."""

    name: str
    always: bool
    """At every visit, and before anything else: a Ratio divides by it."""
    value: float | None
    """What one event is worth, where values are summed."""


@dataclass(frozen=True, slots=True, eq=False)
class Reactions:
    """E events of one name."""

    happening: Happening
    visits: Ints
    """(E,) place of the visit."""
    rows: Ints
    """(E,) row of the tastes: the item that the visitor looked at."""
    moments: Ints
    """(E,) microseconds after the start, after the visit and before the end."""


def happenings_of(events: Sequence[EventMetric]) -> tuple[Happening, ...]:
    """Return what can happen, each name once however many metrics count it."""
    always = {event.denominator for event in events if event.denominator is not None}
    summed = {event.name for event in events if event.type == "Mean"}
    names = dict.fromkeys(name for event in events for name in (event.name, event.denominator) if name is not None)
    return tuple(Happening(name, name in always, 1.0 if name in summed else None) for name in names)


def looked_at(shown: Ints, visits: Visits, draws: Draws) -> Ints:
    """Return (N,) the row that each visitor looks at, of (N, SHOWN) rows; the last one where the list is shorter."""
    wanted = np.searchsorted(LOOKS_WITHIN, draws.uniform("attention", *visits.place), side="right")
    lengths = (shown != NOTHING).sum(axis=1)
    found: Ints = shown[np.arange(len(shown)), np.minimum(wanted, lengths - 1)]
    return found


def reactions_of(
    happenings: Sequence[Happening], visits: Visits, seen: Ints, liked: Bools, *, span: int, draws: Draws
) -> Iterator[Reactions]:
    """Yield the events of each name, given the (N,) rows that were looked at and whether each row is liked."""
    for happening in happenings:
        chance = np.where(liked[seen], IF_LIKED, IF_NOT)
        happens = draws.uniform(f"reaction/{happening.name}", *visits.place) < (1.0 if happening.always else chance)
        longest = np.where(happening.always, 1, np.minimum(span - 1 - visits.moments, LONGEST_DELAY))
        moments = visits.moments + 1 + draws.below(longest, f"delay/{happening.name}", *visits.place)
        yield Reactions(happening, np.flatnonzero(happens), seen[happens], moments[happens])
