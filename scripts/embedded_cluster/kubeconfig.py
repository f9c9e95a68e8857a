# SPDX-License-Identifier: Apache-2.0
"""Kubeconfig files: always one cluster, one user, one context; the user's own file is never touched."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import yaml

from embedded_cluster.certificates import Pair
from embedded_cluster.processes import write_atomically


def write(path: Path, *, url: str, authority: Path, context: str, client: Pair | None = None, token: str = "") -> Path:
    """Write a kubeconfig that holds all it refers to, readable by its owner only."""
    user: dict[str, Any] = {"token": token}
    if client is not None:
        user = {"client-certificate-data": _data(client.certificate), "client-key-data": _data(client.key)}
    body = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": context, "cluster": {"server": url, "certificate-authority-data": _data(authority)}},
        ],
        "users": [{"name": context, "user": user}],
        "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
        "current-context": context,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, yaml.safe_dump(body, sort_keys=False))
    return path


def _data(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
