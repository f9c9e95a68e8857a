# SPDX-License-Identifier: Apache-2.0
"""Children of a cluster are collected whenever they end: a zombie would keep its id, and outlive the cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path

import pytest

from embedded_cluster import processes
from embedded_cluster.paths import State
from embedded_cluster.processes import Processes
from support.waiting import wait_for


@pytest.fixture
def mine(tmp_path: Path) -> Processes:
    return Processes(State(tmp_path))


def is_collected(pid: int) -> bool:
    """Return whether a child that has ended was waited for."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT) is None
    except ChildProcessError:
        return True


def ended(mine: Processes) -> int:
    """Start a process that ends by itself; return its id once it has."""
    pid = mine.start("short", ["/bin/true"]).pid
    wait_for(lambda: processes.start_time(pid) is None, "it to end")
    return pid


def test_one_that_ended_by_itself_is_collected_at_the_end(mine: Processes) -> None:
    pid = ended(mine)
    assert not is_collected(pid)
    mine.stop_all()
    assert is_collected(pid)


def test_one_that_ends_between_two_looks_is_collected(mine: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is still seen at work once, then has ended."""
    mine.start("long", ["/bin/sleep", "60"])
    pid = mine.get("long").pid
    real = processes.start_time
    looks: Iterator[bool] = chain([True], repeat(False))

    def start_time(of: int) -> int | None:
        found = real(of)
        return mine.get("long").started if found is None and of == pid and next(looks) else found

    monkeypatch.setattr(processes, "start_time", start_time)
    mine.stop("long")
    assert is_collected(pid)
