# SPDX-License-Identifier: Apache-2.0
"""Addresses of one cluster. A node gets a /16 of its own: a link to this machine, pods, services."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import subprocess
from dataclasses import dataclass

from embedded_cluster.errors import ClusterError

_CANDIDATES = range(192, 224)
"""Second octets to choose from: 10.192.0.0/16 to 10.223.0.0/16."""


@dataclass(frozen=True)
class Network:
    """Where everything listens and which subnets are used."""

    machine: str
    """This machine's address as the cluster sees it; the API server listens there, so pods reach it."""
    node: str
    """The node's address; empty without a node."""
    pods: str
    services: str

    @property
    def api_service(self) -> str:
        """Address of the Service `kubernetes`: the first of the range."""
        return str(ipaddress.ip_network(self.services)[1])


def loopback() -> Network:
    """Return the network of a control plane without a node."""
    return Network(machine="127.0.0.1", node="", pods="", services="10.96.0.0/16")


def choose() -> Network:
    """Return a network whose /16 no route of this machine touches."""
    routes = subprocess.run(["ip", "-4", "-o", "route"], capture_output=True, text=True, check=True).stdout
    taken = [net for line in routes.splitlines() if (net := _destination(line)) is not None]
    for octet in _CANDIDATES:
        if not any(net.overlaps(ipaddress.IPv4Network(f"10.{octet}.0.0/16")) for net in taken):
            return Network(f"10.{octet}.0.1", f"10.{octet}.0.2", f"10.{octet}.1.0/24", f"10.{octet}.128.0/20")
    raise ClusterError("every subnet from 10.192.0.0/16 to 10.223.0.0/16 is routed already; see `ip route`")


def _destination(route: str) -> ipaddress.IPv4Network | None:
    with contextlib.suppress(ValueError):  # "default via …", "unreachable …"
        return ipaddress.IPv4Network(route.split()[0], strict=False)
    return None


def free_ports(address: str, count: int) -> list[int]:
    """Return free ports of an address; all are held at once, so they differ."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((address, 0))
        return [int(each.getsockname()[1]) for each in sockets]
