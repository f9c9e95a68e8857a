# SPDX-License-Identifier: Apache-2.0
"""A local driver between two decisions: it rests, and counts SIGINT and SIGTERM instead of obeying them.

The first signal lets stages write their checkpoints, the next one ends them.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from datetime import datetime
from types import FrameType, TracebackType
from typing import Any

from thinkrec_operator.local.jobs import JobRunner

POLL_SECONDS = 0.05
PROGRESS_SECONDS = 1.0
"""How often the live view and status.yaml follow the stages' progress."""
Poll = Callable[[datetime], bool]
"""Looks at something; says whether it changed."""


def nothing_else(now: datetime) -> bool:
    """Return that there is nothing to look at but Jobs."""
    return False


def pause(requeue_after: float | None) -> float:
    """Return the seconds until the next decision: progress is shown meanwhile."""
    return PROGRESS_SECONDS if requeue_after is None else min(PROGRESS_SECONDS, requeue_after)


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


def rest(
    jobs: JobRunner, signals: Signals, clock: Callable[[], datetime], *, seconds: float, more: Poll = nothing_else
) -> None:
    """Return after so many seconds, or when a process ended, a Job may start, `more` says so, or a signal came."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and not signals.count:
        time.sleep(POLL_SECONDS)
        now = clock()
        changed = jobs.poll(now)
        changed = more(now) or changed
        if jobs.start_waiting(now) or changed:
            return
