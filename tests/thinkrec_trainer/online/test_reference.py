# SPDX-License-Identifier: Apache-2.0
"""Random logs with everything that may go wrong in them, against a count in plain Python that follows the words."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from typing import Any

import numpy as np
import pytest

from thinkrec_crds.buckets import bucket_table

Log = Any
VARIANTS = ("control", "a", "b")
STEPS = ("control=100,a=0,b=0", "control=80,a=10,b=10", "control=60,a=20,b=20", "control=0,a=100,b=0")
GIVEN = {
    "metrics": [
        {"name": "likes", "event": {"name": "Like"}},
        {"name": "watched", "event": {"type": "Mean", "name": "Watch", "cap": "9"}},
        {"name": "rate", "event": {"type": "Ratio", "name": "Like", "denominator": "Watch"}},
        {"name": "errors", "request": {"field": "Error"}},
    ],
    "minSampleSize": 50,
    "varianceReduction": "None",
}
Row = dict[str, Any]


def weights_of(text: str) -> tuple[tuple[str, int], ...]:
    return tuple((part.split("=")[0], int(part.split("=")[1])) for part in text.split(","))


def fill(log: Log, seed: int) -> tuple[list[Row], list[Row]]:
    """Log 150 users' day, weights changing every half hour; some records twice. Return them."""
    generator = np.random.default_rng(seed)
    for number in range(150):
        buckets = generator.integers(10_000, size=1 + (number % 11 == 0))
        for _ in range(generator.integers(1, 6)):
            minutes, bucket = float(generator.uniform(0, 119)), int(generator.choice(buckets))
            text = STEPS[int(minutes // 30)]
            owner = weights_of(text)[bucket_table("u1", weights_of(text))[bucket]][0]
            chance = generator.random(3) < 0.15
            marks = {"fallback": bool(chance[0]), "degraded": bool(chance[1]), "error": bool(chance[2])}
            log.see(f"u{number}", owner, minutes, bucket=bucket, weights=text, **marks)
        for _ in range(generator.integers(0, 8)):
            value = [None, float(generator.integers(1, 7))][generator.integers(2)]
            event = str(generator.choice(["Like", "Watch", "Skip"]))
            log.act(f"u{number}", event, float(generator.uniform(-30, 140)), value=value)
    seen, done = list(log.rows["exposure"]), list(log.rows["feedback"])
    log.rows["exposure"] += [row for row in seen if generator.random() < 0.1]
    log.rows["feedback"] += [row for row in done if generator.random() < 0.1]
    return seen, done


def kept(seen: list[Row]) -> dict[int, str]:
    """Return bucket -> variant, where it is the same under all weights that give everybody a share."""
    fair = [weights_of(text) for text in {row["weights"] for row in seen} if "=0" not in text]
    names = [[weights[index][0] for index in bucket_table("u1", weights)] for weights in fair]
    return {bucket: owners[0] for bucket, owners in enumerate(zip(*names, strict=True)) if len(set(owners)) == 1}


def counted(seen: list[Row], done: list[Row], end: datetime) -> dict[str, list[Row]]:
    """Return variant -> one row for each user."""
    whose, by_user = kept(seen), defaultdict(list)
    for row in seen:
        by_user[row["user_id"]].append(row)
    found: dict[str, list[Row]] = {name: [] for name in VARIANTS}
    for user, rows in by_user.items():
        good = [row for row in rows if not (row["fallback"] or row["degraded"] or "=0" in row["weights"])]
        bucket = rows[0]["bucket"]
        if not good or any(row["bucket"] != bucket for row in rows) or bucket not in whose:
            continue
        first = min(row["at"] for row in good)
        until = min((row["at"] for row in rows if "=0" in row["weights"] and row["at"] > first), default=end)
        mine = [row for row in done if row["user_id"] == user and first <= row["received_at"] < min(until, end)]
        watched = [row for row in mine if row["type"] == "Watch"]
        found[whose[bucket]].append(
            {
                "likes": sum(row["type"] == "Like" for row in mine),
                "watches": len(watched),
                "watched": sum(1.0 if row["value"] is None else row["value"] for row in watched),
                "requests": len(good),
                "errors": sum(row["error"] for row in good),
            }
        )
    return found


@pytest.mark.parametrize("seed", range(4))
def test_a_look_counts_what_plain_python_counts(log: Log, seed: int) -> None:
    seen, done = fill(log, seed)
    context = log.context(GIVEN, variants=VARIANTS)
    end = context.spec.parameters.end
    wanted = counted(seen, done, end)
    found = log.look(GIVEN, variants=VARIANTS)
    assert found.report.newest.users == {name: len(rows) for name, rows in wanted.items()}
    assert sum(map(len, wanted.values())) > 40
    for name, rows in wanted.items():
        total = {key: sum(row[key] for row in rows) for key in ("likes", "watches", "requests", "errors")}
        assert found.value(name, "likes") == pytest.approx(np.mean([row["likes"] > 0 for row in rows]))
        assert found.value(name, "watched") == pytest.approx(np.mean([min(9, row["watched"]) for row in rows]))
        assert found.value(name, "rate") == pytest.approx(total["likes"] / total["watches"])
        assert found.value(name, "errors") == pytest.approx(total["errors"] / total["requests"])
