# SPDX-License-Identifier: Apache-2.0
"""Exposures, feedback and mirrored requests as the tables that a shipper makes of a gateway's log."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl

from thinkrec_crds.stages import SimulateParameters
from thinkrec_trainer.events.layout import EXPOSURE, FEEDBACK, MIRROR, MOMENT
from thinkrec_trainer.metrics.rows import Floats, Ints
from thinkrec_trainer.simulation.agreement import Agreement
from thinkrec_trainer.simulation.draws import Draws
from thinkrec_trainer.simulation.people import People, Visits
from thinkrec_trainer.simulation.reactions import Reactions

Texts = npt.NDArray[np.object_]
_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BRANCH = "simulated"
"""Of mirrored requests: no gate had a part in control's answer."""


@dataclass(frozen=True, slots=True, eq=False)
class Recorder:
    """Everything that records say about who came when."""

    given: SimulateParameters
    people: People
    visits: Visits
    latencies: Floats
    """(N,) milliseconds of each visit's request, whoever answers."""
    visit_ids: Texts
    """(N,) unique over experiments: their logs may lie in one store."""

    @classmethod
    def of(cls, given: SimulateParameters, people: People, visits: Visits, draws: Draws) -> Recorder:
        """Draw the latencies: 20 ms and more, 50 ms on average."""
        latencies = 20 - 30 * np.log1p(-draws.uniform("latency", *visits.place))
        tag = hashlib.sha256(given.experiment.encode()).hexdigest()[:8]
        names = people.ids[visits.persons].tolist()
        ids = [f"{tag}-{name}-{ordinal}" for name, ordinal in zip(names, visits.ordinals.tolist(), strict=True)]
        return cls(given, people, visits, np.round(latencies, 2), np.array(ids, dtype=object))

    def exposures(self) -> pl.DataFrame:
        """Return one exposure per visit: nothing fell back, failed or was empty."""
        variants = np.array([name for name, _ in self.given.weights], dtype=object)
        served = variants[self.people.variants[self.visits.persons]]
        revisions = dict(self.given.revisions)
        columns = {
            "exposure_id": self.visit_ids,
            "experiment": self.given.experiment,
            "variant": served,
            "user_id": self._visitors,
            "bucket": self.people.buckets[self.visits.persons],
            "weights": ",".join(f"{name}={weight}" for name, weight in self.given.weights),
            "served_by": served,
            "revision": np.array([revisions[name] for name in served], dtype=object),
            "fallback": False,
            "fallback_reason": None,
            "degraded": False,
            "at": self._moments(self.visits.moments),
            "latency_milliseconds": self.latencies,
            "error": False,
            "empty": False,
        }
        return _table(columns, EXPOSURE)

    def feedback(self, found: Reactions, items: Texts) -> pl.DataFrame:
        """Return the events of one name, given the (R,) item ids of the tastes' rows."""
        name = found.happening.name
        columns = {
            "event_id": np.array([f"{visit}-{name}" for visit in self.visit_ids[found.visits]], dtype=object),
            "user_id": self._visitors[found.visits],
            "item_id": items[found.rows],
            "type": name,
            "value": found.happening.value,
            "occurred_at": None,
            "generation": None,
            "received_at": self._moments(found.moments),
        }
        return _table(columns, FEEDBACK)

    def mirrored(self, variant: str, found: Agreement) -> pl.DataFrame:
        """Return one mirrored request per visit."""
        columns = {
            "mirror_id": np.array([f"{visit}-{variant}" for visit in self.visit_ids], dtype=object),
            "experiment": self.given.experiment,
            "variant": variant,
            "revision": dict(self.given.revisions)[variant],
            "user_id": self._visitors,
            "at": self._moments(self.visits.moments),
            "branch": BRANCH,
            "error": False,
            "latency_milliseconds": self.latencies,
            "items": found.items,
            "overlap": found.overlap,
            "rank_correlation": found.rank_correlation,
            "score_shift": found.score_shift,
        }
        return _table(columns, MIRROR)

    @property
    def _visitors(self) -> Texts:
        found: Texts = self.people.ids[self.visits.persons]
        return found

    def _moments(self, after_start: Ints) -> pl.Series:
        return pl.Series((self.given.start - _EPOCH) // _MICROSECOND + after_start).cast(MOMENT)


def span_of(given: SimulateParameters) -> int:
    """Return the microseconds from start to end."""
    return (given.end - given.start) // _MICROSECOND


def _table(columns: Mapping[str, object], schema: pl.Schema) -> pl.DataFrame:
    """Return a table in which a single value stands for all rows, and NaN is null."""
    whole = {name: _plain(value) for name, value in columns.items()}
    return pl.DataFrame(whole, schema=schema, nan_to_null=True)


def _plain(value: object) -> object:
    """Return texts as a list, of which Polars makes strings, and anything else as it is."""
    return value.tolist() if isinstance(value, np.ndarray) and value.dtype == object else value
