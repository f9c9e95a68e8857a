# SPDX-License-Identifier: Apache-2.0
"""CoreDNS on the node's own address: names of Services and pods; nothing outside the cluster resolves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from embedded_cluster.api import Api
from embedded_cluster.control_plane import CONTEXT, DOMAIN, ControlPlane
from embedded_cluster.network import Network
from embedded_cluster.paths import State

_USER = "system:coredns"
_READY_PORT = 8181
_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_COREFILE = """\
.:53 {{
    bind {address}
    errors
    ready {address}:{ready}
    kubernetes {domain} in-addr.arpa {{
        kubeconfig {kubeconfig} {context}
        pods insecure
        ttl 5
    }}
}}
"""


def prepare(state: State, plane: ControlPlane, api: Api, network: Network) -> Path:
    """Grant the server what it reads and write its configuration."""
    for kind, body in _rights().items():
        api.apply(f"{_RBAC}/{kind}/{_USER}", body, manager="thinkrec-cluster")
    credentials = plane.component_kubeconfig("coredns", _USER)
    path = state.configuration / "Corefile"
    path.write_text(
        _COREFILE.format(
            address=network.node, ready=_READY_PORT, domain=DOMAIN, kubeconfig=credentials, context=CONTEXT
        )
    )
    return path


def is_ready(network: Network) -> bool:
    """Return whether the server has read the cluster's Services."""
    try:
        return httpx.get(f"http://{network.node}:{_READY_PORT}/ready", trust_env=False, timeout=2).is_success
    except httpx.TransportError:
        return False


def _rights() -> dict[str, dict[str, Any]]:
    base = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": _USER}}
    core = {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]}
    slices = {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}
    group = "rbac.authorization.k8s.io"
    return {
        "clusterroles": {**base, "kind": "ClusterRole", "rules": [core, slices]},
        "clusterrolebindings": {
            **base,
            "kind": "ClusterRoleBinding",
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": _USER},
            "subjects": [{"apiGroup": group, "kind": "User", "name": _USER}],
        },
    }
