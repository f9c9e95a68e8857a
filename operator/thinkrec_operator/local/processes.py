# SPDX-License-Identifier: Apache-2.0
"""Processes of the local driver: start one that dies with us, look at it, end it. The only module that needs psutil."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from thinkrec_operator.local import launch
from thinkrec_operator.local.records import ProcessRecord


def start(
    command: Sequence[str], *, folder: Path, environment: Mapping[str, str], output: Path, errors: Path
) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own (Ctrl-C reaches the driver only) that ends when the driver ends.

    Standard output is appended to `output`, standard error to `errors` (they may be the same file).
    """
    for path in (output, errors):
        path.parent.mkdir(parents=True, exist_ok=True)
    launcher = [sys.executable, "-I", "-S", str(Path(launch.__file__)), str(os.getpid())]
    with output.open("ab") as out, errors.open("ab") as err:
        return subprocess.Popen(
            [*launcher, *command],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )


def record_of(pid: int) -> ProcessRecord:
    """Return what tells this process from a later one with the same id."""
    try:
        return ProcessRecord(pid=pid, created=psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return ProcessRecord(pid=pid, created=0.0)


def alive(record: ProcessRecord) -> bool:
    """Return whether exactly this process still runs."""
    try:
        process = psutil.Process(record.pid)
        return process.create_time() == record.created and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def memory_used(pid: int) -> int:
    """Return the resident bytes of a process and all its descendants; 0 when it is gone."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    total = 0
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += member.memory_info().rss
    return total


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to the group that a started process leads; nothing happens when it is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def end_leftover(record: ProcessRecord, grace_seconds: float) -> None:
    """End a process that an earlier driver left behind: SIGTERM, and SIGKILL after the grace period."""
    if not alive(record):
        return
    send(record.pid, signal.SIGTERM)
    with contextlib.suppress(psutil.NoSuchProcess):
        try:
            psutil.Process(record.pid).wait(timeout=grace_seconds)
        except psutil.TimeoutExpired:
            send(record.pid, signal.SIGKILL)
            psutil.Process(record.pid).wait(timeout=10)
