# SPDX-License-Identifier: Apache-2.0
"""A small edition of benchmarks/experiments.py: 400 experiments without an effect, each looked at 20 times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from thinkrec_trainer.analysis.analyse import analyse
from thinkrec_trainer.analysis.results import Metric, Plan
from thinkrec_trainer.analysis.sums import Kind, Sums, sums_of

EXPERIMENTS, LOOKS, USERS = 400, 20, 200
Draw = Callable[[np.random.Generator, int], Sums]
PLAN = Plan("a", (Metric("m"),), {"a": 1, "b": 1}, minimum_users=USERS, at_end=True)


def conversion(generator: np.random.Generator, users: int) -> Sums:
    return sums_of("Conversion", (generator.random(users) < 0.1).astype(np.float64))


def skewed(generator: np.random.Generator, users: int) -> Sums:
    return sums_of("Mean", generator.lognormal(0.0, 1.0, users))


def ratio(generator: np.random.Generator, users: int) -> Sums:
    views = generator.poisson(generator.gamma(1.0, 8.0, users))
    return sums_of("Ratio", np.column_stack([generator.binomial(views, generator.beta(2, 6, users)), views]))


def winners(draw: Draw, *, share: int, plan: Plan) -> int:
    """Return how many experiments have a winner at some look; arm a gets `share` times the users of arm b."""
    generator = np.random.default_rng(1)
    found = 0
    for _ in range(EXPERIMENTS):
        arms: dict[str, Sums] | None = None
        won = False
        for _ in range(LOOKS):
            fresh = {"a": draw(generator, share * USERS), "b": draw(generator, USERS)}
            arms = fresh if arms is None else {name: arms[name].merged(fresh[name]) for name in fresh}
            won = won or analyse({name: {"m": sums} for name, sums in arms.items()}, plan).winner is not None
        found += won
    return found


@pytest.mark.parametrize(("draw", "share"), [(conversion, 1), (conversion, 9), (skewed, 1), (ratio, 1)])
def test_false_winners_stay_below_the_level_however_often_one_looks(draw: Draw, share: int) -> None:
    found = winners(draw, share=share, plan=replace(PLAN, shares={"a": share, "b": 1}))
    assert stats.binomtest(found, EXPERIMENTS, PLAN.level, alternative="greater").pvalue > 0.01


def test_the_fixed_test_would_be_fooled() -> None:
    assert winners(conversion, share=1, plan=replace(PLAN, method="FixedHorizon")) > 0.15 * EXPERIMENTS


@pytest.mark.parametrize("kind", ["Conversion", "Mean", "Ratio"])
def test_a_metric_without_any_event_has_no_winner(kind: Kind) -> None:
    nothing = sums_of(kind, np.zeros((5000, 2 if kind == "Ratio" else 1)))
    assert analyse({"a": {"m": nothing}, "b": {"m": nothing}}, PLAN).winner is None
