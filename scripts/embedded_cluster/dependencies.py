# SPDX-License-Identifier: Apache-2.0
"""Programs that come from the distribution: which are missing, and how to get them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from embedded_cluster.configuration import CNI_FOLDERS
from embedded_cluster.errors import ClusterError

_SEARCHED = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Administrators' folders are not on everyone's PATH."""


@dataclass(frozen=True)
class Dependency:
    """One program and the Debian package that brings it."""

    program: str
    package: str
    folders: str = _SEARCHED

    @property
    def present(self) -> bool:
        """Whether the program can be found."""
        return shutil.which(self.program, path=f"{self.folders}:{os.environ.get('PATH', '')}") is not None


NODE = (
    Dependency("containerd", "containerd"),
    Dependency("runc", "runc"),
    Dependency("ptp", "containernetworking-plugins", folders=":".join(CNI_FOLDERS)),
    Dependency("iptables", "iptables"),
    Dependency("conntrack", "conntrack"),
    Dependency("ip", "iproute2"),
    Dependency("nsenter", "util-linux"),
    Dependency("busybox", "busybox-static"),
)
IMAGES = (Dependency("buildah", "buildah"), Dependency("debootstrap", "debootstrap"))


def missing(dependencies: Sequence[Dependency]) -> list[Dependency]:
    """Return those that are not there."""
    return [each for each in dependencies if not each.present]


def require(dependencies: Sequence[Dependency], *, what: str) -> None:
    """Raise ClusterError that names what is missing and how to install it."""
    if absent := missing(dependencies):
        names = ", ".join(each.program for each in absent)
        raise ClusterError(
            f"{what} needs {names}, which this machine lacks. As root: `scripts/cluster deps`, or\n"
            f"  apt-get install --no-install-recommends {' '.join(each.package for each in absent)}"
        )


def why_no_node() -> str:
    """Return why this user on this machine cannot run a node; empty where it can."""
    if os.geteuid() != 0:
        return "a node needs root (namespaces, mounts, control groups); `--control-plane-only` does not"
    try:
        require(NODE, what="a node")
    except ClusterError as error:
        return str(error)
    return ""


def install(dependencies: Sequence[Dependency] = (*NODE, *IMAGES)) -> list[str]:
    """Install what is missing with apt-get and return the packages; services that they bring are not started."""
    packages = [each.package for each in missing(dependencies)]
    if not packages:
        return []
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise ClusterError(f"installing needs root on Debian or Ubuntu; otherwise install: {' '.join(packages)}")
    _without_services(["apt-get", "update", "--quiet"])
    _without_services(["apt-get", "install", "--quiet", "--yes", "--no-install-recommends", *packages])
    require(dependencies, what="after its installation the cluster still")
    return packages


def _without_services(command: list[str]) -> None:
    """Run apt-get; Debian starts containerd at once unless this file forbids it."""
    policy = Path("/usr/sbin/policy-rc.d")
    own = not policy.exists()
    if own:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        done = subprocess.run(command, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, check=False)
    finally:
        if own:
            policy.unlink()
    if done.returncode:
        raise ClusterError(f"`{' '.join(command)}` failed, see above")
