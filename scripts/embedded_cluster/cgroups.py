# SPDX-License-Identifier: Apache-2.0
"""The node's control groups: one subtree per cluster, in version 1 (one per controller) or 2 (one)."""

from __future__ import annotations

import contextlib
import hashlib
import time
from pathlib import Path

from embedded_cluster.paths import State

ROOT = Path("/sys/fs/cgroup")
_DELEGATED = "+cpu +cpuset +memory +pids +io"


def name(state: State) -> str:
    """Return the subtree's name, the same in every hierarchy and different for every cluster."""
    return f"thinkrec-{hashlib.sha256(str(state.folder).encode()).hexdigest()[:12]}"


def create(state: State) -> None:
    """Make the subtree in every hierarchy, with its parent's CPUs and memory nodes."""
    if (ROOT / "cgroup.controllers").exists():
        (ROOT / "cgroup.subtree_control").write_text(_DELEGATED)
    for hierarchy in _hierarchies():
        folder = hierarchy / name(state)
        folder.mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):
            if (hierarchy / setting).exists() and (folder / setting).exists():
                (folder / setting).write_text((hierarchy / setting).read_text())
        if (folder / "cgroup.subtree_control").exists() and (ROOT / "cgroup.controllers").exists():
            (folder / "cgroup.subtree_control").write_text(_DELEGATED)


def remove(state: State) -> None:
    """Remove the subtree, innermost first; its processes have ended already, but the kernel may need a moment."""
    deadline = time.monotonic() + 5
    for hierarchy in _hierarchies():
        top = hierarchy / name(state)
        while top.exists():
            folders = [path for path in top.rglob("*") if path.is_dir()]
            for folder in [*sorted(folders, key=lambda path: len(path.parts), reverse=True), top]:
                with contextlib.suppress(OSError):  # busy: tried again below
                    folder.rmdir()
            if time.monotonic() > deadline:
                break
            time.sleep(0.02 if top.exists() else 0)


def _hierarchies() -> list[Path]:
    if (ROOT / "cgroup.controllers").exists():
        return [ROOT]
    return [path for path in sorted(ROOT.glob("*")) if path.is_dir() and not path.is_symlink()] if ROOT.exists() else []
