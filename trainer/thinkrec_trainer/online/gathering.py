# SPDX-License-Identifier: Apache-2.0
"""All of a pod's parts of the event log, one after the other: memory is that of one part, a sixteenth of the users."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from thinkrec_crds.buckets import BUCKETS
from thinkrec_crds.stages import AnalyseParameters
from thinkrec_trainer.context import StageContext
from thinkrec_trainer.events.read import EventTables, ListedOnce, scan_events
from thinkrec_trainer.online import mirrored, sources, users
from thinkrec_trainer.online.gathered import Counts, Gathered, total
from thinkrec_trainer.online.groups import Groups, groups_of
from thinkrec_trainer.online.moments import Moments, moments_of
from thinkrec_trainer.online.quantities import Quantity, quantities
from thinkrec_trainer.online.weights import comparable

BY_GROUP = "groups"
"""Key of the deciding metric by group and bucket: cell = group * BUCKETS + bucket."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is gathered of each part."""

    given: AnalyseParameters
    quantities: tuple[Quantity, ...]
    groups: Groups | None

    @property
    def since(self) -> datetime:
        """The earliest event that is asked for."""
        earlier = self.given.mode != "Mirror" and any(quantity.earlier for quantity in self.quantities)
        lookback = self.given.analysis.lookback_seconds if self.given.analysis is not None and earlier else 0
        return self.given.start - timedelta(seconds=lookback)

    def gather(self, tables: EventTables) -> Gathered:
        """Return what is known of the users of one part."""
        return self._mirrored(tables) if self.given.mode == "Mirror" else self._compared(tables)

    def _compared(self, tables: EventTables) -> Gathered:
        exposures = tables.exposures.filter(
            (pl.col("experiment") == self.given.experiment) & (pl.col("at") >= self.given.start)
        )
        census = users.census(exposures)
        texts = sorted(set(census["weights"].drop_nulls()))
        fair = [text for text in texts if comparable(text, self.given.variants)]
        exposed, several = users.exposed(exposures, fair)
        tallies = list(dict.fromkeys(tally for quantity in self.quantities for tally in quantity.tallies))
        table, events = users.with_events(exposed, tables.events, tallies, self.given.start)
        requests, fallbacks = (_by_variant(census, name) for name in ("requests", "fallbacks"))
        counts = Counts(weights=tuple(texts), requests=requests, fallbacks=fallbacks, events=events, several=several)
        found = Gathered(counts, {each.key: _moments(each, table, users.BUCKET, BUCKETS) for each in self.quantities})
        return found if self.groups is None else found.merged(self._by_group(table, self.groups))

    def _by_group(self, table: pl.DataFrame, groups: Groups) -> Gathered:
        cell = pl.col(users.GROUP) * BUCKETS + pl.col(users.BUCKET)
        grouped = groups.joined(table).with_columns(cell.alias(users.GROUP))
        moments = _moments(self.quantities[0], grouped, users.GROUP, BUCKETS * len(groups.names))
        return Gathered(moments={BY_GROUP: moments})

    def _mirrored(self, tables: EventTables) -> Gathered:
        records = tables.mirrored.filter(pl.col("experiment") == self.given.experiment)
        table = mirrored.copied(records, self.given.variants)
        sizes = dict(table.group_by(mirrored.VARIANT).len().iter_rows())
        people = {name: sizes.get(place, 0) for place, name in enumerate(self.given.variants)}
        known = [each for each in self.quantities if set(each.parts) <= set(table.columns)]
        count = len(self.given.variants)
        return Gathered(
            Counts(people=people, mirrored=mirrored.totals(records)),
            {each.key: _moments(each, table, mirrored.VARIANT, count) for each in known},
        )


def gather(context: StageContext, given: AnalyseParameters, parts: Sequence[int], *, steps: int) -> Gathered:
    """Return what is known of the users of these parts; tell progress as the first of `steps` steps."""
    task = Task(given, quantities(given.analysis), groups_of(context, given))
    with sources.opened(context, given) as store:
        if given.events_uri is not None:
            sources.tidy(store, given.model, task.since, parts)
        blobs = ListedOnce(store)

        def read(part: int, cache: Path) -> EventTables:
            return scan_events(blobs, given.model, task.since, given.end, cache=cache, parts=(part,))

        return total([_part(context, task, read, place, part, steps) for place, part in enumerate(parts)])


def _part(
    context: StageContext, task: Task, read: Callable[[int, Path], EventTables], place: int, part: int, steps: int
) -> Gathered:
    context.checkpoint.raise_if_interrupted()
    context.progress.update(place, steps, f"part {part} of the users")
    with tempfile.TemporaryDirectory(prefix="thinkrec-events-") as cache:
        return task.gather(read(part, Path(cache)))


def _moments(quantity: Quantity, table: pl.DataFrame, cell: str, count: int) -> Moments:
    return moments_of(quantity.kind, quantity.columns(table), table[cell].cast(pl.Int64).to_numpy(), count)


def _by_variant(census: pl.DataFrame, name: str) -> dict[str, int]:
    found = census.group_by("variant").agg(pl.col(name).sum()).sort("variant")
    return {str(variant): int(count) for variant, count in found.iter_rows()}
