# SPDX-License-Identifier: Apache-2.0
"""Wait for something that another process does."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(probe: Callable[[], T], what: str, *, seconds: float = 30.0, every: float = 0.05) -> T:
    """Return the first true value of `probe()`; fail, naming what was waited for, when the time is over."""
    deadline = time.monotonic() + seconds
    while not (value := probe()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}; last answer: {value!r}"
        time.sleep(every)
    return value


def allowed_seconds(idle: float) -> float:
    """Return how long something may take that takes `idle` seconds on an idle machine: much longer on a busy one.

    At least three times as long, for the load of the last minute says little about the next second.
    """
    return idle * max(3.0, 2 * os.getloadavg()[0] / (os.cpu_count() or 1))
