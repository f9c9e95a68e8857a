# SPDX-License-Identifier: Apache-2.0
"""Child processes that cannot outlive their parent: start, tail of the log, stop. Knows nothing of what they run.

Each child leads a process group of its own: a Ctrl-C at the terminal reaches the parent alone, which then ends the
children in the right order, and a group can be ended whole (Triton has stub processes). On Linux the kernel ends a
child when the thread that started it dies, even by SIGKILL (PR_SET_PDEATHSIG), so start children from the main thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PR_SET_PDEATHSIG = 1
"""linux/prctl.h."""


@dataclass(frozen=True, slots=True)
class Child:
    """One running child."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path | None
    """None: it writes to our own standard error."""

    @property
    def pid(self) -> int:
        """Return the process id, which is also its group's id."""
        return self.process.pid

    def exit_code(self) -> int | None:
        """Return how it ended, or None while it runs."""
        return self.process.poll()

    def last_words(self, lines: int = 15) -> str:
        """Return the end of its log, indented, or a hint where to look."""
        if self.log is None:
            return "  (its log is on standard error)"
        text = self.log.read_text(errors="replace").splitlines()[-lines:]
        return "\n".join(f"  | {line}" for line in text) or "  (its log is empty)"


def start(name: str, argv: Sequence[str], *, environment: Mapping[str, str], log: Path | None) -> Child:
    """Start a child that dies with us; its output goes to `log`, or to our standard error."""
    target = log.open("wb") if log is not None else None
    try:
        process = subprocess.Popen(
            argv,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=target if target is not None else sys.stderr,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with(os.getpid()) if sys.platform == "linux" else None,
        )
    finally:
        if target is not None:
            target.close()
    return Child(name=name, process=process, log=log)


def _die_with(parent: int) -> Callable[[], None]:
    """Return what a forked child runs before exec: die by SIGKILL with the parent, even if it is gone already."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # resolved before the fork: no import, no lock in the child

    def prepare() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def stop(child: Child, *, grace_seconds: float) -> None:
    """End the child: SIGTERM, after `grace_seconds` SIGKILL; then whatever is left of its group."""
    if child.exit_code() is None:
        child.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.process.wait(grace_seconds)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)  # the group is ours: start_new_session made it
    child.process.wait()


def free_port() -> int:
    """Return a TCP port that nobody listens on at the loopback address now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def accepts(path: Path) -> bool:
    """Return whether a process listens on the Unix socket (asked without HTTP: httpcore leaks a socket per refusal)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(str(path)) == 0


def wait_until(ready: Callable[[], bool], *, seconds: float, interval: float = 0.1) -> bool:
    """Poll `ready` until it is true; return False after `seconds`. What `ready` raises ends the wait."""
    ends = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > ends:
            return False
        time.sleep(interval)
    return True
