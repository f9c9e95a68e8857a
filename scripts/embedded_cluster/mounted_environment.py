# SPDX-License-Identifier: Apache-2.0
"""Stages and serving in pods without a six-gigabyte image: this checkout's environment is mounted into them.

The image (`base_images.ENVIRONMENT`) holds nothing but an empty tree. The pods see this machine's `/usr`, the Python
interpreter, `.venv` and the checkout, each read-only at its own path. So what runs is exactly what the tests run, and a
change of the code needs no build. Real clusters build trainer/Dockerfile and inference/Dockerfile instead.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from embedded_cluster import base_images
from embedded_cluster.errors import ClusterError
from embedded_cluster.paths import REPOSITORY

IMAGE = base_images.ENVIRONMENT
"""Image of such pods: for spec.training.image, spec.serving.image, and the operator's defaults."""


def training() -> dict[str, Any]:
    """Return the value for `spec.training.podTemplate`."""
    return pod_template(["stage"])


def serving() -> dict[str, Any]:
    """Return the value for `spec.serving.podTemplate`."""
    return pod_template(["triton"], init_containers=["fetch-bundle", "fetch-base-model", "ship-events"])


def pod_template(containers: Sequence[str], *, init_containers: Sequence[str] = ()) -> dict[str, Any]:
    """Return a pod template that mounts the environment into the named containers, to be merged over another."""
    mounts = [
        {"name": f"environment-{number}", "mountPath": str(path), "readOnly": True}
        for number, path in enumerate(folders())
    ]
    volumes = [
        {"name": mount["name"], "hostPath": {"path": mount["mountPath"], "type": "Directory"}} for mount in mounts
    ]
    both = {"env": _environment(), "volumeMounts": mounts}
    spec: dict[str, Any] = {"volumes": volumes, "containers": [{"name": name, **both} for name in containers]}
    if init_containers:
        spec["initContainers"] = [{"name": name, **both} for name in init_containers]
    return {"spec": spec}


def folders() -> list[Path]:
    """Return what must be seen in the pods; nothing that lies inside another of them."""
    if not Path("/lib").is_symlink():
        raise ClusterError("this needs a system whose /lib is a link into /usr (Debian 11, Ubuntu 20.04 or newer)")
    wanted = [Path("/usr"), REPOSITORY, Path(sys.prefix), Path(sys.base_prefix).resolve()]
    return list(_outermost(dict.fromkeys(wanted)))


def _outermost(paths: Iterable[Path]) -> Iterable[Path]:
    found = list(paths)
    return (path for path in found if not any(other in path.parents for other in found))


def _environment() -> list[dict[str, str]]:
    values = {
        "PATH": f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin",
        "PYTHONSAFEPATH": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    values |= {name: os.environ[name] for name in ("OMP_WAIT_POLICY",) if name in os.environ}
    return [{"name": name, "value": value} for name, value in values.items()]
