# SPDX-License-Identifier: Apache-2.0
"""The event log under load and at its limits: shared fsyncs, a bounded folder, bounded memory, exposures, kills."""

from __future__ import annotations

import fcntl
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from support.event_writer import exposure
from support.waiting import wait_for
from thinkrec_crds.event_log import WRITERS_LOCK, Exposure, is_open
from thinkrec_inference.gateway.events import EventLog, read_events
from thinkrec_inference.gateway.known_ids import KnownIds
from thinkrec_inference.gateway.schemas import Event
from thinkrec_inference.refusal import Refused

OpenLog = Callable[..., EventLog]
Gateway = Callable[..., TestClient]
ROOT = Path(__file__).resolve().parents[3]
KILLS = 15


@pytest.fixture
def open_log(tmp_path: Path) -> Iterator[OpenLog]:
    logs: list[EventLog] = []

    def start(**options: Any) -> EventLog:
        logs.append(EventLog(tmp_path, **options))
        return logs[-1]

    yield start
    for log in logs:
        log.close()


class Disk:
    """Stands before the real fsync of files: holds it, or lets it fail, while folders are synced as ever."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.real: Callable[[int], None] = os.fsync
        self.syncs = 0
        self.entered, self.go = threading.Event(), threading.Event()
        self.go.set()
        self.fail = False
        patch.setattr(os, "fsync", self)

    def __call__(self, descriptor: int) -> None:
        if os.path.isfile(f"/proc/self/fd/{descriptor}"):
            self.syncs += 1
            self.entered.set()
            assert self.go.wait(20)
            if self.fail:
                raise OSError(5, "Input/output error")
        self.real(descriptor)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def event(event_id: str, **changes: Any) -> Event:
    return Event.model_validate({"eventId": event_id, "userId": "ann", "itemId": "i1", "type": "Like", **changes})


def exposures(folder: Path) -> list[Exposure]:
    lines = [line for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]
    return [Exposure.from_json(line) for line in lines if '"record"' in line]


class TestGroupCommit:
    def test_all_who_wait_while_the_disk_is_busy_share_the_next_fsync(self, open_log: OpenLog, disk: Disk) -> None:
        log = open_log()
        disk.go.clear()
        first = log.submit([event("first")])
        assert disk.entered.wait(10)
        others = [log.submit([event(f"e{number}")]) for number in range(16)]
        assert not any(future.done() for future in (first, *others)), "nothing is durable yet"
        disk.go.set()
        assert [future.result(10) for future in (first, *others)] == [(1, 0)] * 17
        assert disk.syncs == 2

    def test_sixteen_threads_need_far_fewer_fsyncs_than_requests(self, open_log: OpenLog, disk: Disk) -> None:
        log = open_log()
        disk.real = lambda descriptor: time.sleep(0.01)  # a disk that takes 10 ms

        def send(name: int) -> None:
            for number in range(5):
                log.append([event(f"{name}-{number}")])

        threads = [threading.Thread(target=send, args=(name,)) for name in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert disk.syncs <= 16 * 5 / 4

    def test_a_duplicate_of_what_is_just_being_written_waits_for_it(self, open_log: OpenLog, disk: Disk) -> None:
        log = open_log()
        disk.go.clear()
        first = log.submit([event("a")])
        assert disk.entered.wait(10)
        again = log.submit([event("a")])
        time.sleep(0.05)
        assert not again.done()
        disk.go.set()
        assert (first.result(10), again.result(10)) == ((1, 0), (0, 1))

    def test_when_the_disk_fails_all_in_the_batch_are_refused_and_so_is_a_duplicate_of_them(
        self, open_log: OpenLog, disk: Disk, tmp_path: Path
    ) -> None:
        log = open_log()
        log.append([event("kept")])
        disk.go.clear()
        disk.entered.clear()
        disk.fail = True
        lost = log.submit([event("a")])
        assert disk.entered.wait(10)
        again, conflict = log.submit([event("a")]), event("a", type="Dislike")
        with pytest.raises(Refused, match="with other content"):
            log.submit([conflict])
        disk.go.set()
        for future in (lost, again):
            with pytest.raises(Refused, match="cannot be stored: Input/output error") as refused:
                future.result(10)
            assert (refused.value.detail.status, refused.value.retry_after) == (503, 30)
        disk.fail = False
        assert log.append([event("a")]) == (1, 0), "it was not remembered as stored"
        assert [e.event_id for e in read_events(tmp_path)] == ["kept", "a"]
        assert len(list(tmp_path.glob("*.jsonl"))) == 2, "nothing more is written to a file whose fsync has failed"

    def test_a_defect_is_refused_and_does_not_stop_the_writer(
        self, open_log: OpenLog, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        log = open_log()
        with monkeypatch.context() as patch:
            patch.setattr(type(log.segments), "write", lambda *_: 1 / 0)
            with pytest.raises(Refused, match="a defect of the gateway"):
                log.append([event("a")])
        assert log.append([event("a")]) == (1, 0)

    def test_a_caller_who_leaves_takes_nothing_back(self, open_log: OpenLog, tmp_path: Path) -> None:
        future: Future[tuple[int, int]] = open_log().submit([event("a")])
        assert not future.cancel()
        assert future.result(10) == (1, 0)


class TestSegments:
    def test_an_open_segment_is_locked_and_a_closed_one_has_the_other_name(
        self, open_log: OpenLog, tmp_path: Path
    ) -> None:
        log = open_log()
        log.append([event("a")])
        (segment,) = tmp_path.glob("*.jsonl")
        assert is_open(segment.name)
        with segment.open("rb") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        log.close()
        (closed,) = tmp_path.glob("*.jsonl")
        assert not is_open(closed.name)
        with closed.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def test_a_segment_is_closed_at_its_age_without_another_line(self, open_log: OpenLog, tmp_path: Path) -> None:
        open_log(segment_seconds=0.2).append([event("a")])
        deadline = time.monotonic() + 10
        while any(is_open(path.name) for path in tmp_path.iterdir()):
            assert time.monotonic() < deadline, "it is still open"
            time.sleep(0.02)
        assert [e.event_id for e in read_events(tmp_path)] == ["a"]

    def test_a_log_that_was_never_written_leaves_no_segment(self, open_log: OpenLog, tmp_path: Path) -> None:
        open_log().close()
        assert [path.name for path in tmp_path.iterdir()] == [WRITERS_LOCK]

    def test_the_folder_is_locked_as_long_as_somebody_writes(self, open_log: OpenLog, tmp_path: Path) -> None:
        one, other = open_log(), open_log()
        one.close()
        with (tmp_path / WRITERS_LOCK).open("rb") as file:
            with pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            other.close()
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def test_after_its_end_nothing_is_taken(self, open_log: OpenLog) -> None:
        log = open_log()
        log.close()
        with pytest.raises(Refused, match="going down"):
            log.append([event("a")])
        assert not log.offer(exposure(1))


class TestLimit:
    def test_a_full_folder_is_503_until_segments_are_shipped(self, gateway: Gateway, tmp_path: Path) -> None:
        folder = tmp_path / "events"
        client = gateway(events_max_bytes=1_048_576, events_segment_bytes=200_000, max_body_bytes=2_000_000)
        ids = iter(range(1_000_000))

        def send() -> Any:
            events = [event(str(next(ids)), itemId="i" * 200) for _ in range(500)]
            return client.post("/v1/events", json={"events": [json.loads(e.to_json()) for e in events]})

        answers = [send() for _ in range(8)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 200, 200, 503, 503]
        assert int(answers[-1].headers["retry-after"]) > 0
        assert "at most 1048576 bytes" in answers[-1].json()["error"]
        assert "THINKREC_EVENTS_MAX_BYTES" in answers[-1].json()["remedy"]
        assert sum(path.stat().st_size for path in folder.iterdir()) <= 1_048_576
        for path in [path for path in folder.iterdir() if not is_open(path.name)][:3]:
            path.unlink()
        time.sleep(0.3)
        assert send().status_code == 200

    def test_exposures_leave_the_rest_of_the_folder_to_feedback(self, open_log: OpenLog) -> None:
        log = open_log(max_bytes=100_000)
        taken = sum(log.offer(exposure(number)) for number in range(1000))
        assert 0 < taken < 1000
        assert 80_000 < log.bytes_used <= 90_000
        assert log.append([event("a")]) == (1, 0)

    def test_a_disk_that_hangs_does_not_fill_the_memory(self, open_log: OpenLog, disk: Disk) -> None:
        log = open_log()
        disk.go.clear()
        log.submit([event("first")])
        assert disk.entered.wait(10)

        def send(count: int) -> None:
            for number in range(count):
                log.submit([event(f"{number}-{part}", itemId="i" * 256, generation="g" * 128) for part in range(1000)])

        with pytest.raises(Refused, match="does not keep up"):
            send(100)
        disk.go.set()


class TestMemory:
    def test_the_newest_half_of_the_limit_is_known_and_never_more_than_the_limit(self) -> None:
        known = KnownIds(100)
        for number in range(1000):
            known.update({number: -number})
            assert len(known) <= 100
        assert [known.get(number) for number in range(960, 1000)] == [-number for number in range(960, 1000)]
        assert known.get(5) is None

    def test_what_was_forgotten_is_stored_again(self, open_log: OpenLog, tmp_path: Path) -> None:
        log = open_log(remembered=20)
        for number in range(50):
            log.append([event(str(number))])
        assert log.append([event("49"), event("0")]) == (1, 1)
        assert [e.event_id for e in read_events(tmp_path)].count("0") == 2

    def test_a_start_remembers_the_newest_of_the_folder(self, open_log: OpenLog) -> None:
        log = open_log(segment_bytes=500)
        for number in range(50):
            log.append([event(str(number))])
        log.close()
        assert open_log(remembered=20).append([event("49"), event("45"), event("0")]) == (1, 2)


class TestExposures:
    def test_they_are_written_soon_and_nobody_waits(self, open_log: OpenLog, disk: Disk, tmp_path: Path) -> None:
        log = open_log()
        disk.go.clear()
        log.submit([event("first")])
        assert disk.entered.wait(10)
        assert log.offer(exposure(1)), "it is taken while the disk is busy"
        disk.go.set()
        wait_for(lambda: exposures(tmp_path), "it to be written", seconds=10)
        assert exposures(tmp_path) == [exposure(1)]

    def test_feedback_takes_them_along(self, open_log: OpenLog, tmp_path: Path) -> None:
        log = open_log()
        log.offer(exposure(1))
        log.append([event("a")])
        assert exposures(tmp_path) == [exposure(1)]
        assert [e.event_id for e in read_events(tmp_path)] == ["a"]

    def test_the_end_writes_what_is_queued(self, open_log: OpenLog, tmp_path: Path) -> None:
        log = open_log()
        for number in range(100):
            log.offer(exposure(number))
        log.close()
        assert len(exposures(tmp_path)) == 100

    def test_a_queue_that_is_full_drops_them(self, open_log: OpenLog, disk: Disk) -> None:
        log = open_log()
        disk.go.clear()
        log.submit([event("first")])
        assert disk.entered.wait(10)
        while log.offer(exposure(1)):
            pass
        disk.go.set()

    def test_offering_one_takes_far_less_than_a_millisecond(self, open_log: OpenLog) -> None:
        log = open_log()
        seconds = []
        for number in range(2000):
            begun = time.perf_counter()
            log.offer(exposure(number))
            seconds.append(time.perf_counter() - begun)
        assert sorted(seconds)[1000] < 0.0005


def test_a_line_that_is_no_event_is_skipped(open_log: OpenLog, tmp_path: Path) -> None:
    log = open_log()
    log.append([event("a")])
    log.close()
    (segment,) = tmp_path.glob("*.jsonl")
    segment.write_bytes(b'not json\n{"eventId": "x"}\n[]\n' + segment.read_bytes())
    assert [e.event_id for e in read_events(tmp_path)] == ["a"]
    assert open_log().append([event("a")]) == (0, 1)


def start_writer(folder: Path, name: str) -> subprocess.Popen[bytes]:
    paths = [str(ROOT / part) for part in ("tests", "crds", "inference")]
    return subprocess.Popen(
        [sys.executable, "-m", "support.event_writer", str(folder), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )


def killed_after(writer: subprocess.Popen[bytes], acknowledgements: int, seconds: float) -> list[str]:
    """Let it open the log and write, kill it a moment after so many acknowledgements; return what it was told."""
    assert writer.stdin is not None
    assert writer.stdout is not None
    with writer:
        writer.stdin.write(b"go\n")
        writer.stdin.flush()
        first = b"".join(writer.stdout.readline() for _ in range(acknowledgements))
        threading.Timer(seconds, writer.kill).start()
        whole = (first + writer.stdout.read()).decode().rpartition("\n")[0]
    return whole.split()


def test_a_kill_at_any_moment_loses_no_acknowledged_event(tmp_path: Path) -> None:
    """Fifteen processes in a row on one folder, each killed at a random moment while four threads append."""
    dice = random.Random(6)
    acknowledged: list[str] = []
    waiting = [start_writer(tmp_path, "0")]
    for number in range(KILLS):
        if number + 1 < KILLS:
            waiting.append(start_writer(tmp_path, str(number + 1)))  # imports while the other one writes
        acknowledged += killed_after(waiting.pop(0), dice.randint(1, 80), dice.uniform(0.0, 0.01))
    stored = [e.event_id for e in read_events(tmp_path)]
    assert len(acknowledged) > 20 * KILLS
    assert set(acknowledged) - set(stored) == set()
    assert len(stored) == len(set(stored))
    left_open = [path for path in tmp_path.iterdir() if is_open(path.name)]
    assert len(left_open) > KILLS / 2, "they were killed while they wrote, not between two segments"
