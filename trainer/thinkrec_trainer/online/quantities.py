# SPDX-License-Identifier: Apache-2.0
"""The manifest's metrics and guardrails as numbers of each user: which columns of the table of users they are made of.

A metric and a guardrail may have one name and be different quantities, so their keys differ: `m/<name>`, `g/<name>`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from thinkrec_crds.analysis_spec import Analysis, AnalysisMetric, EventMetric, Guardrail, RequestField
from thinkrec_crds.fields import as_float
from thinkrec_trainer.analysis.sums import Floats, Kind
from thinkrec_trainer.analysis.winsorize import capped, capped_ratio

BEFORE = "before:"
"""Of the columns with what users did before the experiment."""
KNOWN = "known"
"""Whether a user had any event in that time."""
REQUESTS = "requests"
REQUEST_COLUMNS: dict[RequestField, str] = {
    "LatencyMilliseconds": "latency",
    "Error": "errors",
    "Empty": "empties",
}
LARGEST = 1e50
"""Of a user's value: intervals need its fourth power, which must be a number. Nobody's true value comes near."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Something that is added up over a user's events of one type."""

    what: Literal["count", "sum"]
    event: str

    @property
    def column(self) -> str:
        """Name of its column."""
        return f"{self.what}:{self.event}"


@dataclass(frozen=True, slots=True)
class Quantity:
    """One metric or guardrail that is counted per user."""

    key: str
    kind: Kind
    parts: tuple[Tally | str, ...]
    """Value, or numerator and denominator: a tally, or a column with something of the requests."""
    cap: float | None = None
    earlier: bool = False
    """Whether what users did before goes with it, for CUPED."""

    @property
    def tallies(self) -> tuple[Tally, ...]:
        """Return what it needs of the events."""
        return tuple(part for part in self.parts if isinstance(part, Tally))

    def columns(self, users: pl.DataFrame) -> Floats:
        """Return (U, C) columns as `analysis.sums` has them: outcome, then whether known before, and what was then."""
        outcome = self._values(users, "")
        if not self.earlier:
            return outcome
        known = users[KNOWN].to_numpy().astype(np.float64)[:, None]
        return np.hstack([outcome, known, np.where(known > 0, self._values(users, BEFORE), 0.0)])

    def _values(self, users: pl.DataFrame, prefix: str) -> Floats:
        names = [part.column if isinstance(part, Tally) else part for part in self.parts]
        found = [users[prefix + name].to_numpy().astype(np.float64) for name in names]
        found = [np.nan_to_num(values, posinf=LARGEST, neginf=-LARGEST).clip(-LARGEST, LARGEST) for values in found]
        if self.kind == "Conversion":
            found = [(values > 0).astype(np.float64) for values in found]
        elif self.cap is not None:
            found = (
                [capped(found[0], self.cap)] if self.kind == "Mean" else [*capped_ratio(found[0], found[1], self.cap)]
            )
        return np.stack(found, axis=1)


def metric_key(name: str) -> str:
    """Return a metric's key."""
    return f"m/{name}"


def guard_key(name: str) -> str:
    """Return a guardrail's key."""
    return f"g/{name}"


def quantities(given: Analysis | None) -> tuple[Quantity, ...]:
    """Return everything that is counted per user, the deciding metric first."""
    return tuple(_quantities(given)) if given is not None else ()


def _quantities(given: Analysis) -> Iterator[Quantity]:
    earlier = given.variance_reduction == "CUPED" and given.lookback_seconds > 0
    for metric in given.metrics:
        yield from _quantity(metric_key(metric.name), metric, earlier=earlier)
    for guard in given.guardrails:  # bounds are about the values themselves: no CUPED
        yield from _quantity(guard_key(guard.name), guard, earlier=False)


def _quantity(key: str, entry: AnalysisMetric | Guardrail, *, earlier: bool) -> Iterator[Quantity]:
    if entry.request is not None:
        yield Quantity(key, "Ratio", (REQUEST_COLUMNS[entry.request.field], REQUESTS))
    if entry.event is not None:
        cap = as_float(entry.event.cap) if entry.event.cap is not None else None
        yield Quantity(key, entry.event.type, _tallies(entry.event), cap, earlier)


def _tallies(event: EventMetric) -> tuple[Tally, ...]:
    if event.type == "Mean":
        return (Tally("sum", event.name),)
    if event.type == "Ratio":
        return Tally("count", event.name), Tally("count", event.denominator or "")
    return (Tally("count", event.name),)
