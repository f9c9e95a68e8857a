# SPDX-License-Identifier: Apache-2.0
"""A gateway's real event log, and a shipper between its folder and a store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.event_writer import exposure, feedback
from thinkrec_inference.gateway.events import EventLog
from thinkrec_trainer.events.ship import Shipper
from thinkrec_trainer.store import Blobs
from thinkrec_trainer.store.file_blobs import FileBlobs

MODEL = "movies"
FillFolder = Callable[..., list[str]]
MakeShipper = Callable[..., Shipper]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "events"


@pytest.fixture
def fill(folder: Path) -> FillFolder:
    """Log `count` events and a third as many exposures, in segments of a hundred or so; return the event ids."""

    def run(count: int = 300, name: str = "e", segment_bytes: int = 20_000) -> list[str]:
        log = EventLog(folder, segment_bytes=segment_bytes)
        ids = [f"{name}{number}" for number in range(count)]
        for number, event_id in enumerate(ids):
            if number % 3 == 0:
                log.offer(exposure(number).model_copy(update={"exposure_id": f"x-{event_id}"}))
            log.append([feedback(event_id, number)])
        log.close()
        return ids

    return run


@pytest.fixture
def lines() -> list[str]:
    """The progress lines that the shipper wrote."""
    return []


@pytest.fixture
def shipper(folder: Path, tmp_path: Path, lines: list[str]) -> MakeShipper:
    def make(blobs: Blobs | None = None) -> Shipper:
        return Shipper(folder, blobs or FileBlobs(tmp_path / "store"), MODEL, lines.append)

    return make
