# SPDX-License-Identifier: Apache-2.0
"""The operator as a process of its own, as a cluster runs it: `python -m thinkrec_operator`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from support.seaweed import free_ports
from support.waiting import wait_for

READY_SECONDS = 30.0
RUN = ("-m", "thinkrec_operator")


class OperatorProcess:
    """One operator; `log` is where it writes."""

    def __init__(
        self, kubeconfig: Path, log: Path, environment: Mapping[str, str], *, run: Sequence[str] = RUN
    ) -> None:
        self.log = log
        self._run = run
        self.health_port, self.metrics_port = free_ports(2)
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("KUBE", "THINKREC_"))},
            "KUBECONFIG": str(kubeconfig),
            "THINKREC_HEALTH_PORT": str(self.health_port),
            "THINKREC_METRICS_PORT": str(self.metrics_port),
            "THINKREC_PROGRESS_PERIOD_SECONDS": "1",
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Return the process id of the running process."""
        assert self._process is not None, "start it first"
        return self._process.pid

    def start(self) -> None:
        """Start the process; returns at once."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *self._run],
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait_ready(self) -> None:
        """Wait until its first LIST is done."""
        wait_for(self._listening, f"the operator to be ready; see {self.log}", seconds=READY_SECONDS)

    def kill(self) -> None:
        """SIGKILL it, as a node that fails does."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM it, as Kubernetes does; return its exit code."""
        return self._end(signal.SIGTERM)

    def poll(self) -> int | None:
        """Return its exit code, or None while it runs."""
        assert self._process is not None, "start it first"
        return self._process.poll()

    def _end(self, number: signal.Signals) -> int:
        assert self._process is not None, "start it first"
        if self._process.poll() is None:
            self._process.send_signal(number)
        return self._process.wait(timeout=40)

    def _listening(self) -> bool:
        assert self.poll() is None, f"the operator ended with {self.poll()}:\n{self.log.read_text()[-3000:]}"
        try:
            return httpx.get(f"http://127.0.0.1:{self.health_port}/readyz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def operator(kubeconfig: Path, log: Path, **environment: str) -> Iterator[OperatorProcess]:
    """Run an operator while inside; keywords are its environment variables without THINKREC_, in lower case."""
    variables = {f"THINKREC_{name.upper()}": value for name, value in environment.items()}
    process = OperatorProcess(kubeconfig, log, variables)
    process.start()
    try:
        process.wait_ready()
        yield process
    finally:
        process.kill()
