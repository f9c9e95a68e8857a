# SPDX-License-Identifier: Apache-2.0
"""traffic.json: what a gateway is told about the experiments whose users it shares out.

The operator writes it anew when weights or readiness change; the gateway reads it and keeps no state of its own. Who
gets which variant follows from this file and the user alone (`thinkrec_crds.buckets`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from thinkrec_crds.contract import Contract
from thinkrec_crds.experiment_spec import AssignmentType, TrafficMode
from thinkrec_crds.fields import HttpUrl, LabelName, ShortText

TRAFFIC_FILE = "traffic.json"
MOST_EXPERIMENTS = 16
"""On one gateway: each costs a request a hash and an exposure."""


class TrafficVariant(Contract):
    """One contender, and where its requests go."""

    name: LabelName
    revision: LabelName
    """As it is written into exposures."""
    url: HttpUrl | None = None
    """Base address of the gateway that answers for it; None: the model of the gateway that reads this file."""
    weight: int = Field(ge=0, le=100)
    """Share of users in percent, whether it is ready or not; without meaning for a Mirror."""
    ready: bool
    """Whether it can answer. A variant that cannot keeps its users, whom control serves meanwhile."""


class TrafficAssignment(Contract):
    """By what a request is given to a variant."""

    type: AssignmentType = "HashedHeader"
    key: ShortText | None = None
    """Name of the header or cookie; None, and a request without it: the request's userId."""


class TrafficExperiment(Contract):
    """One experiment: variants, shares and who is control. All broken rules are told at once."""

    uid: ShortText
    """metadata.uid: two experiments of one name, one after the other, share out independently."""
    name: LabelName
    mode: TrafficMode
    assignment: TrafficAssignment = TrafficAssignment()
    mirror_percent: Annotated[int, Field(ge=1, le=100)] | None = None
    """Of a Mirror: the share of requests that the other variants get a copy of, in percent."""
    control: LabelName
    variants: tuple[TrafficVariant, ...] = Field(min_length=2, max_length=8)

    @property
    def weights(self) -> tuple[tuple[str, int], ...]:
        """Return (name, weight in percent), control first and the others by name: the same for every order of them."""
        ordered = sorted(self.variants, key=lambda variant: (variant.name != self.control, variant.name))
        return tuple((variant.name, variant.weight) for variant in ordered)

    def variant(self, name: str) -> TrafficVariant:
        """Return the variant of that name."""
        return next(variant for variant in self.variants if variant.name == name)

    @model_validator(mode="after")
    def _keep_rules(self) -> Self:
        _refuse([*self._about_variants(), *self._about_mode()], f"experiment {self.name!r}")
        return self

    def _about_variants(self) -> list[str]:
        names = [variant.name for variant in self.variants]
        found = [f"variant {name!r} is named twice" for name in _repeated(names)]
        if self.control not in names:
            found.append(f"control {self.control!r} is none of the variants {', '.join(names)}")
        total = sum(variant.weight for variant in self.variants)
        if self.mode != "Mirror" and total != 100:
            found.append(f"the weights of its variants add up to {total}; they must add up to 100")
        return found

    def _about_mode(self) -> list[str]:
        found = []
        if self.mode == "Canary" and len(self.variants) != 2:
            found.append(f"a Canary has two variants, not {len(self.variants)}")
        if self.mode == "Mirror" and self.mirror_percent is None:
            found.append("a Mirror needs mirrorPercent")
        if self.mode != "Mirror" and self.mirror_percent is not None:
            found.append("mirrorPercent belongs to a Mirror only")
        if self.assignment.type == "Random" and self.assignment.key is not None:
            found.append("assignment.key has no meaning for type Random")
        return found


class TrafficTable(Contract):
    """The whole file."""

    schema_version: Literal[1] = 1
    experiments: tuple[TrafficExperiment, ...] = Field(default=(), max_length=MOST_EXPERIMENTS)
    """In the order of precedence: where two would move a request, the first one does."""

    @model_validator(mode="after")
    def _are_different(self) -> Self:
        found = [f"two experiments have the uid {uid!r}" for uid in _repeated([e.uid for e in self.experiments])]
        found += [f"two experiments are called {name!r}" for name in _repeated([e.name for e in self.experiments])]
        _refuse(found, "the traffic table")
        return self


def _repeated(names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})


def _refuse(problems: list[str], owner: str) -> None:
    if problems:
        told = {"owner": owner, "problems": "; ".join(problems)}
        raise PydanticCustomError("traffic", "{owner}: {problems}", told)
