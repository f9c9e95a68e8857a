# SPDX-License-Identifier: Apache-2.0
"""POST /v1/events: durable before acknowledged, idempotent, whole lines only."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from thinkrec_inference.gateway.events import EventLog, read_events
from thinkrec_inference.gateway.schemas import Event
from thinkrec_inference.refusal import Refused

OpenLog = Callable[..., EventLog]
Gateway = Callable[..., TestClient]


@pytest.fixture
def open_log(tmp_path: Path) -> Iterator[Callable[..., EventLog]]:
    """Open the event log of this test's folder, again and again; each one is closed at the end."""
    logs: list[EventLog] = []

    def start(**options: int) -> EventLog:
        logs.append(EventLog(tmp_path, **options))
        return logs[-1]

    yield start
    for log in logs:
        log.close()


def event(event_id: str, **changes: Any) -> Event:
    return Event.model_validate({"eventId": event_id, "userId": "ann", "itemId": "i1", "type": "Like", **changes})


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]


def test_an_acknowledged_event_is_in_the_segment_with_its_time(gateway: Gateway, tmp_path: Path) -> None:
    body = {"eventId": "e1", "userId": "ann", "itemId": "i1", "type": "Rating", "value": 4.5}
    answer = gateway().post("/v1/events", json={"events": [body]})
    assert answer.json() == {"accepted": 1, "duplicates": 0}
    (stored,) = lines(tmp_path / "events")
    assert stored.pop("receivedAt").endswith("+00:00")
    assert stored == body


def test_the_acknowledgement_waits_for_fsync(
    open_log: OpenLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_log()
    synced: list[int] = []
    real = os.fsync

    def watch(descriptor: int) -> None:
        real(descriptor)
        synced.append(len(lines(tmp_path)))

    monkeypatch.setattr(os, "fsync", watch)
    log.append([event("a"), event("b")])
    assert synced[-1] == 2, "the last fsync of an append came after both lines were written"


def test_sending_again_changes_nothing_even_after_a_restart(open_log: OpenLog, tmp_path: Path) -> None:
    log = open_log()
    assert log.append([event("a"), event("b"), event("a")]) == (2, 1)
    assert log.append([event("b"), event("c")]) == (1, 1)
    log.close()
    assert open_log().append([event("a"), event("c"), event("d")]) == (1, 2)
    assert [line["eventId"] for line in lines(tmp_path)] == ["a", "b", "c", "d"]


def test_the_same_id_with_other_content_is_a_conflict_and_nothing_of_the_request_is_stored(
    gateway: Gateway, tmp_path: Path
) -> None:
    client = gateway()
    first = {"eventId": "e1", "userId": "ann", "itemId": "i1", "type": "Like"}
    client.post("/v1/events", json={"events": [first]})
    answer = client.post("/v1/events", json={"events": [{**first, "eventId": "e2"}, {**first, "type": "Dislike"}]})
    assert answer.status_code == 409
    assert "'e1'" in answer.json()["error"]
    assert [line["eventId"] for line in lines(tmp_path / "events")] == ["e1"]


def test_a_line_cut_by_a_crash_is_skipped_and_can_be_sent_again(open_log: OpenLog, tmp_path: Path) -> None:
    log = open_log()
    log.append([event("a"), event("b")])
    log.close()
    (segment,) = tmp_path.glob("*.jsonl")
    segment.write_bytes(segment.read_bytes()[:-10])
    again = open_log()
    assert again.append([event("a"), event("b")]) == (1, 1)
    assert [e.event_id for e in read_events(tmp_path)] == ["a", "b"]


def test_segments_are_closed_at_their_size(open_log: OpenLog, tmp_path: Path) -> None:
    log = open_log(segment_bytes=300)
    for number in range(10):
        log.append([event(str(number))])
    assert len(list(tmp_path.glob("*.jsonl"))) > 2
    assert [e.event_id for e in read_events(tmp_path)] == [str(number) for number in range(10)]


def test_a_full_disk_is_503_and_leaves_no_half_line(open_log: OpenLog, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    log = open_log()
    log.append([event("a")])
    size = sum(path.stat().st_size for path in tmp_path.glob("*.jsonl"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, before[1]))  # the kernel now stops the write after 20 bytes
    try:
        with pytest.raises(Refused, match="cannot be stored") as refused:
            log.append([event("b")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)
    assert (refused.value.detail.status, refused.value.retry_after) == (503, 30)
    assert log.append([event("b")]) == (1, 0), "it was not remembered as stored"
    assert [line["eventId"] for line in lines(tmp_path)] == ["a", "b"]
