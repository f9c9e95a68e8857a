# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the node, for this folder; those of the control plane are everyone's."""

from support.kube import node_cluster, node_namespace, node_store

__all__ = ["node_cluster", "node_namespace", "node_store"]
