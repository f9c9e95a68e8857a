# SPDX-License-Identifier: Apache-2.0
"""The cluster's fixtures, for this folder."""

from support.kube import control_plane, namespace, node_cluster, node_namespace, node_store

__all__ = ["control_plane", "namespace", "node_cluster", "node_namespace", "node_store"]
