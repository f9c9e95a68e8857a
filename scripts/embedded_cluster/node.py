# SPDX-License-Identifier: Apache-2.0
"""One node: namespaces, containerd, kubelet, kube-proxy, DNS."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from embedded_cluster import base_images, cgroups, configuration, dns, holder, link, programs
from embedded_cluster.api import Api, ApiError
from embedded_cluster.control_plane import ControlPlane
from embedded_cluster.errors import ClusterError
from embedded_cluster.network import Network
from embedded_cluster.paths import REPOSITORY, State
from embedded_cluster.processes import Processes, children

NAME = "thinkrec-node"
READY_SECONDS = 180
"""Allowed on a machine that is busy with other work; 5 to 10 on an idle one."""
_UNSHARE = (
    *("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"),
    *("--mount-proc", "--propagation", "private", "--"),
)
_HOLDER = "node"
_CONTAINERD = "/run/containerd/containerd.sock"
"""Inside the node's own mounts."""


class Node:
    """The node of one cluster."""

    def __init__(self, state: State, processes: Processes, network: Network) -> None:
        self._state = state
        self._processes = processes
        self._network = network

    def prepare(self) -> None:
        """Make the namespaces and the link, so that the API server can listen on its end, and start containerd."""
        binaries = programs.ensure(programs.NODE)
        self._binaries = {name: str(path) for name, path in binaries.items()}
        self._state.node.mkdir(parents=True, exist_ok=True)
        self._state.configuration.mkdir(parents=True, exist_ok=True)
        for folder in holder.OVER:
            Path(folder).mkdir(parents=True, exist_ok=True)
        argv = [*_UNSHARE, sys.executable, "-m", "embedded_cluster.holder", str(self._state.folder)]
        more = {"PYTHONPATH": str(REPOSITORY / "scripts"), "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        self._processes.start(_HOLDER, argv, more=more)
        self._wait("the node's namespaces", lambda: holder.READY in self._processes.log(_HOLDER).read_text(), _HOLDER)
        link.create(self._state, self._network, holder=self.holder)
        cgroups.create(self._state)
        config = configuration.containerd(self._state, self._network, socket=_CONTAINERD)
        self._start("containerd", ["containerd", "--config", str(config)])

    def join(self, plane: ControlPlane, api: Api) -> None:
        """Start the node's other programs and wait until the node is ready and names resolve."""
        self._wait("containerd", lambda: self.call("ctr", "version").returncode == 0, "containerd")
        self.load_image(base_images.archive())
        serving = plane.authority.issue("kubelet-serving", f"system:node:{NAME}", hosts=[self._network.node, NAME])
        config = configuration.kubelet(
            self._state,
            self._network,
            authority=plane.authority.pair.certificate,
            serving=serving,
            cgroup=f"/{cgroups.name(self._state)}",
            socket=_CONTAINERD,
        )
        credentials = plane.component_kubeconfig("kubelet", f"system:node:{NAME}", ["system:nodes"])
        flags = [f"--config={config}", f"--kubeconfig={credentials}", f"--hostname-override={NAME}"]
        self._start("kubelet", [self._binaries["kubelet"], *flags, f"--node-ip={self._network.node}"])
        self._start("kube-proxy", self._kube_proxy(plane))
        self._start(
            "coredns", [self._binaries["coredns"], "-conf", str(dns.prepare(self._state, plane, api, self._network))]
        )
        self._wait("the node", lambda: is_ready(api), "containerd", "kubelet")
        self._wait("DNS", lambda: dns.is_ready(self._network), "coredns")

    @property
    def holder(self) -> int:
        """Id of the first process of the node's namespaces."""
        found = children(self._processes.get(_HOLDER).pid)
        if not found:
            raise ClusterError("the node has ended; run `scripts/cluster down`, then `up`")
        return found[0]

    def inside(self, *argv: str) -> list[str]:
        """Return the command that runs `argv` in the node's namespaces."""
        return ["nsenter", "--target", str(self.holder), "--net", "--mount", "--pid", "--", *argv]

    def call(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the node's namespaces and return what came of it."""
        return subprocess.run(self.inside(*argv), capture_output=True, text=True, check=False)

    def load_image(self, archive: Path) -> None:
        """Import an image archive (docker or OCI format), so that pods can use it without a registry."""
        done = self.call("ctr", "-n", "k8s.io", "images", "import", str(archive.resolve()))
        if done.returncode:
            raise ClusterError(f"containerd does not import {archive}: {done.stderr.strip()}")

    def images(self) -> list[str]:
        """Return the names of the images that pods can use."""
        return self.call("ctr", "-n", "k8s.io", "images", "list", "-q").stdout.split()

    def stop_kubelet(self) -> None:
        """Kill the kubelet; containers go on."""
        self._processes.stop("kubelet")

    def start_kubelet(self) -> None:
        """Start it again; `is_ready` tells when the node is back."""
        self._processes.start_again("kubelet")

    def _start(self, name: str, argv: Sequence[str]) -> None:
        self._processes.start(name, self.inside(*argv))

    def _wait(self, what: str, ready: object, *needs: str) -> None:
        assert callable(ready)
        self._processes.wait(ready, READY_SECONDS, what=f"the start of {what}", needs=needs)

    def _kube_proxy(self, plane: ControlPlane) -> list[str]:
        credentials = plane.component_kubeconfig("kube-proxy", "system:kube-proxy")
        return [
            self._binaries["kube-proxy"],
            f"--kubeconfig={credentials}",
            f"--hostname-override={NAME}",
            f"--cluster-cidr={self._network.pods}",
            "--proxy-mode=iptables",
            "--iptables-min-sync-period=100ms",
            "--iptables-localhost-nodeports=false",
            # The machine's own settings of connection tracking cannot be changed from here, and must not be.
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0",
            "--conntrack-tcp-timeout-close-wait=0",
            "--oom-score-adj=0",
        ]


def is_ready(api: Api) -> bool:
    """Return whether the node says it is ready, and pods may be put there."""
    with contextlib.suppress(ApiError):
        node = api.get(f"/api/v1/nodes/{NAME}")
        conditions = {each["type"]: each["status"] for each in node["status"].get("conditions", [])}
        return conditions.get("Ready") == "True" and not node["spec"].get("taints")
    return False
