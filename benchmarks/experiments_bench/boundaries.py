# SPDX-License-Identifier: Apache-2.0
"""The mixture beside the delayed-start boundary (Robbins and Siegmund 1970), on Brownian motion without an effect.

The second: |Z| >= sqrt(c + log(t / t_min)), c the upper quantile of a chi-square with 3 degrees of freedom; with values
that are final at once it uses up the level exactly, for ever many looks. Where values grow, the information that moves
the effect grows faster than the users that the boundary counts: here as their square.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats

from experiments_bench.report import Table, say, share
from thinkrec_trainer.analysis import sequences

_LEVEL = 0.05
_RANGE = 20.0
"""Users at the last look, as a multiple of the minimum."""
_BLOCK = 500


def table(seed: int, scale: float) -> Table:
    """Return how often each boundary is crossed."""
    rows = []
    for growth in (1, 2):
        for looks in (20, 2000):
            say(f"Brownian motion, {looks} looks")
            times = np.linspace(1, _RANGE, looks) if looks == 20 else np.geomspace(1, _RANGE, looks)
            count = max(_BLOCK, round(10_000 * scale))
            z = _paths(np.random.default_rng([seed, growth, looks]), times**growth, count)
            rows.append(
                {
                    "information grows as": "users" if growth == 1 else "users squared",
                    "looks": looks,
                    **share("mixture", (z > _mixture(times)).any(axis=1)),
                    **share("delayed start", (z > _delayed(times)).any(axis=1)),
                    **share("fixed 1.96", (z > 1.96).any(axis=1)),
                }
            )
    return Table("Boundaries", "share of paths without an effect that cross, up to 20 times the minimum of users", rows)


def _paths(generator: np.random.Generator, clock: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.float32]:
    """Return (count, looks) absolute values in standard errors."""
    steps, root = np.sqrt(np.diff(clock, prepend=0.0)), np.sqrt(clock)
    found = np.empty((count, len(clock)), np.float32)
    for first in range(0, count, _BLOCK):
        block = found[first : first + _BLOCK]
        block[:] = np.abs(np.cumsum(generator.standard_normal(block.shape) * steps, axis=1) / root)
    return found


def _mixture(times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    mixing = sequences.mixing_variance(2.0, 2, _LEVEL)  # two users a side have variance 1, and stand for the minimum
    return np.array([sequences.radius(1 / time, mixing, _LEVEL) * np.sqrt(time) for time in times])


def _delayed(times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(np.sqrt(stats.chi2.isf(_LEVEL, 3) + np.log(times)))
