# SPDX-License-Identifier: Apache-2.0
"""What one look at an experiment's users costs: time and memory of the stage `analyse` over a log of so many events.

    python benchmarks/analysis.py [--events 3000000] [--shards 1] [--folder /tmp] [--json analysis.json]

The log is written first, with the layout that gateways' shippers leave after a compaction: feedback of two days, one
before the experiment and one of it, a quarter as many exposures, a twentieth as many users; one event of a thousand is
there twice. The stage then runs as in a pod, in a process of its own whose peak memory is the kernel's number (pages of
files that it maps are in it). 100 million events take some 6 GB of disk below --folder, which is removed at the end.
"""

from __future__ import annotations

import sys

# benchmarks/operator.py has the name of a module of the standard library, so this folder must come last.
sys.path.sort(key=lambda entry: entry.rstrip("/").endswith("benchmarks"))

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent))  # where Python leaves the script's own folder out

import numpy as np
import numpy.typing as npt
import polars as pl
from operator_bench.report import Line, save, say, table

from thinkrec_crds.analysis_spec import Analysis
from thinkrec_crds.buckets import BUCKETS, bucket_table
from thinkrec_crds.scale_out import INDEX_VARIABLE, SHARD_COUNT_VARIABLE
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_crds.stages import AnalyseParameters, StageSpec, stage_key
from thinkrec_trainer.events.layout import PARTS, SCHEMAS, Kind, hour_of, table_name, user_part

UID, MODEL = "benchmark", "movies"
START = datetime(2026, 11, 28, tzinfo=UTC)
HOURS = 24
"""Of the experiment, and as many before it."""
WEIGHTS = ((("control", 90), ("new", 10)), (("control", 70), ("new", 30)))
"""The second ones from the middle of the experiment on."""
EVENTS_PER_EXPOSURE, EVENTS_PER_USER = 4, 20
TWICE = 0.001
MEMORY_TARGET = 4096.0
ANALYSIS = {
    "metrics": [
        {"name": "likes", "event": {"name": "Like"}},
        {"name": "watched", "event": {"type": "Mean", "name": "Watch", "cap": "500"}},
        {"name": "click-rate", "event": {"type": "Ratio", "name": "Click", "denominator": "View"}},
    ],
    "guardrails": [
        {"name": "latency", "request": {"field": "LatencyMilliseconds"}, "maxRegression": "0.2"},
        {"name": "errors", "request": {"field": "Error"}, "maximum": "0.05"},
    ],
    "lookbackSeconds": HOURS * 3600,
}
TYPES = np.array(["View", "Click", "Like", "Watch"])
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class World:
    """The users, and where their log lies."""

    root: Path
    parts: list[Ints]
    """Part -> numbers of its users."""
    buckets: Ints
    """(U,)"""

    def write(self, hour: int, part: int, events: int, generator: np.random.Generator) -> None:
        """Store the log of one hour (below 0: before the start) and part."""
        at = START + timedelta(hours=hour)
        self._store("feedback", at, part, self._feedback(at, part, events, generator))
        if hour >= 0:
            weights = WEIGHTS[hour * 2 >= HOURS]
            shown = self._exposures(at, part, weights, events // EVENTS_PER_EXPOSURE * 2, generator)
            self._store("exposure", at, part, shown)

    def _feedback(self, at: datetime, part: int, events: int, generator: np.random.Generator) -> pl.DataFrame:
        users = generator.choice(self.parts[part], events)
        numbers = generator.integers(1 << 62, size=events)
        again = generator.random(events) < TWICE
        numbers[again], users[again] = numbers[0], users[0]
        types = TYPES[generator.choice(4, events, p=[0.6, 0.2, 0.15, 0.05])]
        return _table("feedback", at, users, numbers, generator).with_columns(
            pl.Series("type", types),
            pl.Series("value", np.where(types == "Watch", generator.exponential(60, events), 1)),
        )

    def _exposures(
        self, at: datetime, part: int, weights: tuple[tuple[str, int], ...], rows: int, generator: np.random.Generator
    ) -> pl.DataFrame:
        users = generator.choice(self.parts[part], rows)
        owner = np.frombuffer(bucket_table(UID, weights), dtype=np.uint8)[self.buckets[users]]
        variants = np.array([name for name, _ in weights])[owner]
        numbers = generator.integers(1 << 62, size=rows)
        return _table("exposure", at, users, numbers, generator).with_columns(
            pl.lit(UID).alias("experiment"),
            pl.Series("variant", variants),
            pl.Series("served_by", variants),
            pl.Series("bucket", self.buckets[users].astype(np.uint16)),
            pl.lit(",".join(f"{name}={share}" for name, share in weights)).alias("weights"),
            pl.lit("r1").alias("revision"),
            *(pl.lit(value=False).alias(name) for name in ("fallback", "degraded", "empty")),
            pl.Series("latency_milliseconds", generator.lognormal(4, 0.5, rows).round(2)),
            pl.Series("error", generator.random(rows) < 0.01),
        )

    def _store(self, kind: Kind, at: datetime, part: int, rows: pl.DataFrame) -> None:
        path = self.root / table_name(MODEL, kind, hour_of(at), part, "compacted")
        path.parent.mkdir(parents=True, exist_ok=True)
        filled = rows.with_columns(
            pl.lit(None, dtype=dtype).alias(name) for name, dtype in SCHEMAS[kind].items() if name not in rows.columns
        )
        filled.select(pl.col(name).cast(dtype) for name, dtype in SCHEMAS[kind].items()).write_parquet(path)


def _table(kind: Kind, at: datetime, users: Ints, numbers: Ints, generator: np.random.Generator) -> pl.DataFrame:
    """Return what rows of both kinds have: user, id and time."""
    seconds = np.sort(generator.integers(3_600_000_000, size=len(users)))
    identity, moment = ("event_id", "received_at") if kind == "feedback" else ("exposure_id", "at")
    return pl.DataFrame({"user": users, "number": numbers, "after": seconds}).select(
        pl.format("user-{}", "user").alias("user_id"),
        pl.col("number").cast(pl.String).alias(identity),
        pl.lit("i1").alias("item_id"),
        (pl.lit(at) + pl.duration(microseconds="after")).alias(moment),
    )


def write_world(root: Path, events: int) -> None:
    """Write the whole log."""
    users = max(1000, events // EVENTS_PER_USER)
    part_of = np.array([user_part(f"user-{number}") for number in range(users)])
    buckets = np.random.default_rng(1).integers(BUCKETS, size=users)
    world = World(root, [np.flatnonzero(part_of == part) for part in range(PARTS)], buckets)
    each = max(1, events // (2 * HOURS * PARTS))
    for hour in range(-HOURS, HOURS):
        for part in range(PARTS):
            world.write(hour, part, each, np.random.default_rng([2, hour + HOURS, part]))


def write_stage(folder: Path, store: Path) -> Path:
    """Write stage.json and return its path."""
    given = AnalyseParameters(
        experiment=UID,
        model=MODEL,
        events_uri=store.as_uri(),
        mode="Canary",
        control="control",
        variants=("control", "new"),
        start=START,
        end=START + timedelta(hours=HOURS),
        number=1,
        analysis=Analysis.model_validate(ANALYSIS),
    )
    key = stage_key(given, StageKind.ANALYSE, 0, ())
    spec = StageSpec(
        kind=StageKind.ANALYSE,
        name="analyse-1",
        key=key,
        semantics_version=1,
        parameters=given,
        output_uri=(folder / "store" / "analyse" / key).as_uri(),
    )
    path = folder / "stage.json"
    path.write_text(spec.to_json())
    return path


def run_stage(stage: Path, folder: Path, index: int, shards: int) -> tuple[float, float]:
    """Run the stage, or one of its shards; return seconds and peak memory in MiB."""
    variables = {
        "THINKREC_TERMINATION_PATH": str(folder / "termination"),
        "TMPDIR": str(folder),
        SHARD_COUNT_VARIABLE: str(shards),
        INDEX_VARIABLE: str(index),
    }
    begun = time.perf_counter()
    command = [sys.executable, "-m", "thinkrec_trainer", "run", str(stage)]
    child = subprocess.Popen(command, env=os.environ | variables, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"the stage ended with {child.returncode}")
    return time.perf_counter() - begun, usage.ru_maxrss / 1024


def measured(folder: Path, events: int, shards: int) -> Iterator[Line]:
    """Write the log, run the stage, and yield what that took."""
    begun = time.perf_counter()
    write_world(folder / "log", events)
    size = sum(path.stat().st_size for path in (folder / "log").rglob("*.parquet"))
    say(f"{events} events are written, {size / 1e9:.2f} GB, in {time.perf_counter() - begun:.0f} s")
    stage = write_stage(folder, folder / "log")
    runs = [run_stage(stage, folder, index, shards) for index in range(shards)]
    name = f"{events / 1e6:g} million events, {shards} pod{'s' * (shards > 1)}"
    yield Line(f"{name}, longest", "s", max(seconds for seconds, _ in runs))
    yield Line(f"{name}, peak memory of one", "MiB", max(memory for _, memory in runs), MEMORY_TARGET)
    yield Line(f"{name}, log on disk", "MB", size / 1e6)


def main() -> None:
    """Measure, print the table, save the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=3_000_000, help="feedback events (default: 3 million)")
    parser.add_argument("--shards", type=int, default=1, help="pods that share them out, one after the other")
    parser.add_argument("--folder", type=Path, help="where the log is written (default: the system's)")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="thinkrec-benchmark-", dir=options.folder) as name:
        lines = list(measured(Path(name), options.events, options.shards))
    say("done")
    print(table(lines))
    if options.json:
        save(options.json, lines, {"events": options.events, "shards": options.shards})


if __name__ == "__main__":
    main()
