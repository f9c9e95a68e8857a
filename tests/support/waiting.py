# SPDX-License-Identifier: Apache-2.0
"""Wait for something that another process does."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

import psutil

T = TypeVar("T")


def wait_for(probe: Callable[[], T], what: str, *, seconds: float = 30.0, every: float = 0.05) -> T:
    """Return the first true value of `probe()`; fail, naming what was waited for, when the time is over."""
    deadline = time.monotonic() + seconds
    while not (value := probe()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}; last answer: {value!r}"
        time.sleep(every)
    return value


def has_ended(pid: int) -> bool:
    """Return whether a process is gone, or a zombie; it may go while it is looked at."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def allowed_seconds(idle: float) -> float:
    """Return how long something may take that takes `idle` seconds on an idle machine: more on one that is busy."""
    return idle * max(1.0, 2 * os.getloadavg()[0] / (os.cpu_count() or 1))
