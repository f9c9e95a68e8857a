# SPDX-License-Identifier: Apache-2.0
"""The newest progress line of a stage's standard output. Other lines are left to the log reader."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from thinkrec_crds.artifact import Progress

_TAIL_BYTES = 16_384


def last_progress(path: Path, key: str) -> Progress | None:
    """Return the newest whole progress line for this key, or None."""
    for line in reversed(_tail(path).splitlines()):
        if not line.startswith("{"):
            continue
        try:
            found = Progress.from_json(line)
        except ValidationError:
            continue  # a line cut short by a crash, or a library's own output
        if found.key == key:
            return found
    return None


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
