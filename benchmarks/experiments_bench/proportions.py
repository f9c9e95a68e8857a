# SPDX-License-Identifier: Apache-2.0
"""Sample-ratio alarms: how often false, and how soon a loss of users is found."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from experiments_bench.report import Cell, Table, share
from thinkrec_trainer.analysis.ratio_mismatch import mismatch

_LOOKS = 20
_SHARES = {"control": 90.0, "variant": 10.0}


def table(seed: int, scale: float) -> Table:
    """Return the share of experiments with an alarm, without and with a loss of 1 % of one variant's users."""
    generator, count = np.random.default_rng([seed, 7]), round(5000 * scale)
    rows = []
    for lost in (0.0, 0.01):
        for even in (True, False):
            for users in (20_000, 200_000, 1_000_000, 4_000_000) if lost else (20_000,):
                few = count if not lost else max(20, count // 5)
                rows.append(_row(generator, users, lost, {"control": 1.0, "variant": 1.0} if even else _SHARES, few))
    return Table("Sample ratio", "alarms at p < 0.001, chi-square against the expected shares", rows)


def _row(
    generator: np.random.Generator, users: int, lost: float, shares: dict[str, float], count: int
) -> dict[str, Cell]:
    alarms = np.array([_alarms(generator, users, lost, shares) for _ in range(count)])
    first: dict[str, Cell] = {
        "expected": f"{shares['control']:g}:{shares['variant']:g}",
        "users": users,
        "lost %": 100 * lost,
        "experiments": count,
    }
    return first | {**share("alarm at the last look", alarms[:, -1]), **share("at any look", alarms.any(axis=1))}


def _alarms(generator: np.random.Generator, users: int, lost: float, shares: dict[str, float]) -> npt.NDArray[np.bool_]:
    """Return (L,) alarms as users come; the lost ones never show up."""
    chance = shares["variant"] / sum(shares.values())
    assigned = generator.binomial(users // _LOOKS, chance, _LOOKS)
    seen = np.cumsum(generator.binomial(assigned, 1 - lost))
    control = np.cumsum(users // _LOOKS - assigned)
    pairs = zip(control.tolist(), seen.tolist(), strict=True)
    return np.array([mismatch({"control": c, "variant": v}, shares).void for c, v in pairs])
