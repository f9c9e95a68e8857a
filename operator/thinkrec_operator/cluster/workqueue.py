# SPDX-License-Identifier: Apache-2.0
"""The work queue: each model at most once in it and at most once at work, with back-off and later visits.

The same rules as controller-runtime's queue: what is added while it is worked on is worked on again afterwards; a
failure comes back after an exponential wait; an earlier visit takes the place of a later one; what merely is looked at
because the process started waits behind what happened.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable

Key = tuple[str, str]
"""Namespace and name of a model."""

BASE_SECONDS = 0.2
MAX_SECONDS = 300.0


class WorkQueue:
    """Keys that wait for a worker, in the order in which they became due."""

    def __init__(self, *, jitter: Callable[[], float] = random.random) -> None:
        """Use `jitter`, a number from 0 to 1, to spread what failed together."""
        self._ready: asyncio.PriorityQueue[tuple[bool, int, Key]] = asyncio.PriorityQueue()
        self._order = itertools.count()
        self._waiting: dict[Key, bool] = {}
        """Keys that are due, and whether they wait behind the others."""
        self._busy: set[Key] = set()
        self._again: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._not_before: dict[Key, float] = {}
        self._jitter = jitter

    def __len__(self) -> int:
        """Return how many keys are due."""
        return len(self._waiting) + len(self._again)

    @property
    def idle(self) -> bool:
        """Return whether nothing is due and nothing is worked on."""
        return not self._waiting and not self._busy and not self._again

    @property
    def busy(self) -> bool:
        """Return whether any key is worked on."""
        return bool(self._busy)

    def add(self, key: Key, *, last: bool = False) -> None:
        """Make the key due now, or when the apiserver wants to be asked again, if that is later.

        With `last` it waits behind every key that was added without.
        """
        wait = self._not_before.get(key, 0.0) - asyncio.get_running_loop().time()
        if wait > 0:
            self.add_after(key, wait)
            return
        self._cancel_timer(key)
        if key in self._busy:
            self._again.add(key)
        elif key not in self._waiting or (self._waiting[key] and not last):
            self._waiting[key] = last
            self._ready.put_nowait((last, next(self._order), key))

    def add_after(self, key: Key, seconds: float) -> None:
        """Make the key due later, or when it already was to be, if that is sooner."""
        if seconds <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        due, timer = loop.time() + seconds, self._timers.get(key)
        if key in self._waiting or key in self._again or (timer is not None and timer.when() <= due):
            return
        self._cancel_timer(key)
        self._timers[key] = loop.call_at(due, self._due, key)

    def retry(self, key: Key, *, after: float | None = None) -> float:
        """Make a key that failed due again later; return in how many seconds. `after` is the apiserver's own wish."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        wait = min(MAX_SECONDS, BASE_SECONDS * 2.0 ** min(failures - 1, 20)) * (0.5 + 0.5 * self._jitter())
        seconds = wait if after is None else max(after, BASE_SECONDS)
        if after is not None:
            self._not_before[key] = asyncio.get_running_loop().time() + seconds
        self.add_after(key, seconds)
        return seconds

    def forget(self, key: Key) -> None:
        """Note that the key went well: its next failure waits briefly again."""
        self._failures.pop(key, None)
        self._not_before.pop(key, None)

    def drop(self, key: Key) -> None:
        """Forget a key that is gone for good."""
        self.forget(key)
        self._cancel_timer(key)

    async def get(self) -> Key:
        """Wait for a due key and mark it as worked on; `done` must follow."""
        while True:
            last, _, key = await self._ready.get()
            if self._waiting.get(key) is last:  # else it was moved to the front meanwhile
                del self._waiting[key]
                self._busy.add(key)
                return key

    def done(self, key: Key) -> None:
        """Note that work on the key ended; if it was added meanwhile it is due again."""
        self._busy.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def _due(self, key: Key) -> None:
        self._timers.pop(key, None)
        self._not_before.pop(key, None)
        self.add(key)

    def _cancel_timer(self, key: Key) -> None:
        if (timer := self._timers.pop(key, None)) is not None:
            timer.cancel()
