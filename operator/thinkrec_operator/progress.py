# SPDX-License-Identifier: Apache-2.0
"""The newest progress line in what a stage wrote. Other lines are left to people. Pure."""

from __future__ import annotations

from pydantic import ValidationError

from thinkrec_crds.artifact import Progress


def newest_progress(log: str, key: str) -> Progress | None:
    """Return the newest whole progress line for this key, or None."""
    for line in reversed(log.splitlines()):
        if not line.startswith("{"):
            continue
        try:
            found = Progress.from_json(line)
        except ValidationError:
            continue  # cut short by a crash, or a library's own output
        if found.key == key:
            return found
    return None
