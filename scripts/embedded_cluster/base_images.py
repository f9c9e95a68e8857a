# SPDX-License-Identifier: Apache-2.0
"""Two images from one static busybox, made without any build tool: the pods' pause image, and a small shell."""

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


def archive() -> Path:
    """Return the archive with both images; made once for each busybox."""
    program = busybox()
    content = program.read_bytes()
    path = cache_folder() / "images" / f"busybox-{hashlib.sha256(content).hexdigest()[:16]}.tar"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.{os.getpid()}")
        _write(scratch, _layer(content, _applets(program)))
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


def _layer(content: bytes, applets: list[str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, mode in (("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777)):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, mode
            tar.addfile(folder)
        _add(tar, "bin/busybox", content, mode=0o755)
        _add(tar, "etc/passwd", b"root:x:0:0:root:/:/bin/sh\nuser:x:65532:65532:user:/tmp:/bin/sh\n", mode=0o644)
        for applet in applets:
            if applet != "busybox":
                shortcut = tarfile.TarInfo(f"bin/{applet}")
                shortcut.type, shortcut.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(shortcut)
    return buffer.getvalue()


def _write(path: Path, layer: bytes) -> None:
    """Write an archive in the format of `docker save`."""
    configs = {
        PAUSE: _image_config(layer, {"Entrypoint": ["/bin/busybox", "sleep", "infinity"]}),
        BUSYBOX: _image_config(layer, {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]}),
    }
    manifest = [
        {"Config": f"{_digest(config)}.json", "RepoTags": [name], "Layers": ["layer.tar"]}
        for name, config in configs.items()
    ]
    with tarfile.open(path, "w") as tar:
        for config in configs.values():
            _add(tar, f"{_digest(config)}.json", config)
        _add(tar, "layer.tar", layer)
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
