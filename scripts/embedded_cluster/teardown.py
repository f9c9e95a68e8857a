# SPDX-License-Identifier: Apache-2.0
"""Remove everything that one cluster made; may be repeated, and works after a crash at any point."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from pathlib import Path

from embedded_cluster import cgroups, holder, link
from embedded_cluster.errors import ClusterError
from embedded_cluster.paths import State
from embedded_cluster.processes import Processes, any_process

_KNOWN = {"cluster", "kubeconfig", "certificates", "configuration", "processes", "logs", "etcd", "node"}
"""Names in a state folder, without what follows a dot (a file that is being written has its name and a number)."""


def down(state: State) -> bool:
    """End the processes, remove mounts, control groups and data; return whether there was anything.

    The node's mounts and packet filter rules live in its own namespaces and go with its last process.
    """
    if not state.folder.exists():
        return False
    _require_own(state.folder)
    release(state)
    shutil.rmtree(state.folder)
    return True


def release(state: State) -> None:
    """End the processes and remove what they hold outside the state folder; logs and data stay."""
    Processes(state).stop_all()
    if state.node.exists():
        link.remove(state)
        cgroups.remove(state)
        _unmount_below(state.folder)
        _remove_mount_points()


def _remove_mount_points() -> None:
    """Remove the empty folders that the node's mounts needed, unless another cluster has its own mounts on them."""
    if not any_process():
        for folder in holder.OVER:
            with contextlib.suppress(OSError):  # not empty: another installation of Kubernetes uses it
                Path(folder).rmdir()


def _require_own(folder: Path) -> None:
    """Raise ClusterError where the folder holds anything but a cluster's state: it would be deleted."""
    strangers = sorted(path.name for path in folder.iterdir() if path.name.lstrip(".").split(".")[0] not in _KNOWN)
    if strangers:
        held = ", ".join(strangers[:3])
        raise ClusterError(f"{folder} is no cluster's state folder (it holds {held}); nothing was removed")


def _unmount_below(folder: Path) -> None:
    """Unmount what is mounted below the folder, the innermost first, so that removing it reaches no other data."""
    for point in sorted(_mounts_below(folder), key=len, reverse=True):
        subprocess.run(["umount", "--lazy", point], check=False)
    if left := _mounts_below(folder):
        raise ClusterError(f"{left[0]} is still mounted; unmount it, then run down again")


def _mounts_below(folder: Path) -> list[str]:
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if point.startswith(f"{folder.resolve()}/")]
