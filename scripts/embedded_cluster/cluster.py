# SPDX-License-Identifier: Apache-2.0
"""One embedded cluster: a control plane, and a node where one is asked for."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from embedded_cluster import guardian, kubeconfig, network, programs, teardown
from embedded_cluster.api import Api
from embedded_cluster.control_plane import CONTEXT, READY_SECONDS, ControlPlane, answers
from embedded_cluster.errors import ClusterError
from embedded_cluster.locks import file_lock
from embedded_cluster.network import Network
from embedded_cluster.node import Node, is_ready
from embedded_cluster.paths import State, cache_folder
from embedded_cluster.processes import Processes, write_atomically


@dataclass
class Cluster:
    """A running cluster. Everything needed to use it, and to hurt it on purpose."""

    state: State
    network: Network
    url: str
    token: str = field(repr=False)
    authority: Path
    """Certificate of the authority that signed the API server's."""
    processes: Processes = field(repr=False)
    api: Api = field(repr=False)
    """The administrator's client."""

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig; its only context is `thinkrec-embedded`."""
        return self.state.kubeconfig

    def client(self, token: str = "") -> Api:
        """Return a new synchronous client, to be closed: the administrator's, or that of another bearer token."""
        return Api(self.url, authority=self.authority, token=token or self.token)

    def kubeconfig_of(self, path: Path, token: str) -> Path:
        """Write a kubeconfig that authenticates with a token, for example a service account's."""
        return kubeconfig.write(path, url=self.url, authority=self.authority, context=CONTEXT, token=token)

    def service_account_token(self, namespace: str, name: str, *, seconds: int = 3600) -> str:
        """Return a fresh token of a service account, as a pod would get it (at least 600 seconds)."""
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": seconds},
        }
        answer = self.api.create(f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token", body)
        return str(answer["status"]["token"])

    def stop_apiserver(self) -> None:
        """Kill the API server; its data stay in etcd."""
        self.processes.stop("kube-apiserver")

    def start_apiserver(self) -> None:
        """Start it again on the same port with the same data, and wait until it is ready."""
        self.processes.start_again("kube-apiserver")
        self.processes.wait(
            lambda: answers(self.api, "/readyz"),
            READY_SECONDS,
            what="the restart of the API server",
            needs=["etcd", "kube-apiserver"],
        )

    def restart_apiserver(self) -> None:
        """Kill the API server and start it again."""
        self.stop_apiserver()
        self.start_apiserver()

    @property
    def node(self) -> Node:
        """The node; it has ended where this was started without one."""
        return Node(self.state, self.processes, self.network)

    def stop_kubelet(self) -> None:
        """Kill the kubelet; containers go on, and after about 50 s the node counts as lost."""
        self.node.stop_kubelet()

    def start_kubelet(self) -> None:
        """Start the kubelet again and wait until the node is ready."""
        self.node.start_kubelet()
        self.processes.wait(
            lambda: is_ready(self.api), READY_SECONDS, what="the return of the node", needs=["kubelet", "containerd"]
        )

    def stop(self) -> None:
        """Remove the cluster with all its data."""
        self.api.close()
        self.processes.stop_all()  # here, because only their parent can collect these children
        teardown.down(self.state)


def start(folder: Path, *, node: bool = False, flags: Sequence[str] = (), owned: bool = False) -> Cluster:
    """Start a cluster in an empty state folder.

    `flags` go to the API server; `owned` ties the cluster to this process, however that ends.
    """
    state = State(folder.resolve())
    if state.folder.exists() and any(state.folder.iterdir()):
        raise ClusterError(f"{state.folder} is not empty; run `scripts/cluster down` first")
    state.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    processes = Processes(state)
    try:
        if owned:
            guardian.watch(processes, state, os.getpid())
        cluster = _start_with_node(state, processes, flags) if node else _start_plane(state, processes, flags)
        _remember(cluster)
    except BaseException:  # also on Ctrl-C: nothing half-started stays, except the logs that say why
        processes.stop_all()
        teardown.release(state)
        raise
    return cluster


def _start_plane(state: State, processes: Processes, flags: Sequence[str]) -> Cluster:
    addresses = network.loopback()
    plane = ControlPlane(state, processes, addresses)
    api = plane.start(flags)
    return Cluster(state, addresses, plane.url, plane.token, plane.authority.pair.certificate, processes, api)


def _start_with_node(state: State, processes: Processes, flags: Sequence[str]) -> Cluster:
    with file_lock(cache_folder() / "clusters" / ".network", waiting="Another cluster chooses its network; waiting"):
        addresses = network.choose()
        node = Node(state, processes, addresses)
        node.prepare()
    plane = ControlPlane(state, processes, addresses)
    api = plane.start(flags)
    node.join(plane, api)
    return Cluster(state, addresses, plane.url, plane.token, plane.authority.pair.certificate, processes, api)


def load(folder: Path) -> Cluster:
    """Return a cluster that another process has started."""
    state = State(folder.resolve())
    try:
        found = json.loads(state.cluster.read_text())
    except FileNotFoundError:
        raise ClusterError(f"no cluster runs in {folder}; start one with `scripts/cluster up`") from None
    authority, token = Path(found["authority"]), found["token"]
    api = Api(found["url"], authority=authority, token=token)
    return Cluster(state, Network(**found["network"]), found["url"], token, authority, Processes(state), api)


def _remember(cluster: Cluster) -> None:
    body = {
        "source": "embedded",
        "version": programs.kubernetes_version(),
        "url": cluster.url,
        "token": cluster.token,
        "authority": str(cluster.authority),
        "network": dataclasses.asdict(cluster.network),
    }
    write_atomically(cluster.state.cluster, json.dumps(body, indent=2))
