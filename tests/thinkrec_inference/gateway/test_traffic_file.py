# SPDX-License-Identifier: Apache-2.0
"""The traffic file: followed when it changes, survived when it is broken."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from thinkrec_inference.gateway.traffic_file import TrafficFile


def table(new: int) -> dict[str, Any]:
    variants = [
        {"name": "control", "revision": "1", "weight": 100 - new, "ready": True},
        {"name": "new", "revision": "2", "weight": new, "ready": True},
    ]
    experiment = {"uid": "u1", "name": "fusion", "mode": "ABTest", "control": "control", "variants": variants}
    return {"experiments": [experiment]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "traffic.json"


def put(path: Path, text: str) -> None:
    """Write a new file in the old one's place: two writes to one may carry the same time on an older kernel."""
    scratch = path.with_suffix(".new")
    scratch.write_text(text)
    scratch.replace(path)


def weights(traffic: TrafficFile) -> list[str]:
    traffic.refresh()
    return [assigner.weights for assigner in traffic.assigners]


def test_without_a_path_or_a_file_there_is_no_experiment(path: Path) -> None:
    assert weights(TrafficFile(None)) == []
    assert weights(TrafficFile(path)) == []


def test_changes_are_followed_until_the_file_is_gone(path: Path) -> None:
    traffic = TrafficFile(path)
    put(path, json.dumps(table(10)))
    assert weights(traffic) == ["control=90,new=10"]
    put(path, json.dumps(table(5)))
    assert weights(traffic) == ["control=95,new=5"]
    path.unlink()
    assert weights(traffic) == []


def test_a_mounted_configmap_changes_by_its_link(tmp_path: Path, path: Path) -> None:
    for name, new in (("one", 10), ("two", 20)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "traffic.json").write_text(json.dumps(table(new)))
        os.utime(tmp_path / name / "traffic.json", (1, 1))
    (tmp_path / "data").symlink_to("one")
    path.symlink_to("data/traffic.json")
    traffic = TrafficFile(path)
    assert weights(traffic) == ["control=90,new=10"]
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").rename(tmp_path / "data")
    assert weights(traffic) == ["control=80,new=20"]


@pytest.mark.parametrize("broken", ["", "{", json.dumps(table(10)).replace('"weight": 10', '"weight": 11')])
def test_a_broken_file_keeps_the_last_good_one_and_is_told_once(
    path: Path, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    traffic = TrafficFile(path)
    put(path, json.dumps(table(10)))
    traffic.refresh()
    put(path, broken)
    assert [weights(traffic) for _ in range(3)] == [["control=90,new=10"]] * 3
    assert not traffic.valid
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert str(path) in errors[0]
    put(path, json.dumps(table(20)))
    assert weights(traffic) == ["control=80,new=20"]
    assert traffic.valid


def test_a_file_that_is_broken_from_the_start_means_no_experiment(path: Path) -> None:
    put(path, "{")
    traffic = TrafficFile(path)
    assert weights(traffic) == []
    assert not traffic.valid
