# SPDX-License-Identifier: Apache-2.0
"""The same operator process, forked from one that has imported everything: it starts in a tenth of the time.

For tests that start it hundreds of times. It is a process of its own, so SIGKILL ends it as it would end any other.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path

SKEW = "TEST_CLOCK_SKEW_SECONDS"
"""Environment variable: how far the operator's clock is ahead."""

_LISTED = "listed "
"""Begins the line that each process writes to its log before its first decision."""
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["thinkrec_operator.cluster.main", "support.forked_operator"])


class ForkedOperator:
    """One operator, started again and again."""

    def __init__(self, kubeconfig: Path, log: Path, environment: Mapping[str, str]) -> None:
        self.log = log
        quiet = {"THINKREC_HEALTH_PORT": "0", "THINKREC_METRICS_PORT": "0", "THINKREC_PROGRESS_PERIOD_SECONDS": "1"}
        self._environment = {**quiet, "KUBECONFIG": str(kubeconfig), **environment}
        self._process: BaseProcess | None = None
        self.starts = 0

    def start(self) -> None:
        """Start it; returns at once."""
        self.starts += 1
        self._process = _CONTEXT.Process(target=_main, args=(dict(self._environment), str(self.log)), daemon=True)
        self._process.start()

    @property
    def alive(self) -> bool:
        """Return whether it runs."""
        return self._process is not None and self._process.is_alive()

    @property
    def has_listed(self) -> bool:
        """Return whether the newest process has seen what there is; one that decides nothing writes nothing."""
        return self.starts > 0 and self.log.exists() and self.log.read_text().count(_LISTED) >= self.starts

    def kill(self) -> None:
        """SIGKILL it, unless it has ended; returns at once."""
        if self._process is not None and self._process.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)

    def wait(self) -> None:
        """Wait until it has ended."""
        assert self._process is not None, "start it first"
        self._process.join(30)
        assert not self._process.is_alive(), "the operator does not end"


@contextmanager
def kept_running(operator: ForkedOperator) -> Iterator[None]:
    """Start the operator, and again whenever it has ended, as a kubelet does."""
    stop = threading.Event()

    def keep() -> None:
        while not stop.wait(0.02):
            if not operator.alive:
                operator.wait()
                operator.start()

    operator.start()
    keeper = threading.Thread(target=keep, daemon=True)
    keeper.start()
    try:
        yield
    finally:
        stop.set()
        keeper.join(30)
        operator.kill()
        operator.wait()


def _main(environment: Mapping[str, str], log: str) -> None:
    os.environ.update(environment)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    if SKEW in environment:
        sys.exit(asyncio.run(_skewed(float(environment[SKEW]))))
    from thinkrec_operator.cluster.main import main

    sys.exit(main([]))


async def _skewed(seconds: float) -> None:
    """Run the operator on a machine whose clock is wrong."""
    from thinkrec_operator.cluster.config import from_environment
    from thinkrec_operator.cluster.runtime import Operator

    skew = timedelta(seconds=seconds)
    await Operator(from_environment(os.environ), clock=lambda: datetime.now(UTC) + skew).run()
