# SPDX-License-Identifier: Apache-2.0
"""Who comes, when, how often, and whose user he or she is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from thinkrec_crds.buckets import BUCKETS, bucket_of, bucket_table
from thinkrec_crds.stages import SimulateParameters
from thinkrec_trainer.metrics.rows import Ints
from thinkrec_trainer.simulation.draws import Draws
from thinkrec_trainer.simulation.names import user_id
from thinkrec_trainer.simulation.tastes import Tastes

MOST_VISITS = 3


@dataclass(frozen=True, slots=True, eq=False)
class People:
    """P persons."""

    numbers: Ints
    """(P,)"""
    ids: npt.NDArray[np.object_]
    """(P,) their user ids."""
    buckets: Ints
    """(P,)"""
    variants: Ints
    """(P,) place in the weights of the variant that serves the person."""


@dataclass(frozen=True, slots=True, eq=False)
class Visits:
    """N visits."""

    persons: Ints
    """(N,) place of the visitor among the people."""
    numbers: Ints
    """(N,) number of the visitor: what draws go by."""
    ordinals: Ints
    """(N,) 0 for the first visit of a person."""
    moments: Ints
    """(N,) microseconds after the start; at least two before the end."""

    @property
    def place(self) -> tuple[Ints, Ints]:
        """What draws about a visit depend on."""
        return self.numbers, self.ordinals


def people_of(given: SimulateParameters, tastes: Tastes, draws: Draws) -> People:
    """Return everybody who comes; in a Mirror all are control's users."""
    numbers = np.arange(given.first_user, given.first_user + given.users, dtype=np.int64)
    owners = tastes.users[tastes.drawn(numbers, draws)].tolist()
    ids = [user_id(number, owner) for number, owner in zip(numbers.tolist(), owners, strict=True)]
    buckets = np.array([bucket_of(given.experiment, name) for name in ids], dtype=np.int64)
    return People(numbers, np.array(ids, dtype=object), buckets, _variant_of_bucket(given)[buckets])


def _variant_of_bucket(given: SimulateParameters) -> Ints:
    """Return for each bucket the place of its variant in the weights."""
    if given.mode == "Mirror":
        control = [name for name, _ in given.weights].index(given.control)
        return np.full(BUCKETS, control, dtype=np.int64)
    return np.frombuffer(bucket_table(given.experiment, given.weights), dtype=np.uint8).astype(np.int64)


def visits_of(people: People, span: int, draws: Draws) -> Visits:
    """Return all visits within `span` microseconds, at least 2, so that something can follow each before the end."""
    counts = 1 + draws.below(np.full_like(people.numbers, MOST_VISITS), "visits", people.numbers)
    moments = np.zeros((len(counts), MOST_VISITS), dtype=np.int64)
    before = np.zeros_like(people.numbers)
    for ordinal in range(MOST_VISITS):
        left = span - 1 - before
        before = before + draws.below(left, "moment", people.numbers, np.full_like(people.numbers, ordinal))
        moments[:, ordinal] = before
    persons, ordinals = np.nonzero(np.arange(MOST_VISITS) < counts[:, None])
    return Visits(persons, people.numbers[persons], ordinals, moments[persons, ordinals])
