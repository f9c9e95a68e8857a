# SPDX-License-Identifier: Apache-2.0
"""Waits for the end of the process that owns a cluster, however it ends, and then removes the cluster.

The kernel's own way (a parent-death signal) is tied to the thread that started a process, not to the process: a test
that restarts the API server from a worker thread would lose it when that thread ends. It would also leave data behind.

    python -m embedded_cluster.guardian FOLDER OWNER_PID OWNER_START
"""

from __future__ import annotations

import os
import select
import sys
from pathlib import Path

from embedded_cluster.paths import REPOSITORY, State
from embedded_cluster.processes import Processes, start_time
from embedded_cluster.teardown import down


def watch(processes: Processes, state: State, owner: int) -> None:
    """Start the guardian of a cluster."""
    started = start_time(owner)
    argv = [sys.executable, "-m", "embedded_cluster.guardian", str(state.folder), str(owner), str(started)]
    processes.start("guardian", argv, more={"PYTHONPATH": str(REPOSITORY / "scripts"), "PYTHONSAFEPATH": "1"})


def main(folder: Path, owner: int, started: int) -> None:
    """Wait for the owner's end, then remove the cluster."""
    try:
        handle = os.pidfd_open(owner)
    except ProcessLookupError:
        handle = None
    if handle is not None and start_time(owner) == started:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        poll.poll()
    down(State(folder))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
