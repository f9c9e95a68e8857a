# SPDX-License-Identifier: Apache-2.0
"""What the stage `analyse` leaves: every look at an experiment's users so far, and the newest one as flat numbers.

All of a status and a verdict goes through a termination message, which is small. Variants, metrics and guardrails are
named by their place in the stage's parameters: `0/m0` is the first variant's value of the first metric, `1/m0/effect`
the second one's difference from control, `1/g2/violated` is 1 where it breaks the third guardrail and absent elsewhere.
How many are broken is a number of its own, which is never left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import AwareDatetime, Field

from thinkrec_crds.artifact import Key
from thinkrec_crds.contract import Contract
from thinkrec_crds.flat_numbers import MOST_BYTES, Measured, packed, read

FINDINGS_NAME = "findings.json"
EVENTS_PREFIX = "events-"
"""Of the roles under which simulated events are read."""
EARLIER_ROLE = "earlier"
"""Of simulated events: those until the look before, which the stage takes over into its own output."""
PREVIOUS_ROLE = "previous"
"""The look before: its history goes on."""
MOST_LOOKS = 400
"""Kept in the history; beyond it every second one of the older half is dropped."""


class MetricValue(Contract):
    """One metric of one variant; null is "cannot be told"."""

    variant: str
    metric: str
    value: float | None = None
    lower: float | None = None
    upper: float | None = None
    users: int = 0


class MetricEffect(Contract):
    """A variant minus control on one metric."""

    variant: str
    metric: str
    effect: float | None = None
    lower: float | None = None
    upper: float | None = None
    p_value: float | None = None
    """Corrected for the number of comparisons."""
    significant: bool = False
    better: bool = False
    relative: float | None = None
    """As a share of control's value."""
    reduction: float = 0.0
    """Share of the variance that CUPED took away."""


class GuardrailCheck(Contract):
    """One guardrail of one variant other than control."""

    variant: str
    guardrail: str
    value: float | None = None
    lower: float | None = None
    upper: float | None = None
    regression: float | None = None
    violated: bool = False


class GroupEffect(Contract):
    """The deciding metric's difference among the users of one group (an expert's)."""

    group: str
    variant: str
    effect: float | None = None
    lower: float | None = None
    upper: float | None = None
    users: int = 0


class MirrorSummary(Contract):
    """How a mirrored variant's answers differ from control's, for one branch of the gate."""

    variant: str
    branch: str
    """Empty: all of them."""
    requests: int
    errors: int
    overlap: float | None = None
    rank_correlation: float | None = None
    score_shift: float | None = None
    latency_milliseconds: float | None = None
    """Mean."""


class Look(Contract):
    """What was known at one moment."""

    end: AwareDatetime
    users: dict[str, int]
    """Variant -> users counted."""
    exposures: dict[str, int] = Field(default_factory=dict)
    """Variant -> requests, whether they are counted or not."""
    fallbacks: dict[str, int] = Field(default_factory=dict)
    """Variant -> requests that control answered for it; what it failed to answer is counted, as an error."""
    expected: dict[str, float] = Field(default_factory=dict)
    """Variant -> its share of the users, by the buckets that no weight ever moved."""
    sample_ratio_p_value: float | None = None
    void: bool = False
    """Users did not arrive in the expected proportion."""
    enough: bool = False
    """Each variant has the users it needs."""
    winner: str | None = None
    values: tuple[MetricValue, ...] = ()
    effects: tuple[MetricEffect, ...] = ()
    guardrails: tuple[GuardrailCheck, ...] = ()
    unavailable: tuple[str, ...] = ()
    """Metrics and guardrails that gave no value, each with why."""


class FindingsReport(Contract):
    """The content of findings.json."""

    schema_version: int = 1
    control: str
    variants: tuple[str, ...]
    metrics: tuple[str, ...] = ()
    guardrails: tuple[str, ...] = ()
    looks: tuple[Look, ...]
    """Oldest first; the last one is the newest and whole, older ones keep the deciding metric only."""
    groups: tuple[GroupEffect, ...] = ()
    mirrored: tuple[MirrorSummary, ...] = ()
    previous: Key | None = None
    """Key of the look that `looks` was gone on from; its artifact stays until the look after this one."""

    @property
    def newest(self) -> Look:
        """Return the newest look."""
        return self.looks[-1]

    def numbers(self, *, most_bytes: int = MOST_BYTES) -> dict[str, float]:
        """Return what a status and a verdict need as flat numbers, the most important ones first.

        What does not fit into `most_bytes` of JSON is left out, beginning with metrics that decide nothing. Undefined
        numbers are absent.
        """
        return packed(self._by_importance(), most_bytes=most_bytes)

    def _by_importance(self) -> Iterator[dict[str, float | None]]:
        look, place = self.newest, {name: at for at, name in enumerate(self.variants)}
        won = place[look.winner] if look.winner is not None else None
        yield {
            "guardrails/violated": sum(check.violated for check in look.guardrails),
            "guardrails/silent": sum(told.startswith("guardrail ") for told in look.unavailable),
            "void": look.void,
            "enough": look.enough,
            "ratio/p": look.sample_ratio_p_value,
            "unavailable": len(look.unavailable),
            "silent": bool(self.metrics) and any(t.startswith(f"metric {self.metrics[0]}:") for t in look.unavailable),
            "winner": won,
        }
        yield {f"{place[name]}/users": users for name, users in look.users.items()}
        yield {f"{place[name]}/exposures": requests for name, requests in look.exposures.items() if name in place}
        yield from (self._effect(place, found) for found in look.effects if found.metric in self.metrics[:1])
        for check in look.guardrails:
            if check.violated:
                yield {f"{place[check.variant]}/g{self.guardrails.index(check.guardrail)}/violated": True}
        yield from (self._value(place, found) for found in look.values if found.metric in self.metrics[:1])
        yield from (self._guardrail(place, check) for check in look.guardrails)
        yield from (self._effect(place, found) for found in look.effects if found.metric in self.metrics[1:])
        yield from (self._value(place, found) for found in look.values if found.metric in self.metrics[1:])

    def _effect(self, place: Mapping[str, int], found: MetricEffect) -> dict[str, float | None]:
        name = f"{place[found.variant]}/m{self.metrics.index(found.metric)}/effect"
        told: dict[str, float | None] = {name: found.effect, f"{name}/lower": found.lower, f"{name}/upper": found.upper}
        return told | {
            f"{name}/p": found.p_value,
            f"{name}/significant": found.significant,
            f"{name}/better": found.better,
        }

    def _value(self, place: Mapping[str, int], found: MetricValue) -> dict[str, float | None]:
        name = f"{place[found.variant]}/m{self.metrics.index(found.metric)}"
        return {name: found.value, f"{name}/lower": found.lower, f"{name}/upper": found.upper}

    def _guardrail(self, place: Mapping[str, int], check: GuardrailCheck) -> dict[str, float | None]:
        name = f"{place[check.variant]}/g{self.guardrails.index(check.guardrail)}"
        return {name: check.value, f"{name}/regression": check.regression}


def value(numbers: Mapping[str, float], variant: int, metric: int) -> Measured | None:
    """Return a metric of the variant at this place, or None where the numbers have none."""
    return read(numbers, f"{variant}/m{metric}")


def effect(numbers: Mapping[str, float], variant: int, metric: int) -> Measured | None:
    """Return variant minus control on a metric, or None where the numbers have none."""
    return read(numbers, f"{variant}/m{metric}/effect")


def significant(numbers: Mapping[str, float], variant: int, metric: int) -> bool:
    """Return whether a difference from control is more than chance."""
    return numbers.get(f"{variant}/m{metric}/effect/significant", 0.0) > 0


def users(numbers: Mapping[str, float], variant: int) -> int:
    """Return the users that were counted of a variant."""
    return int(numbers.get(f"{variant}/users", 0))


def exposures(numbers: Mapping[str, float], variant: int) -> int:
    """Return the requests of a variant's users, counted or not."""
    return int(numbers.get(f"{variant}/exposures", 0))


def violated(numbers: Mapping[str, float], variant: int, guardrail: int) -> bool:
    """Return whether a variant broke a guardrail."""
    return numbers.get(f"{variant}/g{guardrail}/violated", 0.0) > 0


def guardrail(numbers: Mapping[str, float], variant: int, place: int) -> tuple[float | None, float | None]:
    """Return a guardrail's value and how much worse it is than control's, each None where it is not known."""
    name = f"{variant}/g{place}"
    return numbers.get(name), numbers.get(f"{name}/regression")
