# SPDX-License-Identifier: Apache-2.0
"""The operator process as it is measured: CPU and memory from /proc, work and writes from its own metrics."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from support.operator_process import OperatorProcess

_TICKS = os.sysconf("SC_CLK_TCK")
_NAMES = ("thinkrec_queue_depth", "thinkrec_reconcile_total", "thinkrec_api_requests_total")
_READS = frozenset({"list", "get"})
_QUIET_SECONDS = 1.0


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory(pid: int) -> tuple[float, float]:
    """Return the resident memory of a process in MB, now and at its highest."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return tuple(int(lines[name].split()[0]) / 1000 * 1.024 for name in ("VmRSS", "VmHWM"))  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class Work:
    """What an operator says it has done."""

    visits: float
    writes: float
    queue: float
    failed: float
    """Visits that ended with an error."""
    lists: float
    """Pages of models that it listed itself."""


class Measured:
    """One running operator."""

    def __init__(self, process: OperatorProcess) -> None:
        """Measure this process, which was started just now."""
        self.process = process
        self.began = time.perf_counter()
        url = f"http://127.0.0.1:{process.metrics_port}"
        self._client = httpx.Client(base_url=url, trust_env=False, timeout=60, verify=False)  # there is no TLS

    @property
    def pid(self) -> int:
        """Return its process id."""
        return self.process.pid

    def work(self) -> Work | None:
        """Return its counters, or None while it does not answer yet."""
        query = [("name[]", name) for name in _NAMES]
        try:
            text = self._client.get("/metrics", params=query).text
        except httpx.TransportError:
            assert self.process.poll() is None, f"the operator ended:\n{self.process.log.read_text()[-3000:]}"
            return None
        samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
        visits = [s for s in samples if s.name == "thinkrec_reconcile_total"]
        calls = [s for s in samples if s.name == "thinkrec_api_requests_total"]
        return Work(
            visits=sum(s.value for s in visits),
            writes=sum(s.value for s in calls if s.labels["verb"] not in _READS),
            queue=sum(s.value for s in samples if s.name == "thinkrec_queue_depth"),
            failed=sum(s.value for s in visits if s.labels["result"] not in ("done", "gone", "conflict")),
            lists=sum(s.value for s in calls if s.labels["verb"] == "list" and s.labels["kind"] == "ThinkRecModel"),
        )

    def until_ready(self, *, seconds: float = 900.0) -> float:
        """Wait until everything is listed and work has begun; return the seconds since its start."""
        url = f"http://127.0.0.1:{self.process.health_port}/readyz"
        deadline = time.perf_counter() + seconds
        while time.perf_counter() < deadline:
            assert self.process.poll() is None, f"the operator ended:\n{self.process.log.read_text()[-3000:]}"
            with suppress(httpx.TransportError):
                if self._client.get(url).is_success:
                    return time.perf_counter() - self.began
            time.sleep(0.05)
        raise RuntimeError(f"the operator is not ready after {seconds:.0f} s; see {self.process.log}")

    def until_idle(self, visits: int, *, seconds: float = 900.0) -> tuple[float, Work]:
        """Wait until at least so many visits are made and nothing is due; return the seconds since its start, and all.

        The time is that of the last change seen before the quiet, to the grain of a quarter of a second.
        """
        deadline, seen, changed = time.perf_counter() + seconds, None, time.perf_counter()
        while time.perf_counter() < deadline:
            work, now = self.work(), time.perf_counter()
            if work is None or seen is None or (work.visits, work.writes, work.queue) != (seen.visits, seen.writes, 0):
                seen, changed = work, now
            elif work.visits >= visits and now - changed > _QUIET_SECONDS:
                return changed - self.began, work
            time.sleep(0.25)
        raise RuntimeError(f"the operator is not idle after {seconds:.0f} s: {seen}; see {self.process.log}")


@contextmanager
def running(kubeconfig: Path, log: Path, **environment: str) -> Iterator[Measured]:
    """Run an operator for the whole cluster while inside; keywords are its variables, in lower case."""
    more = {"log_level": "warning", "progress_period_seconds": "30", **environment}
    process = OperatorProcess(kubeconfig, log, {f"THINKREC_{name.upper()}": text for name, text in more.items()})
    process.start()
    measured = Measured(process)
    try:
        yield measured
    finally:
        process.kill()
