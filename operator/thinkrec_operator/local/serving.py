# SPDX-License-Identifier: Apache-2.0
"""The serving Deployment as one process: `python -m thinkrec_inference serve`, readiness asked over HTTP.

As in the cluster, what is not on this machine yet is fetched first, by processes that have the credentials; the server
has none.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import httpx

from thinkrec_crds.artifact import ExitCode
from thinkrec_crds.conditions import Reason
from thinkrec_operator.children import serving_settings
from thinkrec_operator.local import processes
from thinkrec_operator.local.environment import computing, without_secrets
from thinkrec_operator.local.materials import Fetch, Materials, NotServableHere, materials
from thinkrec_operator.local.progress import last_line
from thinkrec_operator.local.records import ProcessRecord, ServingRecord
from thinkrec_operator.local.state import State
from thinkrec_operator.observed import ServingObservation
from thinkrec_operator.plan import DeploymentChild
from thinkrec_operator.work import FINAL_EXIT_CODES

SERVE_COMMAND = (sys.executable, "-m", "thinkrec_inference", "serve")
FETCH_COMMAND = (sys.executable, "-m", "thinkrec_trainer", "fetch")
LOOPBACK = "127.0.0.1"
STOP_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class ServingOptions:
    """How this machine serves."""

    folder: Path
    """The manifest's folder, from which relative `file:` addresses count."""
    environment: Mapping[str, str]
    cpus: int
    port: int = 0
    """0 takes a free one."""
    command: Sequence[str] = SERVE_COMMAND
    fetch_command: Sequence[str] = FETCH_COMMAND
    restart_seconds: tuple[float, float] = (2.0, 60.0)
    """First and longest wait before a server that ended by itself is started again."""


class LocalServing:
    """Runs the newest wish as one process, and starts it again when it ends by itself."""

    def __init__(self, state: State, options: ServingOptions) -> None:
        """Serve nothing yet."""
        self._state = state
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._wish: DeploymentChild | None = None
        self._waiting: list[Fetch] = []
        self._fetching: Fetch | None = None
        self._here: set[Fetch] = set()
        self._record: ServingRecord | None = None
        self._failures = 0
        self._not_before: datetime | None = None
        self.failure = ""
        """Why the server ended last; empty while it works."""

    @property
    def url(self) -> str | None:
        """Return the gateway's address once it answers."""
        return self._record.url if self._record is not None and self._record.ready else None

    @property
    def failures(self) -> int:
        """Return how often the server ended by itself since it last was ready."""
        return self._failures

    def recover(self) -> None:
        """End a server that an earlier driver left behind."""
        old = self._state.serving()
        if old is not None:
            processes.end_leftover(old.process, STOP_SECONDS)
            self._state.write_serving(None)

    def observe(self) -> ServingObservation | None:
        """Return the server as a decision sees the Deployment."""
        record = self._record
        if record is None:
            return None
        return ServingObservation(
            name=record.revision,
            revision=record.revision,
            spec_hash=record.spec_hash,
            replicas=1,
            ready_replicas=int(record.ready),
            reason=Reason.CRASH_LOOP_BACK_OFF.value if self.failure else None,
            message=self.failure or self._doing(),
            url=record.url,
        )

    def apply(self, child: DeploymentChild | None, now: datetime) -> None:
        """Start, replace or leave the server so that it serves what is wished."""
        current = self._record
        if child is None or (
            current is not None and current.spec_hash == child.spec_hash and self._process is not None
        ):
            return
        waits = self._not_before is not None and now < self._not_before
        if waits and current is not None and current.spec_hash == child.spec_hash:
            return
        self.stop()
        self._start(child, now)

    def poll(self, now: datetime) -> bool:
        """Look at the server; return whether anything changed."""
        process, record = self._process, self._record
        if process is None or record is None:
            return self._not_before is not None and now >= self._not_before
        code = process.poll()
        if code is not None:
            self._ended(record, code, now)
            return True
        if self._fetching is not None:
            return False
        ready = is_ready(record.url)
        if ready == record.ready:
            return False
        if ready:
            self._failures, self._not_before, self.failure = 0, None, ""
        self._keep(record.model_copy(update={"ready": ready}))
        return True

    def _ended(self, record: ServingRecord, code: int, now: datetime) -> None:
        """Go on after a download, or wait before another try; raise NotServableHere where none can help."""
        self._process = None
        fetch, told = self._fetching, last_line(self.log)
        if fetch is not None and code == ExitCode.DONE:
            fetch.keep()
            self._here.add(fetch)
            self._next(record)
            return
        if fetch is not None and code in FINAL_EXIT_CODES:
            raise NotServableHere(f"the {fetch.what} at {fetch.uri} cannot be fetched: {told} (log: {self.log})")
        self._failures += 1
        first, longest = self._options.restart_seconds
        self._not_before = now + timedelta(seconds=min(longest, first * 2.0 ** (self._failures - 1)))
        who = f"fetching the {fetch.what} from {fetch.uri}" if fetch is not None else "the server"
        self.failure = f"{who} ended with exit code {code}: {told}"
        self._keep(record.model_copy(update={"ready": False}))

    def stop(self) -> None:
        """End the server, gently first."""
        process = self._process
        if process is not None:
            processes.send(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                processes.send(process.pid, signal.SIGKILL)
                process.wait()
        self._process = self._fetching = None
        if not self.failure:  # else the last status still tells why it failed
            self._record = None
        self._state.write_serving(None)

    @property
    def log(self) -> Path:
        """Return the server's log."""
        return self._state.logs / "serving.log"

    def _start(self, child: DeploymentChild, now: datetime) -> None:
        needed = self._materials(child)
        self._wish = child
        self._waiting = [fetch for fetch in needed.fetches if fetch not in self._here and not fetch.done]
        self._next(
            ServingRecord(
                revision=child.revision,
                spec_hash=child.spec_hash,
                url=f"http://{LOOPBACK}:{self._options.port or _free_port()}",
                process=ProcessRecord(pid=0, created=0.0),
                started=now,
            )
        )

    def _next(self, record: ServingRecord) -> None:
        """Start the next download, or the server once everything is here."""
        assert self._wish is not None, "only what was wished is started"
        self._fetching = self._waiting.pop(0) if self._waiting else None
        if self._fetching is not None:
            command = (*self._options.fetch_command, *self._fetching.command)
            process = self._run(command, computing(self._options.environment, self._options.cpus))
        else:
            process = self._run(self._serve_command(self._wish, record.url), self._serve_environment(self._wish))
        self._process = process
        self._keep(record.model_copy(update={"process": processes.record_of(process.pid)}))

    def _run(self, command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        return processes.start(
            command, folder=self._options.folder, environment=environment, output=self.log, errors=self.log
        )

    def _serve_command(self, child: DeploymentChild, url: str) -> list[str]:
        needed = self._materials(child)
        return [
            *self._options.command,
            *("--bundle", str(needed.bundle)),
            *("--base-model", str(needed.base_model)),
            *("--gateway-port", url.rpartition(":")[2]),
            *("--work-dir", str(self._state.root / "serving")),
        ]

    def _serve_environment(self, child: DeploymentChild) -> dict[str, str]:
        return {
            **computing(without_secrets(self._options.environment), self._options.cpus),
            **dict(serving_settings(child.serving)),
            "THINKREC_THREADS": str(self._options.cpus),
        }

    def _materials(self, child: DeploymentChild) -> Materials:
        return materials(child, folder=self._options.folder, fetched=self._state.root / "fetched")

    def _doing(self) -> str:
        return f"fetches the {self._fetching.what} from {self._fetching.uri}" if self._fetching is not None else ""

    def _keep(self, record: ServingRecord) -> None:
        self._record = record
        self._state.write_serving(record)


def is_ready(url: str) -> bool:
    """Return whether the gateway says that the whole path answers."""
    try:
        return httpx.get(f"{url}/readyz", timeout=2.0, trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
