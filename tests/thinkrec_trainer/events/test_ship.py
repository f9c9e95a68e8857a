# SPDX-License-Identifier: Apache-2.0
"""The shipper: killed between any two steps, store away, gateway alive or gone; nothing is lost, nothing twice."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from support.event_writer import exposure, feedback
from thinkrec_crds.event_log import is_open
from thinkrec_crds.stages import StoreOptions
from thinkrec_inference.gateway.events import EventLog
from thinkrec_inference.refusal import Refused
from thinkrec_trainer.errors import BadInput, StageError, Temporary
from thinkrec_trainer.events import ship
from thinkrec_trainer.events.read import scan_events
from thinkrec_trainer.store import Blobs, open_blobs
from thinkrec_trainer.store.file_blobs import FileBlobs

ROOT = Path(__file__).resolve().parents[3]
FOREVER = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
FillFolder = Callable[..., list[str]]
MakeShipper = Callable[..., ship.Shipper]
Start = Callable[..., subprocess.Popen[str]]


class Killed(BaseException):
    """The process is gone: nothing that catches exceptions may go on."""


@dataclass
class Steps:
    """Counts the steps of a shipper, and ends it before step number `last`."""

    last: int = 1_000_000
    taken: int = 0

    def step(self) -> None:
        if self.taken == self.last:
            raise Killed
        self.taken += 1


class Watched(FileBlobs):
    """A real store that ends the shipper, or is away."""

    steps: Steps
    failure: StageError | None

    def upload(self, name: str, source: Path) -> None:
        if self.failure is not None:
            raise self.failure
        self.steps.step()
        super().upload(name, source)


def watched(root: Path, steps: Steps | None = None, failure: StageError | None = None) -> Watched:
    blobs = Watched(root)
    object.__setattr__(blobs, "steps", steps or Steps())
    object.__setattr__(blobs, "failure", failure)
    return blobs


def content(root: Path) -> dict[str, str]:
    """Return name -> digest of everything in a store."""
    files = [path for path in root.rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def stored_ids(blobs: Blobs, cache: Path) -> list[str]:
    events = scan_events(blobs, "movies", *FOREVER, cache=cache).events
    return sorted(events.select("event_id").collect()["event_id"].to_list())


def raw_ids(root: Path) -> list[str]:
    """Return the ids in all tables, duplicates included."""
    files = sorted(root.rglob("kind=feedback/**/*.parquet"))
    return [event_id for path in files for event_id in pl.read_parquet(path)["event_id"].to_list()]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start the command on a folder and the store of this test; whatever still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def run(folder: Path, *options: str) -> subprocess.Popen[str]:
        command = [*("--folder", str(folder), "--store", str(tmp_path / "store"), "--model", "movies"), *options]
        process = subprocess.Popen(
            [sys.executable, "-m", "thinkrec_trainer", "ship-events", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def test_everything_reaches_either_store_and_the_folder_is_empty(
    fill: FillFolder,
    shipper: MakeShipper,
    folder: Path,
    tmp_path: Path,
    lines: list[str],
    storage: tuple[str, StoreOptions],
) -> None:
    ids = fill()
    blobs = open_blobs(*storage)
    chosen = shipper(blobs)
    assert ship.ship_once(chosen) == 0
    assert chosen.left() == []
    assert stored_ids(blobs, tmp_path / "cache") == sorted(ids)
    exposures = scan_events(blobs, "movies", *FOREVER, cache=tmp_path / "cache").exposures.collect()
    assert sorted(exposures["exposure_id"]) == sorted(f"x-{event_id}" for event_id in ids[::3])
    told = json.loads(lines[-1])
    assert (told["events"], told["exposures"], told["waitingSegments"]) == (300, 100, 0)
    assert all(blob.name.startswith("events/movies/kind=") for blob in blobs.list())


def test_killed_between_any_two_steps_it_ends_with_the_same_store(
    fill: FillFolder, shipper: MakeShipper, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = fill(40, segment_bytes=6_000)
    original = tmp_path / "original"
    shutil.copytree(folder, original)
    steps = Steps()
    unlink = Path.unlink

    def watched_unlink(path: Path, missing_ok: bool = False) -> None:
        if path.parent == folder:
            steps.step()
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", watched_unlink)
    shipper(watched(tmp_path / "whole", steps)).round()
    expected, total = content(tmp_path / "whole"), steps.taken
    assert total > 20
    for last in range(total):
        shutil.rmtree(folder)
        shutil.copytree(original, folder)
        steps = Steps(last)
        root = tmp_path / f"store-{last}"
        with pytest.raises(Killed):
            shipper(watched(root, steps)).round()
        steps = Steps()
        assert shipper(watched(root, steps)).round() is None
        assert content(root) == expected
        assert not list(folder.glob("*.jsonl"))
    assert sorted(raw_ids(root)) == sorted(ids)


def test_a_real_process_killed_at_random_loses_nothing_and_writes_nothing_twice(
    fill: FillFolder, folder: Path, tmp_path: Path, start: Start
) -> None:
    ids = fill(1500, segment_bytes=6_000)
    dice = random.Random(3)
    for _ in range(3):
        process = start(folder, "--interval-seconds", "0.1")
        wait_until(lambda: any((tmp_path / "store").rglob("*.parquet")), 30)
        time.sleep(dice.uniform(0.0, 0.15))
        process.kill()
        process.wait()
    assert list(folder.glob("*.jsonl")), "it was killed before it was done"
    process = start(folder, "--final")
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert sorted(raw_ids(tmp_path / "store")) == sorted(ids)


class TestOutage:
    def test_segments_stay_and_are_shipped_when_the_store_is_back(
        self, fill: FillFolder, shipper: MakeShipper, tmp_path: Path, lines: list[str]
    ) -> None:
        ids = fill()
        chosen = shipper(watched(tmp_path / "store", failure=Temporary("S3 endpoint http://s3 is out of reach")))
        waiting = len(chosen.left())
        for attempt in range(1, 4):
            assert isinstance(chosen.round(), Temporary)
            assert (chosen.failures, len(chosen.left())) == (attempt, waiting)
        told = json.loads(lines[-1])
        assert (told["waitingSegments"], told["segments"], told["retrySeconds"]) == (waiting, 0, 4.0)
        assert "out of reach" in told["message"]
        object.__setattr__(chosen.blobs, "failure", None)
        assert chosen.round() is None
        assert (chosen.failures, chosen.left()) == (0, [])
        assert stored_ids(chosen.blobs, tmp_path) == sorted(ids)

    def test_waits_are_doubled_up_to_a_cap_and_scattered(self, shipper: MakeShipper) -> None:
        chosen = shipper()
        longest, shortest = [], []
        for chosen.failures in range(1, 12):
            longest.append(chosen.retry_seconds(lambda: 1.0))
            shortest.append(chosen.retry_seconds(lambda: 0.0))
        assert longest[:5] == [1, 2, 4, 8, 16]
        assert longest[-1] == 300
        assert shortest == [seconds / 2 for seconds in longest]

    def test_secrets_do_not_reach_the_progress_line(
        self, fill: FillFolder, shipper: MakeShipper, tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-value")
        fill(3)
        shipper(watched(tmp_path / "store", failure=BadInput("refused for hidden-value"))).round()
        assert json.loads(lines[-1])["message"] == "refused for ***"

    def test_a_full_folder_takes_events_again_after_shipping(
        self, shipper: MakeShipper, folder: Path, tmp_path: Path
    ) -> None:
        """Store away -> the folder fills up -> 503 -> store back -> 200, and every acknowledged event is there."""
        log = EventLog(folder, segment_bytes=5_000, max_bytes=50_000)
        chosen = shipper(watched(tmp_path / "store", failure=Temporary("away")))
        numbers, acknowledged = iter(range(1_000_000)), []

        def send_until_refused() -> Refused:
            while True:
                number = next(numbers)
                try:
                    log.append([feedback(f"e{number}", number)])
                except Refused as refusal:
                    return refusal
                acknowledged.append(f"e{number}")
                chosen.round()

        refused = send_until_refused()
        assert (refused.detail.status, refused.retry_after) == (503, 30)
        assert len(acknowledged) > 100
        object.__setattr__(chosen.blobs, "failure", None)
        chosen.round()
        time.sleep(0.3)  # a full folder is not measured more often
        log.append([feedback("after", 0)])
        log.close()
        chosen.round()
        assert stored_ids(chosen.blobs, tmp_path) == sorted([*acknowledged, "after"])


class TestEnd:
    def test_an_open_segment_is_left_to_its_gateway(self, shipper: MakeShipper, folder: Path) -> None:
        log = EventLog(folder)
        log.append([feedback("a", 1)])
        assert ship.ship_once(shipper()) == 0
        assert [is_open(path.name) for path in shipper().left()] == [True]
        log.close()

    def test_final_gives_up_after_its_grace_while_a_gateway_lives(
        self, shipper: MakeShipper, folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        log = EventLog(folder)
        log.append([feedback("a", 1)])
        assert ship.ship_rest(shipper(), 0.3) == 75
        assert "1 segments stay" in caplog.text
        assert "which a gateway still writes to" in caplog.text
        log.close()

    def test_final_waits_for_a_gateway_that_has_written_nothing_yet(
        self, shipper: MakeShipper, folder: Path, tmp_path: Path
    ) -> None:
        log = EventLog(folder)

        def last_words() -> None:
            log.append([feedback("last", 1)])
            log.close()

        threading.Timer(0.4, last_words).start()
        chosen = shipper()
        assert ship.ship_rest(chosen, 20) == 0
        assert stored_ids(chosen.blobs, tmp_path) == ["last"]

    def test_what_a_dead_gateway_left_open_is_taken_at_once(
        self, shipper: MakeShipper, folder: Path, tmp_path: Path
    ) -> None:
        script = (
            "import os, sys\nfrom pathlib import Path\nfrom support.event_writer import feedback\n"
            "from thinkrec_inference.gateway.events import EventLog\n"
            "EventLog(Path(sys.argv[1])).append([feedback('a', 1), feedback('b', 2)])\nos.kill(os.getpid(), 9)\n"
        )
        subprocess.run([sys.executable, "-c", script, str(folder)], check=False, env=environment())
        chosen = shipper()
        assert [is_open(path.name) for path in chosen.left()] == [True]
        assert ship.ship_once(chosen) == 0
        assert stored_ids(chosen.blobs, tmp_path) == ["a", "b"]

    def test_the_sidecar_ships_on_sigterm_what_its_gateway_lets_go_of(
        self, folder: Path, tmp_path: Path, start: Start
    ) -> None:
        log = EventLog(folder, segment_bytes=1)
        log.append([feedback("a", 1)])
        (tmp_path / "store").write_text("a file is in the way: the store refuses")
        process = start(folder, "--interval-seconds", "0.1", "--grace-seconds", "30")
        log.append([feedback("b", 1)])  # closes the first segment
        output = first_lines(process, 2)
        assert all("in the way" in line["message"] for line in output), "refused, and still trying"
        (tmp_path / "store").unlink()
        wait_until(lambda: raw_ids(tmp_path / "store") == ["a"], 30)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert process.poll() is None, "the gateway still writes"
        log.append([feedback("c", 1)])
        log.close()
        process.communicate(timeout=30)
        assert process.returncode == 0
        assert sorted(raw_ids(tmp_path / "store")) == ["a", "b", "c"]


def test_lines_that_are_no_events_are_set_aside_in_the_store(
    fill: FillFolder, shipper: MakeShipper, folder: Path, tmp_path: Path, lines: list[str]
) -> None:
    fill(10)
    (segment,) = folder.glob("*.jsonl")
    segment.write_bytes(b"no event\n" + segment.read_bytes() + exposure(1).to_json().encode()[:30])
    chosen = shipper()
    assert chosen.round() is None
    assert json.loads(lines[-1])["unreadable"] == 1
    (aside,) = [blob.name for blob in chosen.blobs.list("events/movies/unreadable/")]
    assert chosen.blobs.read(aside) == b"no event\n"
    assert len(stored_ids(chosen.blobs, tmp_path)) == 10


def test_two_shippers_on_one_folder_do_each_other_no_harm(
    fill: FillFolder, shipper: MakeShipper, tmp_path: Path
) -> None:
    ids = fill(600)
    both = [shipper(), shipper()]
    threads = [threading.Thread(target=each.round) for each in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert both[0].left() == []
    assert sorted(raw_ids(tmp_path / "store")) == sorted(ids)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--folder", "absent"], "--folder absent is no folder"),
        (["--model", "../x"], "is no name of a model"),
        (["--store", "ftp://x"], "is not supported"),
    ],
)
def test_wrong_options_are_bad_input(options: Sequence[str], message: str, tmp_path: Path, start: Start) -> None:
    process = start(tmp_path, "--once", *options)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 64
    assert message in told


def environment() -> dict[str, str]:
    paths = [str(ROOT / part) for part in ("tests", "crds", "trainer", "inference")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def first_lines(process: subprocess.Popen[str], count: int) -> list[dict[str, Any]]:
    assert process.stdout is not None
    return [json.loads(process.stdout.readline()) for _ in range(count)]


def wait_until(holds: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
