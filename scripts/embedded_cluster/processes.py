# SPDX-License-Identifier: Apache-2.0
"""Start, find again and end the processes of one cluster.

Every process gets a record (id and start time, so that a reused id is never mistaken for it) and the variable
`THINKREC_CLUSTER` with the cluster's folder, which its own children inherit. The record lets another command find it by
name; the variable finds it even where the starter was killed before it could write the record.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from embedded_cluster.errors import ClusterError
from embedded_cluster.paths import State

MARK = "THINKREC_CLUSTER"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Process:
    """One process that was started."""

    name: str
    pid: int
    started: int
    """Clock ticks since boot, from /proc: with `pid` it names one process for ever."""
    argv: tuple[str, ...]

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return start_time(self.pid) == self.started


class Processes:
    """The processes of one cluster, by name."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._own: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, name: str, argv: Sequence[str], *, more: Mapping[str, str] | None = None) -> Process:
        """Start a process in a session of its own, its output appended to its log, `more` added to its environment."""
        self._state.processes.mkdir(parents=True, exist_ok=True)
        self._state.logs.mkdir(parents=True, exist_ok=True)
        environment = {"PATH": _PATH, "HOME": str(self._state.folder), "LANG": "C.UTF-8", **(more or {})}
        environment[MARK] = str(self._state.folder)
        with self.log(name).open("ab") as log:
            child = subprocess.Popen(
                list(argv), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        self._own[child.pid] = child
        process = Process(name, child.pid, start_time(child.pid) or 0, tuple(argv))
        write_atomically(self._record(name), json.dumps(dataclasses.asdict(process)))
        return process

    def start_again(self, name: str) -> Process:
        """Start a process that was stopped with the arguments it had."""
        return self.start(name, self.get(name).argv)

    def get(self, name: str) -> Process:
        """Return the process that was started under this name."""
        try:
            record = json.loads(self._record(name).read_text())
        except FileNotFoundError:
            raise ClusterError(f"this cluster has started no {name}") from None
        return Process(record["name"], record["pid"], record["started"], tuple(record["argv"]))

    def all(self) -> list[Process]:
        """Return every process that was started, by name."""
        return [self.get(path.stem) for path in sorted(self._state.processes.glob("*.json"))]

    def stop(self, name: str, *, grace_seconds: float = 0.0) -> None:
        """End a process and what it forked directly: at once, or politely first."""
        process = self.get(name)
        family = [process.pid, *children(process.pid)] if process.alive else []
        if family and grace_seconds:
            _signal(family[-1], signal.SIGTERM)
            self._wait_gone([family[-1]], grace_seconds)
        for pid in family:
            _signal(pid, signal.SIGKILL)
        self._wait_gone(family, 10)

    def stop_all(self) -> None:
        """Kill whatever belongs to this cluster, recorded or not."""
        deadline = time.monotonic() + 20
        while members := list(self._members()):
            for pid in members:
                _signal(pid, signal.SIGKILL)
            self._wait_gone(members, 2)
            if time.monotonic() > deadline:
                raise ClusterError(f"processes {members} of {self._state.folder} do not end; see `ps -p`")
        self._reap()  # also those that had ended before

    def log(self, name: str) -> Path:
        """Return the path of a process's log."""
        return self._state.logs / f"{name}.log"

    def require(self, name: str) -> None:
        """Raise ClusterError with the end of its log where a process has ended."""
        process = self.get(name)
        self._reap()
        if not process.alive:
            lines = self.log(name).read_text("utf-8", "replace").splitlines()[-15:]
            raise ClusterError(f"{name} has ended; the end of {self.log(name)}:\n  " + "\n  ".join(lines))

    def wait(self, ready: Callable[[], bool], seconds: float, *, what: str, needs: Sequence[str]) -> None:
        """Wait until `ready()`; raise ClusterError when a process that it needs has ended or the time is over."""
        deadline = time.monotonic() + seconds
        while not ready():
            for name in needs:
                self.require(name)
            if time.monotonic() > deadline:
                logs = ", ".join(str(self.log(name)) for name in needs)
                raise ClusterError(f"{what} took longer than {seconds:.0f} s; read {logs}")
            time.sleep(_POLL_SECONDS)

    def _record(self, name: str) -> Path:
        return self._state.processes / f"{name}.json"

    def _members(self) -> Iterator[int]:
        """Yield the ids of living processes that carry this cluster's mark, or are in its records."""
        recorded = {process.pid for process in self.all() if process.alive}
        mark = f"{MARK}={self._state.folder}".encode()
        for path in Path("/proc").glob("[0-9]*"):
            pid = int(path.name)
            if pid != os.getpid() and start_time(pid) and (pid in recorded or mark in _environment(path)):
                yield pid

    def _wait_gone(self, pids: Sequence[int], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            gone = not any(start_time(pid) for pid in pids)
            self._reap()  # after the look: one that ends in between is no longer looked at
            if gone:
                return
            time.sleep(0.02)

    def _reap(self) -> None:
        """Collect the exit status of children that have ended, so that no zombie stays."""
        for child in list(self._own.values()):
            if start_time(child.pid) is None:
                child.wait()
                del self._own[child.pid]


def start_time(pid: int) -> int | None:
    """Return when a process started (clock ticks since boot), or None where it has ended.

    A killed program with many threads is a zombie while the last of them still hold its sockets: it has not ended yet.
    """
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    ended = state == "X" or (state == "Z" and int(fields[16]) <= 1)
    return None if ended else int(fields[18])


def any_process() -> bool:
    """Return whether a process of any cluster runs on this machine."""
    mark = f"{MARK}=".encode()
    paths = [path for path in Path("/proc").glob("[0-9]*") if int(path.name) != os.getpid()]
    return any(part.startswith(mark) for path in paths for part in _environment(path) if start_time(int(path.name)))


def children(pid: int) -> list[int]:
    """Return the ids of a process's direct children."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended meanwhile
            found += [int(word) for word in path.read_text().split()]
    return found


def write_atomically(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Write a file so that a reader sees all of it or none."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(text)
    scratch.chmod(mode)
    scratch.replace(path)


def _environment(process: Path) -> list[bytes]:
    try:
        return (process / "environ").read_bytes().split(b"\0")
    except OSError:  # ended meanwhile, or another user's
        return []


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
