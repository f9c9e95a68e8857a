# SPDX-License-Identifier: Apache-2.0
"""Variants whose quality is known, and a run of the stage on them, read back as the stage `analyse` reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from support.llm_stages import seal, stage_context
from thinkrec_crds.analysis_spec import EventMetric
from thinkrec_crds.comparison import SCORES_NAME, VARIANT_PREFIX
from thinkrec_crds.findings import EARLIER_ROLE
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_crds.stages import SimulateParameters, stage_key
from thinkrec_trainer.context import StageResult
from thinkrec_trainer.events.read import scan_events
from thinkrec_trainer.registry import stage_function
from thinkrec_trainer.store.file_blobs import FileBlobs

TEST_USERS, ROWS = 40, 12
START = datetime(2026, 11, 28, 22, 30, tzinfo=UTC)
EVENTS = (EventMetric(name="Like"), EventMetric(type="Ratio", name="Buy", denominator="View"))
PARAMETERS = SimulateParameters(
    experiment="uid-1",
    model="movies",
    mode="ABTest",
    control="old",
    weights=(("old", 50), ("new", 50)),
    revisions=(("old", "old-1"), ("new", "new-7")),
    start=START,
    end=START + timedelta(hours=3),
    users=600,
    events=EVENTS,
)


@dataclass(frozen=True)
class Log:
    """What a run left."""

    given: SimulateParameters
    result: StageResult
    output: Path
    exposures: pl.DataFrame
    events: pl.DataFrame
    mirrored: pl.DataFrame

    def reactions(self, users: list[str]) -> pl.DataFrame:
        """Return all that these users did, in order."""
        return self.events.filter(pl.col("user_id").is_in(users)).sort("event_id")

    def share(self, variant: str, name: str = "Like") -> float:
        """Return the share of a variant's users with an event of that name."""
        users = self.exposures.filter(pl.col("variant") == variant)["user_id"].unique()
        did = self.events.filter((pl.col("type") == name) & pl.col("user_id").is_in(users.to_list()))
        return did["user_id"].n_unique() / len(users)

    def users(self) -> list[str]:
        """Return everybody who was exposed to something."""
        return sorted(self.variants())

    def persons(self) -> list[str]:
        """Return the same without whose taste they have."""
        return [user.split("~")[0] for user in self.users()]

    def variants(self) -> dict[str, str]:
        """Return each user's variant."""
        return dict(self.exposures.select("user_id", "variant").iter_rows())


def rows(score: pl.Expr) -> pl.DataFrame:
    """Return what the stage `score` leaves; each test user likes every second row. `score` may use `noise`, 0 to 1."""
    rng = np.random.default_rng(7)
    table = pl.DataFrame(
        {
            "user_index": np.repeat(np.arange(TEST_USERS, dtype=np.int32), ROWS),
            "user_id": [f"u{user}" for user in range(TEST_USERS) for _ in range(ROWS)],
            "item_id": [f"i{item}" for _ in range(TEST_USERS) for item in rng.permutation(50)[:ROWS]],
            "position": np.tile(np.arange(ROWS, dtype=np.int32), TEST_USERS),
            "liked": np.tile(np.arange(ROWS) % 2 == 0, TEST_USERS),
            "noise": rng.random(TEST_USERS * ROWS),
        }
    )
    return table.with_columns(score.alias("score"), pl.lit(value=False).alias("trained_on")).drop("noise")


@pytest.fixture
def good() -> pl.DataFrame:
    """Liked items first."""
    return rows(pl.col("liked").cast(pl.Float64) + pl.col("noise") / 2)


@pytest.fixture
def bad() -> pl.DataFrame:
    """Liked items last."""
    return rows(pl.col("noise") / 2 - pl.col("liked").cast(pl.Float64))


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Log]:
    """Run the stage: `run({"old": table, …}, seed=1, earlier=a log, **changed parameters)`."""
    runs = iter(range(100))

    def simulated(
        scores: Mapping[str, pl.DataFrame], *, seed: int = 3, earlier: Log | None = None, **changes: Any
    ) -> Log:
        folder = tmp_path / f"run-{next(runs)}"
        inputs = {}
        for name, table in scores.items():
            (folder / name).mkdir(parents=True)
            table.write_parquet(folder / name / SCORES_NAME)
            inputs[VARIANT_PREFIX + name] = seal(folder / name, StageKind.SCORE)
        if earlier is not None:
            inputs[EARLIER_ROLE] = seal(earlier.output, StageKind.SIMULATE)
        given = SimulateParameters.model_validate(PARAMETERS.model_dump() | changes)
        context = stage_context(folder / "output", given, inputs)
        key = stage_key(given, StageKind.SIMULATE, seed, tuple((name, "0" * 40) for name in inputs))
        context = replace(context, spec=context.spec.model_copy(update={"seed": seed, "key": key}))
        return _read(given, stage_function(StageKind.SIMULATE)(context), context.output, folder / "cache")

    return simulated


def _read(given: SimulateParameters, result: StageResult, output: Path, cache: Path) -> Log:
    """Read a day before and after too: nothing may lie there."""
    day = timedelta(days=1)
    found = scan_events(FileBlobs(output), given.model, given.start - day, given.end + day, cache=cache)
    exposures, events = found.exposures.sort("exposure_id").collect(), found.events.sort("event_id").collect()
    return Log(given, result, output, exposures, events, found.mirrored.sort("mirror_id").collect())
