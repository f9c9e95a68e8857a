# SPDX-License-Identifier: Apache-2.0
"""A time range of some parts comes back from the store: each event once, nothing of other hours or users touched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from thinkrec_crds.stages import StoreOptions
from thinkrec_trainer.errors import BadInput
from thinkrec_trainer.events.layout import EXPOSURE, FEEDBACK, PARTS, hour_of, table_name, user_part
from thinkrec_trainer.events.read import ALL_PARTS, EventTables, ListedOnce, parts_of_shard, scan_events
from thinkrec_trainer.store import Blob, Blobs, open_blobs

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
Read = Callable[..., EventTables]


def put(blobs: Blobs, tmp_path: Path, segment: str, *rows: tuple[str, str, datetime], item: str = "i1") -> None:
    """Store events (id, user, time of reception), as the shipper of one segment would."""
    events = [(event_id, user, item, "Like", None, None, None, at) for event_id, user, at in rows]
    table = pl.DataFrame(events, schema=FEEDBACK, orient="row")
    places = [(hour_of(at), user_part(user)) for _, user, at in rows]
    for hour, part in sorted(set(places)):
        file = tmp_path / "table.parquet"
        table.filter(pl.Series([place == (hour, part) for place in places])).write_parquet(file)
        blobs.upload(table_name("movies", "feedback", hour, part, segment), file)


@pytest.fixture
def blobs(storage: tuple[str, StoreOptions]) -> Blobs:
    return open_blobs(*storage)


@pytest.fixture
def read(blobs: Blobs, tmp_path: Path) -> Read:
    def run(start: datetime, end: datetime, parts: tuple[int, ...] = ALL_PARTS) -> EventTables:
        return scan_events(blobs, "movies", start, end, cache=tmp_path / "cache", parts=parts)

    return run


def ids(tables: EventTables) -> list[str]:
    return sorted(tables.events.select("event_id").collect(engine="streaming")["event_id"].to_list())


def test_a_range_is_half_open_and_exact_within_its_hours(blobs: Blobs, read: Read, tmp_path: Path) -> None:
    minutes = [-61, -1, 0, 30, 59, 60, 119, 120]
    put(blobs, tmp_path, "s1", *((str(m), "ann", NOON + timedelta(minutes=m)) for m in minutes))
    assert ids(read(NOON, NOON + timedelta(hours=2))) == ["0", "119", "30", "59", "60"]
    assert ids(read(NOON + timedelta(minutes=30), NOON + timedelta(minutes=59))) == ["30"]
    berlin = NOON.astimezone(UTC).replace(tzinfo=None) + timedelta(hours=1)
    bound = datetime.fromisoformat(f"{berlin.isoformat()}+01:00")
    assert ids(read(bound, bound + timedelta(hours=1))) == ["0", "30", "59"], "any zone will do"


def test_a_range_may_cross_the_turn_of_the_year(blobs: Blobs, read: Read, tmp_path: Path) -> None:
    turn = datetime(2027, 1, 1, tzinfo=UTC)
    put(blobs, tmp_path, "s1", ("old", "ann", turn - timedelta(seconds=1)), ("new", "ann", turn))
    put(blobs, tmp_path, "s2", ("outside", "ann", turn + timedelta(days=40)))
    assert ids(read(turn - timedelta(hours=1), turn + timedelta(hours=1))) == ["new", "old"]


def test_duplicates_are_removed_across_segments_hours_and_days_and_the_first_one_stays(
    blobs: Blobs, read: Read, tmp_path: Path
) -> None:
    put(blobs, tmp_path, "s1", ("a", "ann", NOON), ("a", "ann", NOON), ("b", "ann", NOON))
    put(blobs, tmp_path, "s2", ("a", "ann", NOON + timedelta(hours=1)), item="i2")
    put(blobs, tmp_path, "s3", ("b", "ann", NOON + timedelta(days=2)), ("c", "bob", NOON), item="i3")
    found = read(NOON, NOON + timedelta(days=3)).events.sort("event_id").collect(engine="streaming")
    assert found.select("event_id", "item_id").rows() == [("a", "i1"), ("b", "i1"), ("c", "i3")]
    assert found.schema == FEEDBACK


def test_an_id_of_another_user_makes_nothing_vanish(blobs: Blobs, read: Read, tmp_path: Path) -> None:
    users = [f"user-{number}" for number in range(40)]
    put(blobs, tmp_path, "s1", *(("same", user, NOON) for user in users))
    assert ids(read(NOON, NOON + timedelta(hours=1))) == ["same"] * 40


def test_shards_see_each_user_whole_and_read_nothing_else(
    blobs: Blobs, read: Read, tmp_path: Path, storage: tuple[str, StoreOptions]
) -> None:
    users = [f"user-{number}" for number in range(40)]
    put(blobs, tmp_path, "s1", *((f"1-{user}", user, NOON) for user in users))
    put(blobs, tmp_path, "s2", *((f"2-{user}", user, NOON + timedelta(hours=3)) for user in users))
    seen: list[str] = []
    for index in range(3):
        parts = parts_of_shard(index, 3)
        found = read(NOON, NOON + timedelta(days=1), parts).events.collect()
        assert {user_part(user) for user in found["user_id"]} <= set(parts)
        assert found.group_by("user_id").len()["len"].unique().to_list() == [2]
        seen += found["event_id"].to_list()
        if index == 0 and storage[0].startswith("s3:"):
            fetched = {path.parent.name for path in (tmp_path / "cache").rglob("*.parquet")}
            assert fetched <= {f"part={part:02d}" for part in parts}
    assert sorted(seen) == sorted([f"{n}-{user}" for n in (1, 2) for user in users])


@pytest.mark.parametrize("count", [1, 3, 16, 40])
def test_shards_together_read_each_part_once(count: int) -> None:
    assert sorted(part for index in range(count) for part in parts_of_shard(index, count)) == list(range(PARTS))


def test_a_shard_beyond_the_count_is_refused() -> None:
    with pytest.raises(BadInput, match="shard 3 of 3"):
        parts_of_shard(3, 3)


def test_nothing_stored_gives_empty_tables(read: Read) -> None:
    tables = read(NOON, NOON + timedelta(hours=1))
    assert tables.events.collect().schema == FEEDBACK
    assert tables.exposures.collect().schema == EXPOSURE
    assert tables.events.collect().height == 0


def test_a_column_that_an_older_shipper_did_not_know_is_null(blobs: Blobs, read: Read, tmp_path: Path) -> None:
    put(blobs, tmp_path, "s1", ("a", "ann", NOON))
    old = pl.DataFrame(
        [("b", "ann", NOON)],
        schema={name: FEEDBACK[name] for name in ("event_id", "user_id", "received_at")},
        orient="row",
    )
    old.write_parquet(tmp_path / "old.parquet")
    blobs.upload(table_name("movies", "feedback", hour_of(NOON), user_part("ann"), "s0"), tmp_path / "old.parquet")
    found = read(NOON, NOON + timedelta(hours=1)).events.sort("event_id").collect()
    assert found["type"].to_list() == ["Like", None]


def test_a_bound_without_a_zone_is_refused(read: Read) -> None:
    with pytest.raises(BadInput, match="names no time zone"):
        read(datetime(2026, 11, 28), NOON)


def test_other_models_are_not_seen(blobs: Blobs, read: Read, tmp_path: Path) -> None:
    put(blobs, tmp_path, "s1", ("a", "ann", NOON))
    assert scan_events(blobs, "movies2", NOON, NOON + timedelta(hours=1), cache=tmp_path).events.collect().height == 0


class Counting:
    """A store that counts how often it is asked for names."""

    def __init__(self, blobs: Blobs) -> None:
        self.blobs = blobs
        self.lists = 0

    @property
    def uri(self) -> str:
        return self.blobs.uri

    @property
    def folder(self) -> Path | None:
        return None  # tables are downloaded, not linked

    def list(self, prefix: str = "") -> Sequence[Blob]:
        self.lists += 1
        return self.blobs.list(prefix)

    def download(self, name: str, to: Path) -> None:
        self.blobs.download(name, to)


def test_all_parts_one_after_the_other_list_the_names_once(blobs: Blobs, tmp_path: Path) -> None:
    users = [f"user-{number}" for number in range(40)]
    put(blobs, tmp_path, "s1", *((f"e-{user}", user, NOON) for user in users))
    counting = Counting(blobs)
    once, end = ListedOnce(counting), NOON + timedelta(hours=1)
    found = [
        ids(scan_events(once, "movies", NOON, end, cache=tmp_path / f"{part}", parts=(part,))) for part in range(PARTS)
    ]
    assert sorted(event for part in found for event in part) == sorted(f"e-{user}" for user in users)
    assert counting.lists == 3  # feedback, exposures, copies


def test_names_are_listed_again_when_a_compaction_took_one_away(blobs: Blobs, tmp_path: Path) -> None:
    put(blobs, tmp_path, "s1", ("e1", "ann", NOON))
    counting = Counting(blobs)
    once, end, part = ListedOnce(counting), NOON + timedelta(hours=1), user_part("ann")
    assert ids(scan_events(once, "movies", NOON, end, cache=tmp_path / "first", parts=(part,))) == ["e1"]
    (table,) = [blob.name for blob in blobs.list("events/")]
    put(blobs, tmp_path, "compacted", ("e1", "ann", NOON), ("e2", "ann", NOON))
    blobs.delete([table])
    assert ids(scan_events(once, "movies", NOON, end, cache=tmp_path / "second", parts=(part,))) == ["e1", "e2"]
    assert counting.lists > 3
