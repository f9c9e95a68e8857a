# SPDX-License-Identifier: Apache-2.0
"""Runs in a child process before it becomes the stage: die with the driver, then exec.

    python -I -S launch.py DRIVER_PID COMMAND...

Only the standard library, so that it costs milliseconds. The kernel sends SIGTERM when the driver ends in any way, even
by SIGKILL, so that a stage writes its checkpoint and nothing keeps running unseen.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""prctl(2)."""


def main(arguments: list[str]) -> None:
    """Ask for SIGTERM at the driver's death and become the command."""
    driver, command = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != driver:  # it died before the request took effect
        raise SystemExit(128 + signal.SIGTERM)
    os.execvp(command[0], command)  # noqa: S606 - becoming the stage is the purpose


if __name__ == "__main__":
    main(sys.argv[1:])
