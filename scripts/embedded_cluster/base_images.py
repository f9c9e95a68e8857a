# SPDX-License-Identifier: Apache-2.0
"""Images made without any build tool: the pods' pause image, a small shell, and an empty tree to mount things into."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from embedded_cluster.errors import ClusterError
from embedded_cluster.paths import cache_folder

PAUSE = "thinkrec.local/pause:1"
BUSYBOX = "thinkrec.local/busybox:1"
"""Shell, wget, nslookup, httpd and the like, for tests of the cluster itself. Its wget must go
without -T (Debian's static one crashes on it).
"""

ENVIRONMENT = "thinkrec.local/environment:1"
"""Nothing but folders and links into /usr, which a pod mounts (mounted_environment)."""
_FORMAT = 2
"""Raised when the images' content changes; a part of the archive's name."""


def archive() -> Path:
    """Return the archive with all images; made once for each busybox."""
    program = busybox()
    content = program.read_bytes()
    path = cache_folder() / "images" / f"base-{_FORMAT}-{hashlib.sha256(content).hexdigest()[:16]}.tar"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.{os.getpid()}")
        _write(scratch, shell=_shell_layer(content, _applets(program)), tree=_tree_layer())
        scratch.replace(path)
    return path


def busybox() -> Path:
    """Return the path of busybox; raise ClusterError where it is missing or needs libraries."""
    found = shutil.which("busybox")
    if found is None:
        raise ClusterError("busybox is missing; run `scripts/cluster deps` (Debian package busybox-static)")
    if b"/ld-linux" in Path(found).read_bytes():
        raise ClusterError(
            f"{found} is not linked statically; run `scripts/cluster deps` (Debian package busybox-static)"
        )
    return Path(found)


def _applets(program: Path) -> list[str]:
    return subprocess.run([str(program), "--list"], capture_output=True, text=True, check=True).stdout.split()


_PASSWD = b"root:x:0:0:root:/:/bin/sh\nuser:x:65532:65532:user:/tmp:/bin/sh\n"


def _shell_layer(content: bytes, applets: list[str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        _folders(tar, ["bin", "etc"])
        _add(tar, "bin/busybox", content, mode=0o755)
        _add(tar, "etc/passwd", _PASSWD)
        for applet in applets:
            if applet != "busybox":
                _link(tar, f"bin/{applet}", "busybox")
    return buffer.getvalue()


def _tree_layer() -> bytes:
    """Return a tree in which everyone may enter every folder: mount points are made in it, /root/... among them."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        _folders(tar, ["usr", "etc", "home", "opt", "root", "srv", "var"])
        _add(tar, "etc/passwd", _PASSWD)
        for name in ("bin", "sbin", "lib", "lib64"):
            _link(tar, name, f"usr/{name}")
    return buffer.getvalue()


def _folders(tar: tarfile.TarFile, names: list[str]) -> None:
    for name, mode in (*((name, 0o755) for name in names), ("tmp", 0o1777)):
        folder = tarfile.TarInfo(name)
        folder.type, folder.mode = tarfile.DIRTYPE, mode
        tar.addfile(folder)


def _link(tar: tarfile.TarFile, name: str, target: str) -> None:
    link = tarfile.TarInfo(name)
    link.type, link.linkname = tarfile.SYMTYPE, target
    tar.addfile(link)


def _write(path: Path, *, shell: bytes, tree: bytes) -> None:
    """Write an archive in the format of `docker save`."""
    images = {
        PAUSE: (shell, {"Entrypoint": ["/bin/busybox", "sleep", "infinity"]}),
        BUSYBOX: (shell, {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]}),
        ENVIRONMENT: (tree, {"Cmd": ["/bin/sh"]}),
    }
    manifest = []
    with tarfile.open(path, "w") as tar:
        for layer in (shell, tree):
            _add(tar, f"{_digest(layer)}.tar", layer)
        for name, (layer, settings) in images.items():
            config = _image_config(layer, settings)
            _add(tar, f"{_digest(config)}.json", config)
            manifest.append(
                {"Config": f"{_digest(config)}.json", "RepoTags": [name], "Layers": [f"{_digest(layer)}.tar"]}
            )
        _add(tar, "manifest.json", json.dumps(manifest).encode())


def _image_config(layer: bytes, config: dict[str, Any]) -> bytes:
    body = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine),
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_digest(layer)}"]},
    }
    return json.dumps(body, sort_keys=True).encode()


def _add(tar: tarfile.TarFile, name: str, content: bytes, *, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
