# SPDX-License-Identifier: Apache-2.0
"""A scene for tests of the operator on a control plane: a namespace, a pretended node, a proxy, the operator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded_cluster.cluster import Cluster
from support.scene import Scene, opened


@pytest.fixture
def scene(control_plane: Cluster, namespace: str, tmp_path: Path) -> Iterator[Scene]:
    """Return a scene whose operator watches one fresh namespace."""
    with opened(control_plane, namespace, tmp_path) as found:
        yield found
