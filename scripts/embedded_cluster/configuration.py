# SPDX-License-Identifier: Apache-2.0
"""Configuration files of the node's programs. Each setting that is there for a reason says it."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from embedded_cluster import base_images
from embedded_cluster.certificates import Pair
from embedded_cluster.control_plane import DOMAIN
from embedded_cluster.network import Network
from embedded_cluster.paths import State

CNI_FOLDERS = ("/usr/lib/cni", "/opt/cni/bin")
"""Where Debian and everyone else put the network plugins."""

_CONTAINERD = """\
version = 2
root = "{root}"
state = "/run/containerd"
oom_score = 0

[grpc]
  address = "{socket}"

[plugins."io.containerd.internal.v1.opt"]
  path = "{opt}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Machines without CAP_SYS_RESOURCE may not lower a process's score; without this, no container starts there.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni_programs}"
    conf_dir = "{cni_configuration}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"""


def containerd(state: State, network: Network, *, socket: str) -> Path:
    """Write the configuration of containerd and of the pod network."""
    plugins = state.configuration / "cni"
    plugins.mkdir(exist_ok=True)
    (plugins / "10-thinkrec.conflist").write_text(json.dumps(_pod_network(state, network), indent=2))
    path = state.configuration / "containerd.toml"
    path.write_text(
        _CONTAINERD.format(
            root=state.node / "containerd",
            opt=state.node / "opt",
            socket=socket,
            pause=base_images.PAUSE,
            cni_programs=next((folder for folder in CNI_FOLDERS if Path(folder).is_dir()), CNI_FOLDERS[0]),
            cni_configuration=plugins,
        )
    )
    return path


def _pod_network(state: State, network: Network) -> dict[str, object]:
    """Return a routed link per pod: on a bridge, answers inside the subnet would miss the translation of Services."""
    addresses = {
        "type": "host-local",
        "dataDir": str(state.node / "addresses"),
        "ranges": [[{"subnet": network.pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    plugins = [
        {"type": "ptp", "ipMasq": False, "ipam": addresses},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    return {"cniVersion": "0.4.0", "name": "thinkrec", "plugins": plugins}


def kubelet(state: State, network: Network, *, authority: Path, serving: Pair, cgroup: str, socket: str) -> Path:
    """Write the configuration of the kubelet."""
    resolver = state.configuration / "resolv.conf"
    resolver.write_text(f"nameserver {network.node}\n")
    body = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": network.node,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(authority)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(serving.certificate),
        "tlsPrivateKeyFile": str(serving.key),
        "containerRuntimeEndpoint": f"unix://{socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        "failSwapOn": False,
        "failCgroupV1": False,
        "oomScoreAdj": 0,  # lowering it needs CAP_SYS_RESOURCE
        "clusterDomain": DOMAIN,
        "clusterDNS": [network.node],
        "resolvConf": str(resolver),
        "podLogsDir": str(state.node / "pod-logs"),
        "volumePluginDir": str(state.node / "volume-plugins"),
        # A development machine's disk is often nearly full, and that is not the node's business.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,  # images come from archives: one that is removed cannot be pulled again
        "syncFrequency": "10s",  # how soon a changed ConfigMap reaches the pods that mount it; a minute otherwise
        "nodeStatusUpdateFrequency": "5s",
    }
    path = state.configuration / "kubelet.yaml"
    path.write_text(yaml.safe_dump(body, sort_keys=False))
    return path
