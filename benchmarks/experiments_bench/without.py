# SPDX-License-Identifier: Apache-2.0
"""No effect at all: how often is there a winner, looking 20 times?"""

from __future__ import annotations

from functools import partial

from experiments_bench.follow import Case, Followed, follow
from experiments_bench.populations import (
    CONVERSION,
    HEAVY,
    RARE,
    lognormal,
    pareto,
    ratio,
    remembered,
    remembered_ratio,
    spend,
)
from experiments_bench.report import Cell, Table, say, share
from thinkrec_trainer.analysis.sequences import FEWEST

_SMALL_ARM, _FEWEST = (9000, 1000), (FEWEST, FEWEST)
CASES = (
    Case("conversion 5 %", CONVERSION),
    Case("conversion 5 %, 90:10", CONVERSION, _SMALL_ARM),
    Case("conversion 5 %, three variants", CONVERSION, (1000, 1000, 1000)),
    Case("conversion 0.3 %", RARE),
    Case("conversion 0.3 %, 90:10", RARE, _SMALL_ARM),
    Case("mean, lognormal s = 1", partial(lognormal, 1.0)),
    Case("mean, lognormal s = 2", HEAVY),
    Case("mean, lognormal s = 2, 90:10", HEAVY, _SMALL_ARM),
    Case("mean, lognormal s = 2", HEAVY, _FEWEST),
    Case("mean, lognormal s = 2, 90:10", HEAVY, (9 * FEWEST, FEWEST)),
    Case("mean, 2 % spend", spend),
    Case("mean, 2 % spend, 90:10", spend, _SMALL_ARM),
    Case("mean, Pareto 2.1", pareto),
    Case("ratio", ratio),
    Case("ratio, 90:10", ratio, _SMALL_ARM, experiments=500),
    Case("ratio", ratio, _FEWEST),
    Case("mean with CUPED", partial(remembered, 0.7, 0.8), cuped=True),
    Case("ratio with CUPED", remembered_ratio, _FEWEST, cuped=True),
)


def table(seed: int, scale: float) -> Table:
    """Return the share of experiments with a false winner, by kind of metric and of test."""
    say("experiments without an effect")
    rows = [_row(found) for found in follow(CASES, seed=seed, scale=scale)]
    return Table(
        "A/A",
        "share of experiments without an effect that had a winner, level 5 %, 20 looks, the first at the minimum",
        rows,
    )


def _row(found: Followed) -> dict[str, Cell]:
    case, ends = found.case, found["fixed"][:, -1] > 0
    first: dict[str, Cell] = {"metric": case.name, "minimum": min(case.per_look), "experiments": len(ends)}
    return first | {
        **share("always valid", found.ever("always")),
        **share("without the floors", found.ever("no_floors")),
        **share("fixed test, peeked", found.ever("fixed")),
        **share("fixed test, once", ends),
    }
