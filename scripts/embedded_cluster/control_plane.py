# SPDX-License-Identifier: Apache-2.0
"""etcd, API server, controller manager and scheduler: started, waited for, restarted."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx

from embedded_cluster import kubeconfig, programs
from embedded_cluster.api import Api, ApiError
from embedded_cluster.certificates import Authority, signing_key
from embedded_cluster.network import Network, free_ports
from embedded_cluster.paths import State
from embedded_cluster.processes import Processes, write_atomically

CONTEXT = "thinkrec-embedded"
DOMAIN = "cluster.local"
READY_SECONDS = 180
"""Allowed on a machine that is busy with other work; 3 to 5 on an idle one."""
_ISSUER = f"https://kubernetes.default.svc.{DOMAIN}"
_ALL = programs.CONTROL_PLANE


class ControlPlane:
    """The four programs of one cluster."""

    def __init__(self, state: State, processes: Processes, network: Network) -> None:
        self._state = state
        self._processes = processes
        self._network = network
        self._binaries: dict[str, Path] = {}

    def start(self, flags: Sequence[str] = ()) -> Api:
        """Start everything; return when the API server is ready and controllers work. `flags` go to the API server."""
        self._binaries = programs.ensure(programs.CONTROL_PLANE)
        self.authority = Authority.create(self._state.certificates)
        etcd_port, port = (*free_ports("127.0.0.1", 1), *free_ports(self._network.machine, 1))
        self.url = f"https://{self._network.machine}:{port}"
        self.token = secrets.token_urlsafe(24)
        self._write_credentials()
        self._start("etcd", self._etcd(etcd_port))
        self._start("kube-apiserver", [*self._apiserver(etcd_port, port), *flags])
        api = Api(self.url, authority=self.authority.pair.certificate, token=self.token)
        self._wait("the API server", lambda: answers(api, "/livez"))
        self._start("kube-controller-manager", self._controller_manager())
        self._start("kube-scheduler", self._scheduler())
        self._wait("the control plane", lambda: answers(api, "/readyz") and _has_default_account(api))
        return api

    def component_kubeconfig(self, name: str, user: str, groups: Sequence[str] = ()) -> Path:
        """Write the kubeconfig of a component that authenticates with a certificate."""
        client = self.authority.issue(name, user, groups=groups)
        path = self._state.configuration / f"{name}.kubeconfig"
        return kubeconfig.write(
            path, url=self.url, authority=self.authority.pair.certificate, context=CONTEXT, client=client
        )

    def _write_credentials(self) -> None:
        folder = self._state.certificates
        hosts = ["127.0.0.1", "localhost", self._network.machine, self._network.api_service]
        hosts += ["kubernetes", "kubernetes.default", "kubernetes.default.svc", f"kubernetes.default.svc.{DOMAIN}"]
        self._server = self.authority.issue("apiserver", "kube-apiserver", hosts=hosts)
        self._kubelet_client = self.authority.issue("apiserver-to-kubelet", "kube-apiserver", groups=["system:masters"])
        self._etcd_server = self.authority.issue("etcd", "etcd", hosts=["127.0.0.1", "localhost"])
        self._etcd_client = self.authority.issue("etcd-client", "kube-apiserver")
        self._accounts = signing_key(folder, "service-accounts")
        self._tokens = folder / "tokens.csv"
        write_atomically(self._tokens, f"{self.token},thinkrec-admin,thinkrec-admin,system:masters\n")
        kubeconfig.write(
            self._state.kubeconfig,
            url=self.url,
            authority=self.authority.pair.certificate,
            context=CONTEXT,
            token=self.token,
        )

    def _start(self, name: str, flags: Sequence[str]) -> None:
        self._processes.start(name, [str(self._binaries[name]), *flags])

    def _wait(self, what: str, ready: Callable[[], bool]) -> None:
        started = [name for name in _ALL if self._processes.log(name).exists()]
        self._processes.wait(ready, READY_SECONDS, what=f"the start of {what}", needs=started)

    def _etcd(self, port: int) -> list[str]:
        url = f"https://127.0.0.1:{port}"
        return [
            f"--data-dir={self._state.etcd}",
            f"--listen-client-urls={url}",
            f"--advertise-client-urls={url}",
            "--listen-peer-urls=http://127.0.0.1:0",
            "--initial-advertise-peer-urls=http://127.0.0.1:0",
            "--initial-cluster=default=http://127.0.0.1:0",
            f"--cert-file={self._etcd_server.certificate}",
            f"--key-file={self._etcd_server.key}",
            f"--trusted-ca-file={self.authority.pair.certificate}",
            "--client-cert-auth",
            "--unsafe-no-fsync",  # the data need not survive the machine, and tests write a lot
            "--logger=zap",
            "--log-level=warn",
        ]

    def _apiserver(self, etcd_port: int, port: int) -> list[str]:
        # Endpoints may not name a loopback address, so a control plane without a node publishes none.
        reconciler = "lease" if self._network.node else "none"
        return [
            f"--bind-address={self._network.machine}",
            f"--advertise-address={self._network.machine}",
            f"--secure-port={port}",
            f"--endpoint-reconciler-type={reconciler}",
            f"--service-cluster-ip-range={self._network.services}",
            f"--etcd-servers=https://127.0.0.1:{etcd_port}",
            f"--etcd-cafile={self.authority.pair.certificate}",
            f"--etcd-certfile={self._etcd_client.certificate}",
            f"--etcd-keyfile={self._etcd_client.key}",
            f"--tls-cert-file={self._server.certificate}",
            f"--tls-private-key-file={self._server.key}",
            f"--client-ca-file={self.authority.pair.certificate}",
            f"--token-auth-file={self._tokens}",
            "--authorization-mode=Node,RBAC",
            f"--service-account-issuer={_ISSUER}",
            f"--service-account-key-file={self._accounts.certificate}",
            f"--service-account-signing-key-file={self._accounts.key}",
            f"--kubelet-certificate-authority={self.authority.pair.certificate}",
            f"--kubelet-client-certificate={self._kubelet_client.certificate}",
            f"--kubelet-client-key={self._kubelet_client.key}",
            "--kubelet-preferred-address-types=InternalIP",
            "--allow-privileged=true",
            "--profiling=false",
        ]

    def _controller_manager(self) -> list[str]:
        return [
            f"--kubeconfig={self.component_kubeconfig('controller-manager', 'system:kube-controller-manager')}",
            f"--root-ca-file={self.authority.pair.certificate}",
            f"--service-account-private-key-file={self._accounts.key}",
            "--use-service-account-credentials=true",
            "--leader-elect=false",
            "--secure-port=0",
            "--kube-api-qps=200",
            "--kube-api-burst=400",
        ]

    def _scheduler(self) -> list[str]:
        return [
            f"--kubeconfig={self.component_kubeconfig('scheduler', 'system:kube-scheduler')}",
            "--leader-elect=false",
            "--secure-port=0",
            "--kube-api-qps=200",
            "--kube-api-burst=400",
        ]


def answers(api: Api, path: str) -> bool:
    """Return whether a health endpoint says ok."""
    try:
        return api.text(path) == "ok"
    except (ApiError, httpx.TransportError):
        return False


def _has_default_account(api: Api) -> bool:
    """Return whether controllers work: the controller manager makes this object in every namespace."""
    return api.find("/api/v1/namespaces/default/serviceaccounts/default") is not None
