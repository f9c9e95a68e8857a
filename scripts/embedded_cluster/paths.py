# SPDX-License-Identifier: Apache-2.0
"""Where things are: the cache that all clusters share, and the state folder of one cluster."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from embedded_cluster.errors import ClusterError

REPOSITORY = Path(__file__).resolve().parents[2]
GO_MODULE = REPOSITORY / "scripts" / "kube"
"""Build files of the Kubernetes programs."""
ADDONS_GO_MODULE = REPOSITORY / "scripts" / "kube_addons"
"""Build files of the controllers that may run beside them."""
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


def cache_folder() -> Path:
    """Return the cache: $THINKREC_CACHE, else ~/.cache/thinkrec."""
    return Path(os.environ.get("THINKREC_CACHE") or "~/.cache/thinkrec").expanduser()


def cluster_folder(name: str) -> Path:
    """Return the state folder of the cluster `name`; raise ClusterError where the name cannot be one."""
    if not _NAME.fullmatch(name):
        raise ClusterError(f"--name {name!r}: use at most 32 lower-case letters, digits and dashes, for example dev")
    return cache_folder() / "clusters" / name


@dataclass(frozen=True)
class State:
    """Paths inside a state folder. Everything a cluster writes is below `folder`; `down` removes it whole."""

    folder: Path

    @property
    def cluster(self) -> Path:
        """What was chosen at the start: network, ports, version."""
        return self.folder / "cluster.json"

    @property
    def kubeconfig(self) -> Path:
        """Credentials of the administrator."""
        return self.folder / "kubeconfig"

    @property
    def certificates(self) -> Path:
        """Keys and certificates."""
        return self.folder / "certificates"

    @property
    def configuration(self) -> Path:
        """Configuration files of the programs, kubeconfigs of the components among them."""
        return self.folder / "configuration"

    @property
    def processes(self) -> Path:
        """One record per process that was started."""
        return self.folder / "processes"

    @property
    def logs(self) -> Path:
        """One log per process."""
        return self.folder / "logs"

    @property
    def etcd(self) -> Path:
        """The database."""
        return self.folder / "etcd"

    @property
    def node(self) -> Path:
        """Data of the node: images, containers, pod logs, kubelet."""
        return self.folder / "node"
