# SPDX-License-Identifier: Apache-2.0
"""A segment becomes typed tables; lines that are no events are kept apart."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from scipy.stats import chisquare

from support.event_writer import exposure
from thinkrec_crds.event_log import Mirrored
from thinkrec_trainer.errors import BadInput
from thinkrec_trainer.events import segment
from thinkrec_trainer.events.layout import EXPOSURE, FEEDBACK, MIRROR, PARTS, require_model, user_part
from thinkrec_trainer.events.segment import read_segment, segment_id

NAME = "events-20261128T130000.000000-7-0a1b2c3d"


def line(event_id: str, **changes: Any) -> bytes:
    body = {"eventId": event_id, "userId": "ann", "itemId": "i1", "type": "Like", **changes}
    return json.dumps({**body, "receivedAt": changes.get("receivedAt", "2026-11-28T13:05:00.000001+00:00")}).encode()


def written(tmp_path: Path, *lines: bytes, end: bytes = b"\n") -> Path:
    path = tmp_path / f"{NAME}.jsonl"
    path.write_bytes(b"\n".join(lines) + end)
    return path


def test_columns_are_typed_and_tables_go_by_hour_and_part(tmp_path: Path) -> None:
    later = line("c", receivedAt="2026-11-28T15:30:00+01:00", userId="bob")
    rated = line("b", type="Rating", value=4.5, generation="sha256:1", occurredAt="2026-11-28T12:00:00+02:00")
    tables = read_segment(written(tmp_path, line("a"), rated, later, exposure(1).to_json().encode()))
    found = {(hour, part): table for hour, part, table in tables.parts("feedback")}
    assert set(found) == {("2026-11-28T13", user_part("ann")), ("2026-11-28T14", user_part("bob"))}
    ann = found["2026-11-28T13", user_part("ann")]
    assert ann.schema == FEEDBACK
    assert ann.row(1, named=True) == {
        "event_id": "b",
        "user_id": "ann",
        "item_id": "i1",
        "type": "Rating",
        "value": 4.5,
        "occurred_at": datetime(2026, 11, 28, 10, tzinfo=UTC),
        "generation": "sha256:1",
        "received_at": datetime(2026, 11, 28, 13, 5, 0, 1, tzinfo=UTC),
    }
    ((hour, part, seen),) = tables.parts("exposure")
    assert (hour, part, seen.schema) == ("2026-11-28T13", user_part("user-1"), EXPOSURE)
    assert seen["exposure_id"].to_list() == ["x1"]


def test_comparisons_of_mirrored_requests_have_a_table_of_their_own(tmp_path: Path) -> None:
    body = {"mirrorId": "m1", "experiment": "u1", "variant": "new", "revision": "2", "userId": "ann", "branch": "Fused"}
    moment = {"at": "2026-11-28T13:00:00Z", "latencyMilliseconds": 3.5, "items": 10, "overlap": 0.9}
    record = Mirrored.model_validate({**body, **moment})
    tables = read_segment(written(tmp_path, line("a"), record.to_json().encode()))
    ((hour, part, table),) = tables.parts("mirror")
    assert (hour, part, table.schema) == ("2026-11-28T13", user_part("ann"), MIRROR)
    assert table.select("mirror_id", "items", "overlap", "rank_correlation").rows() == [("m1", 10, 0.9, None)]
    assert (tables.rows("feedback"), tables.rows("exposure"), tables.unreadable) == (1, 0, [])


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"not json",
        b"[]",
        b"\xff\xfe",
        b'{"eventId": "x"}',
        line("x", receivedAt="0001-01-01T00:00:00+14:00"),
        line("x", receivedAt="yesterday"),
        line("x", occurredAt="0001-01-01T00:00:00+14:00"),
        exposure(1).to_json().replace('"bucket":7', '"bucket":70000').encode(),
        exposure(1).to_json().replace('"record":"Exposure"', '"record":"Later"').encode(),
    ],
)
def test_a_line_that_is_no_event_is_kept_as_it_is_and_the_others_are_read(tmp_path: Path, bad: bytes) -> None:
    tables = read_segment(written(tmp_path, line("a"), bad, line("b")))
    assert tables.unreadable == [bad + b"\n"]
    assert tables.rows("feedback") == 2


def test_what_stands_behind_the_last_whole_line_was_never_acknowledged(tmp_path: Path) -> None:
    tables = read_segment(written(tmp_path, line("a"), line("b")[:20], end=b""))
    assert (tables.rows("feedback"), tables.unreadable, tables.cut) == (1, [], 20)


def test_a_time_without_a_zone_is_utc(tmp_path: Path) -> None:
    ((_, _, table),) = read_segment(written(tmp_path, line("a", occurredAt="2026-11-28T12:00:00"))).parts("feedback")
    assert table["occurred_at"].to_list() == [datetime(2026, 11, 28, 12, tzinfo=UTC)]


def test_blocks_do_not_change_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, *(line(str(number), userId=f"u{number % 7}") for number in range(100)))
    whole = list(read_segment(path).parts("feedback"))
    monkeypatch.setattr(segment, "BLOCK_ROWS", 9)
    in_blocks = list(read_segment(path).parts("feedback"))
    assert [place[:2] for place in in_blocks] == [place[:2] for place in whole]
    assert pl.concat([table for *_, table in in_blocks]).equals(pl.concat([table for *_, table in whole]))


def test_the_id_of_a_segment_covers_its_content(tmp_path: Path) -> None:
    first = segment_id(written(tmp_path, line("a")))
    assert first.startswith(f"{NAME}-")
    assert segment_id(written(tmp_path, line("a"))) == first
    assert segment_id(written(tmp_path, line("b"))) != first


def test_parts_are_pinned_and_users_spread_over_them() -> None:
    assert [user_part(user) for user in ("1", "42", "ann", "zoë")] == GOLDEN
    counts = [0] * PARTS
    for number in range(16_000):
        counts[user_part(str(number))] += 1
    assert chisquare(counts).pvalue > 0.001


@pytest.mark.parametrize("name", ["", "../secrets", "a/b", "Movies", "-a"])
def test_a_name_that_is_none_of_a_model_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match="no name of a model"):
        require_model(name)


GOLDEN = [14, 3, 9, 4]
