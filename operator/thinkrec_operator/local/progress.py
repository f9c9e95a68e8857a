# SPDX-License-Identifier: Apache-2.0
"""The end of a stage's log on this machine: its newest progress line, its last line."""

from __future__ import annotations

from pathlib import Path

from thinkrec_crds.artifact import Progress
from thinkrec_operator.progress import newest_progress

_TAIL_BYTES = 16_384


def last_progress(path: Path, key: str) -> Progress | None:
    """Return the newest whole progress line for this key, or None."""
    return newest_progress(_tail(path), key)


def last_line(path: Path) -> str:
    """Return the last line of a log that is not empty."""
    return next((line.strip() for line in reversed(_tail(path).splitlines()) if line.strip()), "")


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as handle:
            handle.seek(0, 2)
            handle.seek(max(0, handle.tell() - _TAIL_BYTES))
            return handle.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
