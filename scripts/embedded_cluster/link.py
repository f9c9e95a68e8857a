# SPDX-License-Identifier: Apache-2.0
"""The link between this machine and a node: one pair of virtual interfaces, two routes."""

from __future__ import annotations

import hashlib
import subprocess

from embedded_cluster.errors import ClusterError
from embedded_cluster.network import Network
from embedded_cluster.paths import State


def name(state: State) -> str:
    """Return this machine's end of the link (interface names have at most 15 characters)."""
    return f"thinkrec{hashlib.sha256(str(state.folder).encode()).hexdigest()[:7]}"


def create(state: State, network: Network, *, holder: int) -> None:
    """Join the network namespace of `holder` to this machine."""
    inside = ["nsenter", "--target", str(holder), "--net", "--", "ip"]
    own = name(state)
    _run("ip", "link", "add", own, "type", "veth", "peer", "name", "eth0", "netns", str(holder))
    _run("ip", "address", "add", f"{network.machine}/30", "dev", own)
    _run("ip", "link", "set", own, "up")
    _run(*inside, "address", "add", f"{network.node}/30", "dev", "eth0")
    _run(*inside, "link", "set", "eth0", "up")
    _run(*inside, "route", "add", "default", "via", network.machine)
    for subnet in (network.pods, network.services):
        _run("ip", "route", "add", subnet, "via", network.node, "dev", own)


def remove(state: State) -> None:
    """Remove the link with its routes; one that is gone already is no error."""
    subprocess.run(["ip", "link", "delete", name(state)], capture_output=True, check=False)


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"`{' '.join(argv)}` failed: {done.stderr.strip()}")
