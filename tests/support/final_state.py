# SPDX-License-Identifier: Apache-2.0
"""Everything a model has in its namespace, without what two runs of the same story may differ in."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from embedded_cluster.api import Api

Body = dict[str, Any]

KINDS = {
    "Job": "/apis/batch/v1/namespaces/{}/jobs",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Service": "/api/v1/namespaces/{}/services",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "ControllerRevision": "/apis/apps/v1/namespaces/{}/controllerrevisions",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "HorizontalPodAutoscaler": "/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers",
}
_VOLATILE = frozenset(
    {"uid", "resourceVersion", "creationTimestamp", "managedFields", "generation", "selfLink", "clusterIP"}
    | {"clusterIPs", "controller-uid", "batch.kubernetes.io/controller-uid", "selector", "createdTime"}
    | {"thinkrec.io/applied-hash", "deployment.kubernetes.io/revision", "thinkrec.io/spec-hash", "nodePort"}
)


def objects(api: Api, namespace: str) -> dict[str, Body]:
    """Return kind/name -> what the operator decided about it."""
    found = {}
    for kind, path in KINDS.items():
        for body in api.items(path.format(namespace), labelSelector="app.kubernetes.io/managed-by=thinkrec-operator"):
            wanted = {name: part for name, part in body.items() if name != "status"}
            found[f"{kind}/{body['metadata']['name']}"] = _stable(wanted, namespace)
    return found


def status(model: Body | None, namespace: str) -> Body:
    """Return a model's status without times; empty where the model is gone."""
    body: Body = _stable(model["status"], namespace) if model else {}
    return body


def events(api: Api, namespace: str) -> Counter[str]:
    """Return the Events about models, each with how often it was told."""
    return Counter(
        f"{item['type']} {item['reason']}: {item['message']}"
        for item in api.items(f"/api/v1/namespaces/{namespace}/events")
        if item["involvedObject"]["kind"] == "ThinkRecModel"
        for _ in range(item.get("count", 1))
    )


def _stable(value: Any, namespace: str) -> Any:
    if isinstance(value, dict):
        return {
            name: _stable(item, namespace)
            for name, item in value.items()
            if name not in _VOLATILE and not name.endswith("Time")
        }
    if isinstance(value, list):
        return [_stable(item, namespace) for item in value]
    if isinstance(value, str):
        return _without_times(value.replace(namespace, "NAMESPACE"))
    return value


def _without_times(text: str) -> Any:
    """Return JSON inside a string (stage.json, the evaluation) as comparable values."""
    if text.startswith("{"):
        return _stable(json.loads(text), "\0")
    return text
