# SPDX-License-Identifier: Apache-2.0
"""What an analysis is asked, and what it answers. NaN is "cannot be told", and never significant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from thinkrec_crds.analysis_spec import AnalysisMethod, Direction, VarianceReduction
from thinkrec_trainer.analysis.ratio_mismatch import Mismatch
from thinkrec_trainer.analysis.sequences import FEWEST
from thinkrec_trainer.analysis.sums import Sums

Measured = Mapping[str, Mapping[str, Sums]]
"""Variant -> metric or guardrail -> its sums. What was not measured may be left out: it is undefined then.

A metric and a guardrail of one name are one and the same quantity.
"""


@dataclass(frozen=True, slots=True)
class Metric:
    """What is compared."""

    name: str
    direction: Direction = "Maximize"


@dataclass(frozen=True, slots=True)
class Guard:
    """What must stay within bounds; None is no bound."""

    name: str
    direction: Direction = "Minimize"
    minimum: float | None = None
    maximum: float | None = None
    max_regression: float | None = None
    """Most that it may be worse than control's value, as a share of that."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings, as the manifest's `analysis` has them."""

    control: str
    metrics: tuple[Metric, ...]
    """The first one decides."""
    shares: Mapping[str, float]
    """Variant -> expected share of the users counted, of any sum; its keys are the variants that take part."""
    guards: tuple[Guard, ...] = ()
    minimum_users: int = 1000
    """Of each variant, before anything is significant; see also `needed_users`."""
    level: float = 0.05
    """Chance of a false winner."""
    method: AnalysisMethod = "AlwaysValid"
    variance_reduction: VarianceReduction = "CUPED"
    at_end: bool = False
    """Whether this is the planned end; FixedHorizon decides nothing before."""

    def __post_init__(self) -> None:
        """Refuse what no analysis can follow."""
        if not self.metrics:
            raise ValueError("metrics must not be empty: the first one decides")
        if self.control not in self.shares:
            raise ValueError(f"control {self.control!r} has no expected share")
        if not 0 < self.level < 1:
            raise ValueError(f"level must be above 0 and below 1, not {self.level}")

    @property
    def needed_users(self) -> int:
        """Return the users that each variant needs: the always-valid theory does not hold for a handful."""
        return max(self.minimum_users, FEWEST) if self.method == "AlwaysValid" else self.minimum_users

    @property
    def others(self) -> tuple[str, ...]:
        """Return the variants that are compared with control."""
        return tuple(name for name in self.shares if name != self.control)

    def comparisons(self, metric: Metric) -> int:
        """Return how many comparisons share the level: those of the first metric, or of all others together."""
        beside = len(self.metrics) - 1
        return len(self.others) * (1 if metric == self.metrics[0] else beside)


@dataclass(frozen=True, slots=True)
class Value:
    """One metric of one variant, as it was measured: without CUPED, so that it can be recomputed from the log."""

    variant: str
    metric: str
    value: float
    lower: float
    upper: float
    users: int


@dataclass(frozen=True, slots=True)
class Effect:
    """A variant minus control on one metric."""

    variant: str
    metric: str
    effect: float
    """With CUPED, so it may differ a little from the difference of the two values: by what chance gave one of them."""
    lower: float
    upper: float
    p_value: float
    """Corrected for the number of comparisons: to be held against the level of the plan."""
    significant: bool
    """The interval excludes 0, each side has the users it needs, and the method allows a decision now."""
    better: bool
    """The effect points in the metric's direction; False where undefined."""
    relative: float
    """The effect as a share of control's value."""
    users: int
    """Of both sides."""
    reduction: float
    """Share of the variance that CUPED took away."""


@dataclass(frozen=True, slots=True)
class GuardCheck:
    """One guardrail of one variant that is not control."""

    variant: str
    guard: str
    value: float
    lower: float
    upper: float
    regression: float
    """How much worse than control, as a share of control's value; below 0 is better."""
    users: int
    violated: bool
    """By more than chance: the whole interval lies beyond a bound."""


@dataclass(frozen=True, slots=True)
class Findings:
    """The answer."""

    values: tuple[Value, ...]
    effects: tuple[Effect, ...]
    guards: tuple[GuardCheck, ...]
    mismatch: Mismatch
    enough: bool
    """Each variant has the users it needs."""
    winner: str | None
    """The variant that may be called better, None when there is none or the users did not arrive as expected."""

    def effect(self, variant: str, metric: str) -> Effect:
        """Return one effect.

        Raises:
            KeyError: the plan did not ask for it.
        """
        for found in self.effects:
            if (found.variant, found.metric) == (variant, metric):
                return found
        raise KeyError((variant, metric))
