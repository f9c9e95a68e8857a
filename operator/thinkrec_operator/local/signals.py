# SPDX-License-Identifier: Apache-2.0
"""SIGINT and SIGTERM, counted instead of obeyed: the first lets stages write their checkpoints, the next ends them."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from datetime import datetime
from types import FrameType, TracebackType
from typing import Any

from thinkrec_operator.local.jobs import JobRunner

POLL_SECONDS = 0.05


class Signals:
    """A context manager that counts while it is open."""

    def __init__(self) -> None:
        """Count from zero."""
        self.count = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        """Begin to count."""
        self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Let signals do again what they did before."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.count += 1


def wind_down(jobs: JobRunner, signals: Signals, clock: Callable[[], datetime], note: Callable[[str], None]) -> None:
    """Let every stage write its checkpoint and end; a second signal ends them at once."""
    seen = signals.count
    if jobs.busy:
        note("stopping: stages write their checkpoints (interrupt again to end them at once)")
        jobs.stop(clock())
    while jobs.busy:
        if signals.count > max(seen, 1):
            jobs.kill()
        time.sleep(POLL_SECONDS)
        jobs.poll(clock())
