# SPDX-License-Identifier: Apache-2.0
"""The repository's images, built from its Dockerfiles with buildah: no container engine, no registry.

Where a registry with the Dockerfile's own base cannot be reached, a Debian with Python is bootstrapped once and used as
the base. An archive is built once for each state of the files that go into it.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from embedded_cluster import dependencies
from embedded_cluster.errors import ClusterError
from embedded_cluster.locks import file_lock
from embedded_cluster.paths import REPOSITORY, cache_folder

SUITE = "bookworm"
MIRROR = "http://deb.debian.org/debian"
_PACKAGES = ("python3", "python3-pip", "python-is-python3", "ca-certificates")
"""What the Dockerfiles ask of their base: `python`, pip, certificates."""
_TRIMMED = 1
"""Raised when `_trim` does something else; a part of the base image's tag."""
_CERTIFICATES = Path("/etc/ssl/certs")
_COMMON = ("pyproject.toml", "uv.lock", "README.md", "LICENSE", ".dockerignore")


@dataclass(frozen=True)
class Image:
    """One of the repository's images."""

    component: str
    inputs: tuple[str, ...]
    """Files and folders that its Dockerfile copies, relative to the repository."""
    root: Path = REPOSITORY

    @property
    def name(self) -> str:
        """Name under which pods ask for it; the tag changes with its content, so nothing stale is ever used."""
        return f"thinkrec.local/{self.component}:{self.key}"

    @functools.cached_property
    def key(self) -> str:
        """Digest of everything that goes into it."""
        digest = hashlib.sha256(f"{SUITE} {_PACKAGES}".encode())
        for path in sorted(_files(self.root, [f"{self.component}/Dockerfile", *_COMMON, *self.inputs])):
            digest.update(f"{path.relative_to(self.root)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()[:12]

    @property
    def archive(self) -> Path:
        """Where its archive is, or will be."""
        return cache_folder() / "images" / f"{self.component}-{self.key}.tar"


IMAGES = {
    "operator": Image("operator", ("crds", "operator")),
    "trainer": Image("trainer", ("crds", "inference", "trainer")),
    "inference": Image("inference", ("crds", "operator", "trainer", "inference")),
}


def build(component: str, *, base: str = "") -> Image:
    """Return an image whose archive is built; `base` names a public base image instead of the bootstrapped one."""
    image = IMAGES[component]
    if not image.archive.exists():
        dependencies.require(dependencies.IMAGES, what="building images")
        with file_lock(cache_folder() / "images" / ".lock", waiting="Another process builds images; waiting for it"):
            if not image.archive.exists():
                _build(image, base or _bootstrapped())
    return image


def _build(image: Image, base: str) -> None:
    _say(f"Building {image.name}")
    with tempfile.TemporaryDirectory(dir=image.archive.parent) as scratch:
        archive = Path(scratch) / "image.tar"
        certificates = ["--volume", f"{_CERTIFICATES}:{_CERTIFICATES}:ro"] if _CERTIFICATES.is_dir() else []
        file = image.root / image.component / "Dockerfile"
        _buildah(
            *("build", "--isolation", "chroot", "--layers", "--build-arg", f"BASE={base}", *certificates),
            *("--file", str(file), "--tag", image.name, str(image.root)),
        )
        _buildah("push", "--quiet", image.name, f"docker-archive:{archive}:{image.name}")
        archive.rename(image.archive)
    _forget_older(image)


def _forget_older(image: Image) -> None:
    """Remove earlier states of an image; layers that the new one shares with them stay."""
    for path in image.archive.parent.glob(f"{image.component}-*.tar"):
        if path != image.archive:
            path.unlink()
    repository = image.name.partition(":")[0]
    names = _buildah("images", "--format", "{{.Name}}:{{.Tag}}").split()
    for name in names:
        if name.partition(":")[0] == repository and name != image.name:
            _buildah("rmi", name)


def _bootstrapped() -> str:
    """Return the name of the base image, bootstrapping it where it is not there yet."""
    content = f"{_TRIMMED} {' '.join(_PACKAGES)}"
    name = f"thinkrec.local/base:{SUITE}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
    if name in _buildah("images", "--format", "{{.Name}}:{{.Tag}}").split():
        return name
    _say(f"Bootstrapping Debian {SUITE} as the images' base (about a minute, once)")
    with tempfile.TemporaryDirectory(dir=cache_folder() / "images") as scratch:
        root = Path(scratch) / "root"
        _run("debootstrap", "--variant=minbase", f"--include={','.join(_PACKAGES)}", SUITE, str(root), MIRROR)
        _trim(root)
        container = _buildah("from", "scratch").strip()
        _buildah("copy", "--quiet", container, str(root), "/")
        _buildah("config", "--env", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", container)
        _buildah("commit", "--rm", "--quiet", container, name)
    return name


def _trim(root: Path) -> None:
    """Let pip install into the system, as Python's own images do, and drop what no image needs."""
    for pattern in ("usr/lib/python3*/EXTERNALLY-MANAGED", "var/cache/apt/archives/*.deb", "var/lib/apt/lists/*"):
        for path in root.glob(pattern):
            if path.is_file():
                path.unlink()
    for folder in ("usr/share/locale", "usr/share/man", "usr/share/doc"):
        shutil.rmtree(root / folder, ignore_errors=True)


def _files(root: Path, names: Iterable[str]) -> Iterable[Path]:
    for name in names:
        path = root / name
        found = path.rglob("*") if path.is_dir() else [path]
        yield from (each for each in found if each.is_file() and "__pycache__" not in each.parts)


def _buildah(*arguments: str) -> str:
    """Run buildah with a storage of its own: images of other projects are neither seen nor touched."""
    storage = cache_folder() / "images" / "storage"
    return _run("buildah", "--root", str(storage), "--runroot", str(storage / "run"), *arguments)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"`{_short(command)}` failed:\n{(done.stdout + done.stderr)[-3000:].strip()}")
    return done.stdout


def _short(command: Sequence[str]) -> str:
    return " ".join(command if len(command) <= 8 else [*command[:8], "..."])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
