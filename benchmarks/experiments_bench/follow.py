# SPDX-License-Identifier: Apache-2.0
"""Thousands of experiments, each analysed at every look with the library's own `analyse`, in several processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from experiments_bench.populations import Population
from thinkrec_crds.analysis_spec import VarianceReduction
from thinkrec_trainer.analysis import fixed, sequences
from thinkrec_trainer.analysis.analyse import analyse
from thinkrec_trainer.analysis.estimates import Difference, estimate
from thinkrec_trainer.analysis.results import Metric, Plan
from thinkrec_trainer.analysis.sums import Sums

Task = TypeVar("Task")
Result = TypeVar("Result")

LEVEL = 0.05
LOOKS = 20
_CHUNK = 125
"""Experiments per task: small enough to keep all processes busy to the end."""
_COLUMNS = ("effect", "lower", "upper", "always", "no_floors", "fixed", "fixed_lower", "fixed_upper", "reduction")


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of experiment; control is the first variant, the others share the lift."""

    name: str
    population: Population
    per_look: tuple[int, ...] = (1000, 1000)
    """Fresh users of each variant at each look."""
    lift: float = 0.0
    truth: float = 0.0
    """The effect that the lift makes."""
    experiments: int = 2000
    cuped: bool = False

    @property
    def plan(self) -> Plan:
        """Return the settings: the first look is the minimum."""
        shares = {f"v{at}": float(users) for at, users in enumerate(self.per_look)}
        reduction: VarianceReduction = "CUPED" if self.cuped else "None"
        return Plan("v0", (Metric("m"),), shares, (), min(self.per_look), LEVEL, variance_reduction=reduction)


@dataclass(frozen=True, slots=True)
class Followed:
    """What E experiments showed at L looks: (E, L) each; with several variants a decision is for any of them."""

    case: Case
    looks: dict[str, npt.NDArray[np.float64]] = field(repr=False)

    def __getitem__(self, name: str) -> npt.NDArray[np.float64]:
        """Return one column."""
        return self.looks[name]

    def ever(self, name: str) -> npt.NDArray[np.bool_]:
        """Return (E,) whether a decision was made at any look."""
        return np.asarray(self.looks[name].any(axis=1))

    def covered(self, lower: str = "lower", upper: str = "upper") -> npt.NDArray[np.bool_]:
        """Return (E, L) whether the interval has the truth in it."""
        return np.asarray((self.looks[lower] <= self.case.truth) & (self.case.truth <= self.looks[upper]))

    def stopping_look(self) -> float:
        """Return the median look of the first always-valid decision, from 1; infinity where most never decide."""
        first = np.where(self.ever("always"), self.looks["always"].argmax(axis=1) + 1, np.inf)
        return float(np.median(first))


def follow(cases: Sequence[Case], *, seed: int, scale: float = 1.0) -> list[Followed]:
    """Run all experiments of all cases; the same seed gives the same numbers whatever the number of processes."""
    tasks = [
        (case, seed, at, first, min(first + _CHUNK, count))
        for at, case in enumerate(cases)
        for count in [max(2, round(case.experiments * scale))]
        for first in range(0, count, _CHUNK)
    ]
    found: dict[int, list[npt.NDArray[np.float64]]] = {at: [] for at in range(len(cases))}
    for (_, _, at, _, _), chunk in zip(tasks, spread(_chunk, tasks), strict=True):
        found[at].append(chunk)
    whole = [np.concatenate(found[at]) for at in range(len(cases))]
    return [
        Followed(case, {name: rows[:, :, column] for column, name in enumerate(_COLUMNS)})
        for case, rows in zip(cases, whole, strict=True)
    ]


def spread(work: Callable[[Task], Result], tasks: Sequence[Task]) -> list[Result]:
    """Return what each task comes to, from as many processes as there are cores."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(work, tasks))


def _chunk(task: tuple[Case, int, int, int, int]) -> npt.NDArray[np.float64]:
    case, seed, at, first, last = task
    return np.stack([_experiment(case, np.random.default_rng([seed, at, number])) for number in range(first, last)])


def _experiment(case: Case, generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return (L, columns): fresh users come, their sums are merged, all is analysed."""
    plan, arms, rows = case.plan, dict[str, Sums](), []
    for _ in range(LOOKS):
        for at, (name, users) in enumerate(zip(plan.shares, case.per_look, strict=True)):
            fresh = case.population(generator, users, case.lift if at else 0.0)
            arms[name] = arms[name].merged(fresh) if name in arms else fresh
        rows.append(_look(arms, plan))
    return np.array(rows)


def _look(arms: dict[str, Sums], plan: Plan) -> tuple[float, ...]:
    found = analyse({name: {"m": sums} for name, sums in arms.items()}, plan).effects
    level, minimum = LEVEL / len(found), plan.minimum_users
    plain = [Difference(estimate(arms["v0"]), estimate(arms[one.variant])) for one in found]
    tests = [fixed.compare(one, level=level) for one in plain]
    return (
        found[0].effect,
        found[0].lower,
        found[0].upper,
        any(one.significant for one in found),
        any(sequences.compare(one, minimum=minimum, level=level).excludes_zero for one in plain),
        any(test.excludes_zero for test in tests),
        tests[0].lower,
        tests[0].upper,
        found[0].reduction,
    )
