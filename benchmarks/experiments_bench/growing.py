# SPDX-License-Identifier: Apache-2.0
"""Users who are in keep having events: values grow between looks, which the theory of final values does not know.

Worst is a user base that is soon complete and whose users are all alike: then every look brings news but no new user.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from experiments_bench.follow import LEVEL, spread
from experiments_bench.report import Table, say, share
from thinkrec_trainer.analysis.analyse import analyse
from thinkrec_trainer.analysis.results import Metric, Plan
from thinkrec_trainer.analysis.sums import Kind, Sums, sums_of

_NEW = 500
"""Users who come at each look, per variant; also the minimum."""
_PLAN = Plan("a", (Metric("m"),), {"a": 1.0, "b": 1.0}, (), _NEW, LEVEL, variance_reduction="None")


@dataclass(frozen=True, slots=True)
class Growth:
    """How users come and what they do."""

    name: str
    kind: Kind
    alike: bool
    """All users have the same rate of events; else rates are Gamma(0.5)."""
    coming: int
    """Looks at which users come."""
    looks: int = 20
    experiments: int = 2000


CASES = (
    Growth("mean, users alike, all in after look 4", "Mean", True, 4),
    Growth("mean, users differ, all in after look 4", "Mean", False, 4),
    Growth("conversion, all in after look 4", "Conversion", True, 4),
    Growth("mean, users alike, coming all the time", "Mean", True, 20, experiments=1000),
    Growth("mean, users alike, all in after look 10, 100 looks", "Mean", True, 10, 100, 500),
)


def table(seed: int, scale: float) -> Table:
    """Return the share of false winners."""
    rows = []
    for at, case in enumerate(CASES):
        say(case.name)
        count = max(2, round(case.experiments * scale))
        tasks = [(case, seed, at, first, min(first + 50, count)) for first in range(0, count, 50)]
        won = np.concatenate(spread(_chunk, tasks))
        rows.append({"metric": case.name, "looks": case.looks, "experiments": count, **share("always valid", won)})
    return Table("Growing values", f"A/A, {_NEW} users a variant come at a look, minimum {_NEW}", rows)


def _chunk(task: tuple[Growth, int, int, int, int]) -> npt.NDArray[np.bool_]:
    case, seed, at, first, last = task
    return np.array([_won(case, np.random.default_rng([seed, 100 + at, number])) for number in range(first, last)])


def _won(case: Growth, generator: np.random.Generator) -> bool:
    """Return whether one experiment had a winner at any look."""
    size = (2, case.coming * _NEW)
    rates = np.full(size, 0.1) if case.alike else generator.gamma(0.5, 0.2, size)
    values = np.zeros(size)
    for look in range(1, case.looks + 1):
        present = min(look, case.coming) * _NEW
        values[:, :present] += generator.poisson(rates[:, :present])
        if analyse(
            {name: {"m": _sums(case, row[:present])} for name, row in zip("ab", values, strict=True)}, _PLAN
        ).winner:
            return True
    return False


def _sums(case: Growth, values: npt.NDArray[np.float64]) -> Sums:
    return sums_of(case.kind, (values > 0).astype(np.float64) if case.kind == "Conversion" else values)
