# SPDX-License-Identifier: Apache-2.0
"""The ServiceAccount that the chart gives the operator, with the chart's rights and no others, on a test's cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml

from embedded_cluster.cluster import Cluster
from support import chart

Body = dict[str, Any]

RELEASE, NAMESPACE, ACCOUNT = "suite", "thinkrec-suite", "suite-thinkrec"
"""Not those of the chart's own tests, which uninstall what they installed."""
_TOKENS: dict[str, str] = {}
"""By the cluster's address."""
_SECONDS = 12 * 3600
"""Longer than any run of the tests."""


def token(cluster: Cluster) -> str:
    """Return the account's token; make the account and its rights where the cluster has none yet."""
    if cluster.url not in _TOKENS:
        cluster.api.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        for body in _objects():
            cluster.api.create(_collection(body), body)
        _TOKENS[cluster.url] = cluster.service_account_token(NAMESPACE, ACCOUNT, seconds=_SECONDS)
    return _TOKENS[cluster.url]


@contextmanager
def revocable_token(cluster: Cluster, name: str) -> Iterator[str]:
    """Yield a token of the account that is worth nothing any more once this is left: it is bound to a Secret."""
    token(cluster)
    secrets = f"/api/v1/namespaces/{NAMESPACE}/secrets"
    made = cluster.api.create(secrets, {"metadata": {"name": name}})["metadata"]
    bound = {"kind": "Secret", "apiVersion": "v1", "name": name, "uid": made["uid"]}
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{ACCOUNT}/token"
    wish = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"boundObjectRef": bound}}
    try:
        yield str(cluster.api.create(path, wish)["status"]["token"])
    finally:
        cluster.api.delete(f"{secrets}/{name}")


def _objects() -> tuple[Body, Body, Body]:
    """Return account, role and binding as the chart renders them."""
    done = chart.helm("template", RELEASE, str(chart.CHART), "--namespace", NAMESPACE)
    assert done.returncode == 0, done.stderr
    bodies = [body for body in yaml.safe_load_all(done.stdout) if body and not chart.is_hook(body)]
    binding = chart.only(bodies, "ClusterRoleBinding")
    return chart.only(bodies, "ServiceAccount"), chart.only(bodies, "ClusterRole", binding["roleRef"]["name"]), binding


def _collection(body: Body) -> str:
    if body["kind"] == "ServiceAccount":
        return f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts"
    return f"/apis/rbac.authorization.k8s.io/v1/{body['kind'].lower()}s"
