# SPDX-License-Identifier: Apache-2.0
"""Which variant a request belongs to, and who answers it now. Pure but for the draw of a Random assignment.

The variant follows from the experiment's uid and the user alone (`thinkrec_crds.buckets`, with the proof of what a
change of weights moves). Readiness does not change it: users of a variant that is not ready stay its users, and control
serves them meanwhile, which is a fallback. Were they given to other variants, a restart would mix the groups.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from thinkrec_crds.buckets import BUCKETS, PER_PERCENT, bucket_counts, bucket_of, bucket_table
from thinkrec_crds.traffic import TrafficExperiment, TrafficVariant

Draw = Callable[[], int]
"""Returns a bucket, 0 to 9999, at random."""


def draw_bucket() -> int:
    """Return a bucket at random: for assignments per request, and for which requests a Mirror copies."""
    return random.randrange(BUCKETS)  # noqa: S311 - a share of traffic, not a secret


@dataclass(frozen=True, slots=True)
class Assigned:
    """One request in one experiment."""

    variant: TrafficVariant
    """Whose user it is."""
    served_by: TrafficVariant
    """`variant`, or control while that is not ready."""
    bucket: int

    @property
    def fallback(self) -> bool:
        """Return whether another variant answers than the one assigned: recorded, and left out of the analysis."""
        return self.served_by is not self.variant


@dataclass(frozen=True, slots=True)
class Assigner:
    """One experiment, made ready to assign a request in a few microseconds."""

    experiment: TrafficExperiment
    table: bytes
    """Bucket -> index in `variants`."""
    variants: tuple[TrafficVariant, ...]
    """Control first, as in the experiment's `weights`."""
    weights: str
    """The shares in force, as exposures tell them: `control=90,new=10`."""

    @classmethod
    def of(cls, experiment: TrafficExperiment) -> Assigner:
        """Return the assigner; about 0.1 s for eight variants, so once per change of the traffic file."""
        weights = experiment.weights
        variants = tuple(experiment.variant(name) for name, _ in weights)
        table = bytes(BUCKETS) if experiment.mode == "Mirror" else bucket_table(experiment.uid, weights)
        return cls(experiment, table, variants, ",".join(f"{name}={weight}" for name, weight in weights))

    @property
    def control(self) -> TrafficVariant:
        """Return the variant that the others are compared with."""
        return self.variants[0]

    @property
    def counts(self) -> Mapping[str, int]:
        """Return the buckets of each variant, of 10 000: the shares that a sample-ratio check must expect."""
        if self.experiment.mode == "Mirror":
            return {variant.name: BUCKETS * (variant is self.control) for variant in self.variants}
        return bucket_counts(self.experiment.uid, self.experiment.weights)

    @property
    def degraded(self) -> bool:
        """Return whether some variant with users is not ready."""
        return any(variant.weight > 0 and not variant.ready for variant in self.variants)

    def unit(self, user_id: str, headers: Mapping[str, str], cookies: Mapping[str, str]) -> str | None:
        """Return what identifies the user: header or cookie, the userId without one; None: every request anew."""
        assignment = self.experiment.assignment
        if assignment.type == "Random":
            return None
        given = cookies if assignment.type == "Cookie" else headers
        return (given.get(assignment.key) if assignment.key else None) or user_id

    def assign(self, unit: str | None, draw: Draw = draw_bucket) -> Assigned:
        """Return variant and server; `unit` None draws the bucket.

        Users of a control that is not ready stay with it: served by another variant they would be its users.
        """
        bucket = draw() if unit is None else bucket_of(self.experiment.uid, unit)
        variant = self.variants[self.table[bucket]]
        return Assigned(variant, variant if variant.ready else self.control, bucket)

    def mirrors(self, draw: Draw = draw_bucket) -> tuple[TrafficVariant, ...]:
        """Return the variants that get a copy of this request: of a Mirror, all ready ones but control, or none."""
        percent = self.experiment.mirror_percent
        if percent is None or draw() >= percent * PER_PERCENT:
            return ()
        return tuple(variant for variant in self.variants[1:] if variant.ready)
