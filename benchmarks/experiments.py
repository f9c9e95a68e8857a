# SPDX-License-Identifier: Apache-2.0
"""What are the intervals of an online experiment worth? Simulations with known truth, through the analysis itself.

    python benchmarks/experiments.py                                      # everything; a few minutes on two cores
    python benchmarks/experiments.py --only without --scale 0.1           # a tenth of the A/A experiments
    python benchmarks/experiments.py --json experiments.json              # tables as JSON, too

    without       no effect, 20 looks: how often is there a winner (2 000 experiments a row)
    boundaries    the mixture beside the delayed-start boundary;  growing: values that grow between looks
    effects       power, coverage at every look, stopping times
    cuped         what earlier behaviour saves
    adversaries   bots, late events, duplicates, silent variants
    switching     users who change the variant because a weight did
    proportions   sample-ratio alarms, false and due

Every experiment has a generator of its own, seeded with its number: the same seed gives the same tables.
"""

from __future__ import annotations

import sys

# benchmarks/operator.py has the name of a module of the standard library, so this folder must come last.
sys.path.sort(key=lambda entry: entry.rstrip("/").endswith("benchmarks"))

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # one process per core, matrices are tiny

sys.path.append(str(Path(__file__).resolve().parent))  # where Python leaves the script's own folder out

from experiments_bench import adversaries, boundaries, effects, growing, proportions, switching, without
from experiments_bench.report import Table, save, shown

Part = Callable[[int, float], Sequence[Table]]
PARTS: dict[str, Part] = {
    "without": lambda seed, scale: [without.table(seed, scale)],
    "boundaries": lambda seed, scale: [boundaries.table(seed, scale)],
    "growing": lambda seed, scale: [growing.table(seed, scale)],
    "effects": lambda seed, scale: [effects.power(seed, scale)],
    "cuped": lambda seed, scale: [effects.reduction(seed, scale)],
    "adversaries": lambda seed, scale: [
        adversaries.bots(seed, scale),
        adversaries.late(seed, scale),
        adversaries.duplicates(seed, scale),
        adversaries.silent(),
    ],
    "switching": lambda seed, scale: [switching.table(seed, scale)],
    "proportions": lambda seed, scale: [proportions.table(seed, scale)],
}


def main() -> None:
    """Simulate what was asked for, print the tables, save the JSON."""
    options = _options()
    tables = [table for part in options.only for table in PARTS[part](options.seed, options.scale)]
    for table in tables:
        print(shown(table))
    if options.json:
        save(options.json, tables, seed=options.seed, scale=options.scale)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run (default: all)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the experiments to run (default: 1)")
    parser.add_argument("--seed", type=int, default=1, help="of all random numbers (default: 1)")
    parser.add_argument("--json", type=Path, help="file for the results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
