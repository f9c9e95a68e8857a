# SPDX-License-Identifier: Apache-2.0
"""Compaction: fewer tables with the same rows, whatever is killed, and whoever reads meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from thinkrec_crds.stages import StoreOptions
from thinkrec_trainer.errors import Temporary
from thinkrec_trainer.events.compact import compact
from thinkrec_trainer.events.read import scan_events
from thinkrec_trainer.events.ship import Shipper
from thinkrec_trainer.store import Blob, Blobs, open_blobs
from thinkrec_trainer.store.file_blobs import FileBlobs

FillFolder = Callable[..., list[str]]
FillStore = Callable[[Blobs], list[str]]
FOREVER = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))


def later() -> datetime:
    """Return a time at which everything of now, and of the exposures' fixed hour, has settled."""
    return max(datetime.now(UTC), datetime(2026, 11, 29, tzinfo=UTC)) + timedelta(hours=3)


def run(blobs: Blobs) -> dict[str, int]:
    return compact(blobs, "movies", days=10_000, settle_hours=1, now=later())


def stored(blobs: Blobs, cache: Path) -> tuple[list[str], list[str]]:
    tables = scan_events(blobs, "movies", *FOREVER, cache=cache)
    events, exposures = tables.events.collect()["event_id"], tables.exposures.collect()["exposure_id"]
    return sorted(events.to_list()), sorted(exposures.to_list())


def names(blobs: Blobs) -> list[str]:
    return [blob.name for blob in blobs.list("events/")]


class Killed(BaseException):
    """The process is gone."""


class Mortal(FileBlobs):
    """A real store that ends the process before its step number `steps`."""

    steps = 1_000_000

    def step(self) -> None:
        if self.steps == 0:
            raise Killed
        object.__setattr__(self, "steps", self.steps - 1)

    def upload(self, name: str, source: Path) -> None:
        self.step()
        super().upload(name, source)

    def delete(self, names: Sequence[str]) -> None:
        for name in names:
            self.step()
            super().delete([name])


class Interrupted(FileBlobs):
    """A store that is not local, and is compacted between listing and download, `times` times."""

    times = 1

    @property
    def folder(self) -> Path | None:
        return None

    def list(self, prefix: str = "") -> Sequence[Blob]:
        found = super().list(prefix)
        if self.times and len(found) > 1:
            object.__setattr__(self, "times", self.times - 1)
            for blob in found:
                moved = self.root / blob.name
                moved.rename(moved.with_name(f"moved-{self.times}-{moved.name}"))
        return found


@pytest.fixture
def fill_store(fill: FillFolder, folder: Path) -> FillStore:
    """Ship 120 events in several segments, so that each part has several tables; return the ids."""

    def run_fill(blobs: Blobs) -> list[str]:
        ids = fill(120, segment_bytes=8_000)
        assert Shipper(folder, blobs, "movies", lambda line: None).round() is None
        return ids

    return run_fill


def test_each_hour_and_part_becomes_one_table_with_the_same_rows(
    fill_store: FillStore, storage: tuple[str, StoreOptions], tmp_path: Path
) -> None:
    blobs = open_blobs(*storage)
    fill_store(blobs)
    before, many = stored(blobs, tmp_path / "one"), names(blobs)
    counts = run(blobs)
    few = names(blobs)
    assert len({name.rpartition("/")[0] for name in few}) == len(few), "one table per folder"
    assert len(few) - len(many) == counts["written"] - counts["read"] < 0
    assert stored(blobs, tmp_path / "two") == before
    assert run(blobs) == {"read": 0, "written": 0}
    assert names(blobs) == few


def test_hours_that_have_not_settled_are_left_alone(fill_store: FillStore, tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path / "store")
    fill_store(blobs)
    before = [name for name in names(blobs) if "kind=feedback" in name]
    compact(blobs, "movies", days=10_000, settle_hours=1, now=datetime.now(UTC) + timedelta(minutes=59))
    assert [name for name in names(blobs) if "kind=feedback" in name] == before


def test_killed_before_any_step_it_loses_nothing_and_the_next_run_ends_the_work(
    fill_store: FillStore, tmp_path: Path
) -> None:
    blobs = Mortal(tmp_path / "store")
    fill_store(blobs)
    before, cache = stored(blobs, tmp_path / "cache"), 0
    killed = True
    while killed:
        object.__setattr__(blobs, "steps", 7)
        try:
            run(blobs)
            killed = False
        except Killed:
            cache += 1
        object.__setattr__(blobs, "steps", 1_000_000)
        assert stored(blobs, tmp_path / f"cache-{cache}") == before
    assert cache > 5
    few = names(blobs)
    assert len({name.rpartition("/")[0] for name in few}) == len(few)


def test_two_at_once_lose_nothing(fill_store: FillStore, tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path / "store")
    fill_store(blobs)
    before = stored(blobs, tmp_path / "cache")
    threads = [threading.Thread(target=run, args=(FileBlobs(tmp_path / "store"),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stored(blobs, tmp_path / "after") == before


def test_a_reader_whose_tables_are_replaced_meanwhile_reads_again(fill_store: FillStore, tmp_path: Path) -> None:
    blobs = Interrupted(tmp_path / "store")
    ids = fill_store(blobs)
    assert stored(blobs, tmp_path / "cache")[0] == sorted(ids)


def test_it_gives_up_where_tables_keep_vanishing(fill_store: FillStore, tmp_path: Path) -> None:
    blobs = Interrupted(tmp_path / "store")
    fill_store(blobs)
    object.__setattr__(blobs, "times", 100)
    with pytest.raises(Temporary, match="vanish as they are read"):
        stored(blobs, tmp_path / "cache")


def test_what_was_read_of_a_folder_stays_after_a_compaction(fill_store: FillStore, tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path / "store")
    ids = fill_store(blobs)
    tables = scan_events(blobs, "movies", *FOREVER, cache=tmp_path / "cache")
    run(blobs)
    assert sorted(tables.events.collect()["event_id"].to_list()) == sorted(ids)


def test_the_command_tells_its_counts(fill_store: FillStore, tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path / "store")
    fill_store(blobs)
    options = ["--store", str(tmp_path / "store"), "--model", "movies", "--days", "20000", "--settle-hours", "0"]
    command = [sys.executable, "-m", "thinkrec_trainer", "compact-events", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout).keys() == {"event", "read", "written"}


def test_only_the_parts_that_were_asked_for_are_touched(fill_store: FillStore, tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path / "store")
    fill_store(blobs)
    before, whole = names(blobs), stored(blobs, tmp_path / "before")
    part = next(name.split("/")[-2] for name in before if "kind=feedback" in name)
    others = {name for name in before if f"/{part}/" not in name}
    counts = compact(
        blobs, "movies", days=10_000, settle_hours=1, now=later(), parts=(int(part.removeprefix("part=")),)
    )
    assert counts["written"] >= 1
    assert others <= set(names(blobs))
    assert stored(blobs, tmp_path / "after") == whole
