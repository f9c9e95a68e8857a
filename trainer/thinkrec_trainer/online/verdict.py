# SPDX-License-Identifier: Apache-2.0
"""What is known now of the users that an ABTest or a Canary shared out. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from thinkrec_crds.analysis_spec import Analysis
from thinkrec_crds.buckets import BUCKETS
from thinkrec_crds.findings import GroupEffect, Look
from thinkrec_crds.stages import AnalyseParameters
from thinkrec_trainer.analysis.analyse import analyse
from thinkrec_trainer.analysis.results import Findings, Plan
from thinkrec_trainer.analysis.sums import Sums
from thinkrec_trainer.online.gathered import Gathered
from thinkrec_trainer.online.gathering import BY_GROUP
from thinkrec_trainer.online.moments import Bools, Moments
from thinkrec_trainer.online.plan import plan_of, plan_of_groups
from thinkrec_trainer.online.quantities import guard_key, metric_key
from thinkrec_trainer.online.readings import Readings
from thinkrec_trainer.online.told import Entry, Told, known
from thinkrec_trainer.online.weights import Owners, owners, shares


@dataclass(frozen=True, slots=True)
class Known:
    """What is known now."""

    look: Look
    groups: tuple[GroupEffect, ...] = ()
    moved: int = 0
    """Users left out because some weight moved their bucket."""


def compared(
    given: AnalyseParameters, analysis: Analysis, gathered: Gathered, readings: Readings, groups: Sequence[str] = ()
) -> Known:
    """Compare the variants' users; the deciding metric within each of the groups, too."""
    whose = owners(given.experiment, gathered.counts.weights, given.variants)
    expected = shares(whose, given.variants)
    plan = plan_of(given, analysis, expected)
    arms = {key: arms_of(found, cells_of(whose, given.variants)) for key, found in _quantities(gathered).items()}
    found = analyse({name: {key: arm[name] for key, arm in arms.items()} for name in given.variants}, plan)
    users = {one.variant: one.users for one in found.values if one.metric == plan.metrics[0].name}
    look = Told(given, analysis, found, readings, undefined).look(users)
    everybody = gathered.moments.get(plan.metrics[0].name)
    return Known(
        look.model_copy(update=_traffic(given, gathered) | {"expected": dict(expected)}),
        tuple(_by_group(gathered.moments.get(BY_GROUP), whose, plan, groups)),
        moved=0 if everybody is None else int(everybody.users.sum()) - sum(users.values()),
    )


def cells_of(whose: Owners, variants: Sequence[str]) -> Mapping[str, Bools]:
    """Return each variant's buckets."""
    return {name: whose == place for place, name in enumerate(variants)}


def arms_of(found: Moments, cells: Mapping[str, Bools]) -> dict[str, Sums]:
    """Return each variant's sums over its cells. A history that nobody has changes nothing: it has no variance."""
    return {name: found.pooled(mine) for name, mine in cells.items()}


def undefined(entry: Entry, found: Findings) -> str | None:
    """Return why a metric of users has no value although there are users; None where it has one.

    An event that nobody has sent yet is a value: zero. Only what is divided by may be missing.
    """
    event = entry.event
    if event is None or event.type != "Ratio":
        return None
    keys = metric_key(entry.name), guard_key(entry.name)
    values = [(one.variant, one.value, one.users) for one in found.values if one.metric == keys[0]]
    values += [(one.variant, one.value, one.users) for one in found.guards if one.guard == keys[1]]
    lacking = [variant for variant, value, users in values if users and math.isnan(value)]
    if not lacking:
        return None
    return f"no event {event.denominator!r} of {', '.join(lacking)}'s users, so there is nothing to divide by"


def _quantities(gathered: Gathered) -> dict[str, Moments]:
    return {key: found for key, found in gathered.moments.items() if key != BY_GROUP}


def _traffic(given: AnalyseParameters, gathered: Gathered) -> dict[str, object]:
    counts = gathered.counts
    return {
        "exposures": {name: counts.requests.get(name, 0) for name in given.variants},
        "fallbacks": {name: counts.fallbacks.get(name, 0) for name in given.variants},
    }


def _by_group(found: Moments | None, whose: Owners, plan: Plan, groups: Sequence[str]) -> Iterator[GroupEffect]:
    """Yield each variant's effect within each group of users."""
    if found is None:
        return
    own = plan_of_groups(plan, len(groups))
    metric = own.metrics[0].name
    for place, group in enumerate(groups):
        cells = {name: _within(mine, place, len(groups)) for name, mine in cells_of(whose, tuple(plan.shares)).items()}
        arms = arms_of(found, cells)
        for effect in analyse({name: {metric: arm} for name, arm in arms.items()}, own).effects:
            yield GroupEffect(
                group=group,
                variant=effect.variant,
                effect=known(effect.effect),
                lower=known(effect.lower),
                upper=known(effect.upper),
                users=effect.users,
            )


def _within(buckets: Bools, place: int, groups: int) -> Bools:
    """Return the cells of one group in these buckets: cell = group * BUCKETS + bucket."""
    cells = np.zeros((groups, BUCKETS), dtype=np.bool_)
    cells[place] = buckets
    return cells.reshape(-1)
