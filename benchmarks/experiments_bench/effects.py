# SPDX-License-Identifier: Apache-2.0
"""Known effects: how often found, how soon, and whether the intervals have the truth in them. And what CUPED saves."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from experiments_bench.follow import LOOKS, Case, Followed, follow
from experiments_bench.populations import Population, conversion, lognormal, ratio, remembered
from experiments_bench.report import Cell, Table, say, share

_EVEN, _SMALL_ARM = (1000, 1000), (9000, 1000)
_METRICS: tuple[tuple[str, Population, float, tuple[int, int]], ...] = (
    ("conversion 10 %", partial(conversion, 0.1), 0.1, _EVEN),
    ("conversion 10 %, 90:10", partial(conversion, 0.1), 0.1, _SMALL_ARM),
    ("mean, lognormal s = 1", partial(lognormal, 1.0), math.exp(0.5), _EVEN),
    ("ratio 0.1", ratio, 0.1, _EVEN),
)
_LIFTS = (0.0, 0.02, 0.05, 0.1, 0.2)
_EXPERIMENTS = 500


def power(seed: int, scale: float) -> Table:
    """Return power, coverage and stopping times by size of the effect."""
    cases = [
        Case(name, population, per_look, lift, lift * base, _EXPERIMENTS)
        for name, population, base, per_look in _METRICS
        for lift in _LIFTS
    ]
    rows = [_row(found) for found in follow(cases, seed=seed, scale=scale)]
    say("experiments with known effects")
    says = "1 000 users of the variant at each of 20 looks; stop is the median number of its users at the decision"
    return Table("A/B", says, rows)


def _row(found: Followed) -> dict[str, Cell]:
    covered, case = found.covered(), found.case
    wrong = found.ever("always") & _first_sign_is_wrong(found)
    fixed_all = found.covered("fixed_lower", "fixed_upper").all(axis=1)
    first: dict[str, Cell] = {"metric": case.name, "lift %": 100 * case.lift}
    return first | {
        **share("found", found.ever("always")),
        "found by a fixed test at the end %": 100 * float((found["fixed"][:, -1] > 0).mean()),
        "stop": _users(found),
        "wrong direction %": 100 * float(wrong.mean()) if case.lift else None,
        **share("truth inside at all looks", covered.all(axis=1)),
        "inside at the end %": 100 * float(covered[:, -1].mean()),
        "fixed interval: inside at all looks %": 100 * float(fixed_all.mean()),
    }


def _first_sign_is_wrong(found: Followed) -> np.typing.NDArray[np.bool_]:
    first = found["always"].argmax(axis=1)
    effects = np.take_along_axis(found["effect"], first[:, None], axis=1)[:, 0]
    return np.asarray(effects * found.case.truth < 0)


def _users(found: Followed) -> Cell:
    look = found.stopping_look()
    each = found.case.per_look[1]
    return int(look * each) if math.isfinite(look) else f"> {LOOKS * each:,}".replace(",", " ")


def reduction(seed: int, scale: float) -> Table:
    """Return what CUPED takes off the variance and the time, for an effect of 0.1 standard deviations."""
    kinds = [(0.0, 1.0), (0.5, 1.0), (0.7, 1.0), (0.9, 1.0), (0.7, 0.5)]
    cases = [
        Case(f"correlation {rho}", partial(remembered, rho, known), (500, 500), 0.02, 0.1, _EXPERIMENTS, cuped)
        for rho, known in kinds
        for cuped in (False, True)
    ]
    say("CUPED")
    done = follow(cases, seed=seed, scale=scale)
    pairs = zip(kinds, done[::2], done[1::2], strict=True)
    rows = [_saved(kind, plain, cuped) for kind, plain, cuped in pairs]
    return Table("CUPED", "500 users a variant and look, an effect of 0.1 standard deviations, with and without", rows)


def _saved(kind: tuple[float, float], plain: Followed, cuped: Followed) -> dict[str, Cell]:
    ratio_of_variances = cuped["effect"][:, -1].var() / plain["effect"][:, -1].var()
    return {
        "correlation": kind[0],
        "known users %": 100 * kind[1],
        "variance told to be saved %": 100 * float(cuped["reduction"][:, -1].mean()),
        "variance saved over the experiments %": 100 * float(1 - ratio_of_variances),
        "bias, standard errors": float(
            (cuped["effect"][:, -1].mean() - cuped.case.truth)
            / (cuped["effect"][:, -1].std() / math.sqrt(len(cuped["effect"])))
        ),
        "stop without": _users(plain),
        "stop with": _users(cuped),
        **share("truth inside at all looks", cuped.covered().all(axis=1)),
    }
