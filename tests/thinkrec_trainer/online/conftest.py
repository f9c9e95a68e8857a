# SPDX-License-Identifier: Apache-2.0
"""A small event log, written record by record into a store as gateways would, and the stage's look at it.

Control has the buckets from 5000 on and `new` those below. A test chooses a user's bucket: nobody hashes them again.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from support.llm_stages import seal
from support.stages import make_context
from thinkrec_crds.analysis_spec import Analysis
from thinkrec_crds.findings import FINDINGS_NAME, FindingsReport
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_crds.stages import AnalyseParameters
from thinkrec_trainer import analyse
from thinkrec_trainer.context import LocalArtifact, StageContext, StageResult
from thinkrec_trainer.events.layout import SCHEMAS, TIME, Kind, hour_of, table_name, user_part

START = datetime(2026, 11, 28, 12, tzinfo=UTC)
UID, MODEL = "u1", "movies"
EVEN = "control=50,new=50"


@dataclass
class Looked:
    """What the stage left."""

    result: StageResult
    report: FindingsReport
    page: str

    def value(self, variant: str, metric: str) -> float | None:
        """Return a metric's value."""
        found = self.report.newest.values
        return next(each.value for each in found if (each.variant, each.metric) == (variant, metric))


@dataclass
class Log:
    """Records by kind, and where they are stored."""

    root: Path
    rows: dict[Kind, list[dict[str, Any]]] = field(default_factory=lambda: {kind: [] for kind in SCHEMAS})
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def see(self, user: str, variant: str = "new", minutes: float = 0, **more: Any) -> None:
        """Add an exposure, `minutes` after the start."""
        record = {
            "exposure_id": f"x{next(self.numbers)}",
            "experiment": UID,
            "variant": variant,
            "user_id": user,
            "bucket": 7000 if variant == "control" else 100,
            "weights": EVEN,
            "served_by": variant,
            "revision": "r1",
            "fallback": False,
            "fallback_reason": None,
            "degraded": False,
            "at": START + timedelta(minutes=minutes),
            "latency_milliseconds": 10.0,
            "error": False,
            "empty": False,
        }
        self.rows["exposure"].append(record | more)

    def act(self, user: str, event: str = "Like", minutes: float = 1, **more: Any) -> None:
        """Add feedback."""
        record = {
            "event_id": f"e{next(self.numbers)}",
            "user_id": user,
            "item_id": "i1",
            "type": event,
            "value": None,
            "occurred_at": None,
            "generation": None,
            "received_at": START + timedelta(minutes=minutes),
        }
        self.rows["feedback"].append(record | more)

    def copy(self, user: str, variant: str = "new", minutes: float = 0, **more: Any) -> None:
        """Add a mirrored request."""
        record = {
            "mirror_id": f"m{next(self.numbers)}",
            "experiment": UID,
            "variant": variant,
            "revision": "r1",
            "user_id": user,
            "at": START + timedelta(minutes=minutes),
            "branch": "OneHot",
            "error": False,
            "latency_milliseconds": 10.0,
            "items": 10,
            "overlap": 0.5,
            "rank_correlation": 0.25,
            "score_shift": 0.1,
        }
        self.rows["mirror"].append(record | more)

    def write(self, root: Path, segment: str = "s1") -> Path:
        """Store what there is as one segment's tables, and forget it."""
        for kind, rows in self.rows.items():
            if rows:
                table = pl.DataFrame(rows, schema=SCHEMAS[kind])
                places = [(hour_of(row[TIME[kind]]), user_part(row["user_id"])) for row in rows]
                for hour, part in sorted(set(places)):
                    path = root / table_name(MODEL, kind, hour, part, segment)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    table.filter(pl.Series([place == (hour, part) for place in places])).write_parquet(path)
            rows.clear()
        return root

    def artifact(self, name: str) -> LocalArtifact:
        """Store what there is as simulated events, and forget it."""
        return seal(self.write(self.root / name, "same"), StageKind.SIMULATE)

    def look(
        self,
        analysis: Mapping[str, Any] | None,
        *,
        inputs: Mapping[str, LocalArtifact] | None = None,
        name: str = "look",
        **more: Any,
    ) -> Looked:
        """Store what there is and look at it, in one pod."""
        context = self.context(analysis, inputs=inputs, name=name, **more)
        return self.looked(context, analyse.run(context))

    def context(
        self,
        analysis: Mapping[str, Any] | None,
        *,
        inputs: Mapping[str, LocalArtifact] | None = None,
        name: str = "look",
        **more: Any,
    ) -> StageContext:
        """Return a context for a look at all that was stored."""
        self.write(self.root / "events-store", f"s{next(self.numbers)}")
        return make_context(parameters(analysis, self.root, **more), self.root / name, inputs=inputs)

    def looked(self, context: StageContext, result: StageResult) -> Looked:
        """Return what the stage left."""
        report = FindingsReport.from_json((context.output / FINDINGS_NAME).read_bytes())
        return Looked(result, report, (context.output / "report" / "index.html").read_text())


def parameters(analysis: Mapping[str, Any] | None, root: Path, **more: Any) -> AnalyseParameters:
    """Return parameters of an A/B test of two hours."""
    body: dict[str, Any] = {
        "experiment": UID,
        "model": MODEL,
        "events_uri": (root / "events-store").as_uri(),
        "mode": "ABTest",
        "control": "control",
        "variants": ("control", "new"),
        "start": START,
        "end": START + timedelta(hours=2),
        "number": 1,
        "analysis": None if analysis is None else Analysis.model_validate(analysis),
    }
    return AnalyseParameters.model_validate(body | more)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """An empty event log."""
    return Log(tmp_path)


@pytest.fixture
def crowd(log: Log) -> Sequence[str]:
    """Log one exposure each of 60 users of either variant, c0 … and n0 …; return their names."""
    for number in range(60):
        log.see(f"c{number}", "control", bucket=5000 + number)
        log.see(f"n{number}", "new", bucket=number)
    return [f"{side}{number}" for side in "cn" for number in range(60)]
