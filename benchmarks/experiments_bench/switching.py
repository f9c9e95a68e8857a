# SPDX-License-Identifier: Apache-2.0
"""A weight is raised and moves users: five ways to count them, one of them right.

Two periods, before and after the change; users differ in how often they come. The variant has the buckets below its
weight, so raising it moves the buckets between. A switcher is a user who came in both periods and was moved. Counted:

    both            each period's value goes to the variant that was in force; a switcher is a user of both
    last seen       a user belongs to the variant seen last, with all values
    no switchers    users who saw both variants are left out
    first seen      a user belongs to the variant seen first, with all values
    kept buckets    only users of buckets that were never moved, whether they came or not
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from experiments_bench.follow import LEVEL, spread
from experiments_bench.report import Cell, Row, Table, say, share
from thinkrec_trainer.analysis.analyse import analyse
from thinkrec_trainer.analysis.results import Findings, Metric, Plan
from thinkrec_trainer.analysis.sums import sums_of

_USERS = 40_000
_CHANGES = ((0.1, 0.15), (0.1, 0.3), (0.1, 0.5), (0.1, 0.75))
_LIFT = 0.1
_PLAN = Plan(
    "control", (Metric("m"),), {"control": 1.0, "variant": 1.0}, (), 500, LEVEL, "FixedHorizon", "None", at_end=True
)
Floats = npt.NDArray[np.float64]
Counted = Mapping[str, tuple[Floats, Floats]]
"""Way of counting -> values of control's users, values of the variant's users."""


def table(seed: int, scale: float) -> Table:
    """Return bias and false winners of each way, for small and large changes of the weight."""
    rows: list[Row] = []
    count = max(10, round(400 * scale))
    for change in _CHANGES:
        say(f"weight {change[0]:.0%} to {change[1]:.0%}")
        worlds = [spread(_world, [(seed, number, change, lift) for number in range(count)]) for lift in (0.0, _LIFT)]
        switchers = float(np.mean([share_ for share_, _ in worlds[0]]))
        for way in worlds[0][0][1]:
            without, lifted = ([found[way] for _, found in world] for world in worlds)
            rows.append(_row(change, switchers, way, without, lifted))
    return Table(
        "Switchers",
        "A/A and A/B with a lift of 10 %; a fixed test at the end, so 5 % of A/A should be significant",
        rows,
    )


def _row(
    change: tuple[float, float], switchers: float, way: str, without: list[Findings], lifted: list[Findings]
) -> dict[str, Cell]:
    return {
        "weight": f"{change[0]:.0%} to {change[1]:.0%}",
        "switchers %": 100 * switchers,
        "counted": way,
        "bias without an effect %": 100 * float(np.mean([one.effects[0].relative for one in without])),
        **share("false", np.array([one.effects[0].significant for one in without])),
        "lift found, 10 % is true %": 100 * float(np.mean([one.effects[0].relative for one in lifted])),
        "users": int(np.mean([one.effects[0].users for one in lifted])),
    }


def _world(task: tuple[int, int, tuple[float, float], float]) -> tuple[float, dict[str, Findings]]:
    """Return the share of switchers, and the findings of each way to count."""
    seed, number, change, lift = task
    generator = np.random.default_rng([seed, 400, number])
    bucket, eager = generator.random(_USERS), generator.gamma(0.5, 2.0, _USERS)
    came = generator.poisson(eager, (2, _USERS))
    variant = np.stack([bucket < weight for weight in change])
    values = generator.poisson(0.5 * came * np.where(variant, 1 + lift, 1.0)).astype(np.float64)
    switched = (came > 0).all(axis=0) & (variant[0] != variant[1])
    seen = (came > 0).any(axis=0)
    found = {way: _compared(*arms) for way, arms in _counted(came > 0, variant, values, switched).items()}
    return float(switched.sum() / seen.sum()), found


def _counted(
    came: npt.NDArray[np.bool_], variant: npt.NDArray[np.bool_], values: Floats, switched: npt.NDArray[np.bool_]
) -> Counted:
    whole, seen = values.sum(axis=0), came.any(axis=0)
    first, last = np.where(came[0], variant[0], variant[1]), np.where(came[1], variant[1], variant[0])
    kept = seen & (variant[0] == variant[1])
    stays = seen & ~switched

    def in_force(side: bool) -> Floats:
        there = came & (variant == side)
        return np.asarray((values * there).sum(axis=0)[there.any(axis=0)])

    return {
        "both": (in_force(False), in_force(True)),
        "last seen": (whole[seen & ~last], whole[seen & last]),
        "no switchers": (whole[stays & ~last], whole[stays & last]),
        "first seen": (whole[seen & ~first], whole[seen & first]),
        "kept buckets": (whole[kept & ~last], whole[kept & last]),
    }


def _compared(control: Floats, variant: Floats) -> Findings:
    return analyse({"control": {"m": sums_of("Mean", control)}, "variant": {"m": sums_of("Mean", variant)}}, _PLAN)
