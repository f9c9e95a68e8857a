# SPDX-License-Identifier: Apache-2.0
"""What real logs do to an experiment: bots, late events, duplicates, variants that say nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from experiments_bench.follow import LEVEL, LOOKS, Case, Followed, follow, spread
from experiments_bench.report import Cell, Row, Table, say, share
from thinkrec_trainer.analysis.analyse import analyse
from thinkrec_trainer.analysis.results import Findings, Metric, Plan
from thinkrec_trainer.analysis.sums import Sums, sums_of
from thinkrec_trainer.analysis.winsorize import capped

_PEOPLE = 3.0
"""Events per person, a Poisson's mean."""
_BOTS = 0.001
_LIMIT = 20.0
"""No one of a million people has more events than that: a limit that takes nothing from people."""
_PLAN = Plan("a", (Metric("m"),), {"a": 1.0, "b": 1.0}, (), 1000, LEVEL, variance_reduction="None")
_EXPERIMENTS = 500


def _visited(
    events: float, limit: float, everywhere: bool, generator: np.random.Generator, users: int, lift: float
) -> Sums:
    """Return people and bots; the lift marks the variant: bots are in both variants or in the variant alone."""
    values = generator.poisson(_PEOPLE * (1 + lift if everywhere else 1), users).astype(np.float64)
    if everywhere or lift:
        bots = generator.random(users) < _BOTS
        values[bots] = generator.poisson(events, int(bots.sum()))
    return sums_of("Mean", capped(values, limit))


def bots(seed: int, scale: float) -> Table:
    """Return what one bot in a thousand users does to false winners, power and bias, with and without a cap."""
    kinds = [("none", None), ("in both variants, 5 000 events each", True), ("in one variant, 500 events each", False)]
    say("bots")
    cases = []
    for name, everywhere in kinds:
        for limit in (math.inf, _LIMIT):
            for lift in (0.0, 0.05) if everywhere is not False else (1e-9,):
                events = 0.0 if everywhere is None else 5000.0 if everywhere else 500.0
                population = partial(_visited, events, limit, everywhere is not False)
                label = f"{name}|{'capped at 20' if limit < math.inf else 'as it is'}"
                cases.append(Case(label, population, lift=lift, truth=_PEOPLE * lift, experiments=_EXPERIMENTS))
    rows = [_bot_row(found) for found in follow(cases, seed=seed, scale=scale)]
    return Table("Bots", "one user of 1 000 is a bot, people have 3 events; 1 000 users a variant and look", rows)


def _bot_row(found: Followed) -> dict[str, Cell]:
    bots, cap = found.case.name.split("|")
    effect = found["effect"][:, -1]
    return {
        "bots": bots,
        "values": cap,
        "true lift %": round(100 * found.case.lift, 3),
        **share("winner", found.ever("always")),
        "effect at the end, mean": float(effect.mean()),
        "its deviation": float(effect.std()),
    }


def late(seed: int, scale: float) -> Table:
    """Return what comes of conversions that arrive up to five looks late."""
    rows: list[Row] = []
    for lift in (0.0, 0.1):
        for late_share in (0.0, 0.3):
            say(f"late events: {late_share}")
            count = round((2000 if not lift else 500) * scale)
            tasks = [(seed, first, min(first + 50, count), late_share, lift) for first in range(0, count, 50)]
            done = [one for chunk in spread(_late_chunk, tasks) for one in chunk]
            won, relative = (np.array(part) for part in zip(*done, strict=True))
            row: dict[str, Cell] = {"true lift %": 100 * lift, "late %": 100 * late_share, "experiments": count}
            rows.append(
                row
                | share("winner", won)
                | {
                    "mean relative effect at look 5 %": 100 * float(relative[:, 4].mean()),
                    "at look 20 %": 100 * float(relative[:, -1].mean()),
                }
            )
    return Table("Late events", "conversion 10 %; late ones arrive 1 to 5 looks after the others", rows)


def _late_chunk(task: tuple[int, int, int, float, float]) -> list[tuple[bool, npt.NDArray[np.float64]]]:
    seed, first, last, late_share, lift = task
    return [_late(np.random.default_rng([seed, 200, number]), late_share, lift) for number in range(first, last)]


def _late(generator: np.random.Generator, late_share: float, lift: float) -> tuple[bool, npt.NDArray[np.float64]]:
    """Return whether there was ever a winner, and (L,) relative effects."""
    seen = np.zeros((2, LOOKS), dtype=np.int64)
    for arm, chance in enumerate((0.1, 0.1 * (1 + lift))):
        for look in range(LOOKS):
            converted = generator.binomial(1000, chance)
            delayed = generator.binomial(converted, late_share)
            seen[arm, look] += converted - delayed
            arrives = look + generator.integers(1, 6, delayed)
            np.add.at(seen[arm], arrives[arrives < LOOKS], 1)
    totals = np.cumsum(seen, axis=1)
    found = [_analysed([_converted((look + 1) * 1000, int(n)) for n in totals[:, look]]) for look in range(LOOKS)]
    return any(one.winner for one in found), np.array([one.effects[0].relative for one in found])


def _converted(users: int, converted: int) -> Sums:
    return sums_of("Conversion", (np.arange(users) < converted).astype(np.float64))


def _analysed(arms: list[Sums], plan: Plan = _PLAN) -> Findings:
    return analyse({name: {"m": sums} for name, sums in zip("ab", arms, strict=True)}, plan)


def duplicates(seed: int, scale: float) -> Table:
    """Return what repeated events do, and that nothing is left of it where they are recognised by their id."""
    say("duplicated events")
    count, users = round(500 * scale), 2000
    outcomes: dict[str, list[Findings]] = {"sent once": [], "one in ten of one variant twice": [], "deduplicated": []}
    for number in range(count):
        generator = np.random.default_rng([seed, 300, number])
        logs = [_log(generator, users) for _ in range(2)]
        sent = [logs[0], _repeated(generator, logs[1])]
        unique = [log[np.unique(log[:, 0], return_index=True)[1]] for log in sent]
        for told, each in zip(outcomes.values(), (logs, sent, unique), strict=True):
            told.append(_analysed([_per_user(log, users) for log in each]))
    rows: list[Row] = []
    for name, found in outcomes.items():
        same = all(one.effects == other.effects for one, other in zip(found, outcomes["sent once"], strict=True))
        won = share("false winner", np.array([one.winner is not None for one in found]))
        rows.append({"events": name, "experiments": count, **won, "equal to the first row, to the bit": same})
    return Table("Duplicates", "A/A, one look at 2 000 users a variant, 3 events each", rows)


def _log(generator: np.random.Generator, users: int) -> npt.NDArray[np.int64]:
    """Return (events, 2): id and user."""
    owners = np.repeat(np.arange(users), generator.poisson(_PEOPLE, users))
    return np.column_stack([np.arange(len(owners)), owners])


def _repeated(generator: np.random.Generator, log: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the log with one event in ten sent twice, in any order."""
    return generator.permutation(np.vstack([log, log[generator.random(len(log)) < 0.1]]))


def _per_user(log: npt.NDArray[np.int64], users: int) -> Sums:
    return sums_of("Mean", np.bincount(log[:, 1], minlength=users).astype(np.float64))


def silent() -> Table:
    """Return what is said about variants that say nothing."""
    some, same = sums_of("Mean", np.random.default_rng(0).normal(size=5000)), sums_of("Mean", np.full(5000, 0.1))
    one, nobody = sums_of("Mean", np.array([0.3])), some.of_nobody()
    cases: list[tuple[str, Sums, Sums, Plan]] = [
        ("all values alike in both", same, same, _PLAN),
        ("alike in each, but different", same, sums_of("Mean", np.full(5000, 0.2)), _PLAN),
        ("nobody converts", _converted(5000, 0), _converted(5000, 0), _PLAN),
        ("nobody converts, everybody converts", _converted(5000, 0), _converted(5000, 5000), _PLAN),
        ("one variant is empty", some, nobody, _PLAN),
        ("both are empty", nobody, nobody, _PLAN),
        ("one user each, minimum 1", one, sums_of("Mean", np.array([9.0])), replace(_PLAN, minimum_users=1)),
    ]
    return Table(
        "Silent variants", "one look each", [_silent(name, _analysed([a, b], plan)) for name, a, b, plan in cases]
    )


def _silent(name: str, found: Findings) -> dict[str, Cell]:
    effect = found.effects[0]
    return {
        "variants": name,
        "interval": "undefined" if math.isnan(effect.lower) else f"{effect.lower:.4f} to {effect.upper:.4f}",
        "sample ratio": "void" if found.mismatch.void else "fits",
        "winner": found.winner or "none",
    }
