# SPDX-License-Identifier: Apache-2.0
"""A real apiserver takes every kind of child with strict validation, and its pods pass the restricted standard."""

from __future__ import annotations

from typing import Any

import pytest

from embedded_cluster.cluster import Cluster
from support.model_world import World
from thinkrec_operator.manifests import render
from thinkrec_operator.plan import Child, CleanupChild, ControllerRevisionChild

PATHS = {
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Service": "/api/v1/namespaces/{}/services",
    "Job": "/apis/batch/v1/namespaces/{}/jobs",
    "ControllerRevision": "/apis/apps/v1/namespaces/{}/controllerrevisions",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "HorizontalPodAutoscaler": "/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers",
}
STRICT = {"dryRun": "All", "fieldValidation": "Strict"}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "several pods and GPUs": {
        "training": {"nodes": 2, "parallelism": 4, "resources": {"limits": {"nvidia.com/gpu": 4, "cpu": 8}}},
        "serving": {"replicas": 3, "resources": {"limits": {"nvidia.com/mig-1g.10gb": 1}}},
    },
    "scaled, with a gateway of its own": {
        "schedule": {"cron": "@daily"},
        "training": {"queueName": "gpus", "priorityClassName": "batch", "activeDeadlineSeconds": 60},
        "serving": {
            "gatewayImage": "registry.example/gateway:1",
            "autoscaling": {
                "maxReplicas": 4,
                "metrics": [{"name": "PendingRequests", "target": 4}, {"name": "CPUUtilization", "target": 70}],
            },
            "podTemplate": {"spec": {"priorityClassName": "online", "readinessGates": [{"conditionType": "a.b/c"}]}},
        },
    },
}


def children_of(changes: dict[str, Any]) -> list[Child]:
    """Return each child of a whole life, from the first training to the clean-up."""
    world, found = World(), dict[str, Child]()
    world.edit(changes | {"artifacts": {"deletionPolicy": "Delete"}})

    def step() -> None:
        for child in world.step().children:
            name = child.record.name if isinstance(child, ControllerRevisionChild) else child.name
            found[f"{type(child).__name__}/{name}"] = child
        for name in world.active:
            world.succeed(name)

    for _ in range(14):
        step()
    world.delete()
    step()
    assert any(isinstance(child, CleanupChild) for child in found.values())
    return list(found.values())


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_child_is_accepted_as_it_is(control_plane: Cluster, namespace: str, variant: str) -> None:
    kinds = set()
    for child in children_of(VARIANTS[variant]):
        body = render(child)
        body["metadata"]["namespace"] = namespace
        control_plane.api.create(PATHS[body["kind"]].format(namespace), body, **STRICT)
        kinds.add(body["kind"])
    assert kinds >= {"ConfigMap", "Service", "Job", "ControllerRevision", "Deployment"}


@pytest.mark.parametrize("variant", ["plain", "several pods and GPUs"])
def test_every_pod_passes_the_restricted_standard(control_plane: Cluster, namespace: str, variant: str) -> None:
    label = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    control_plane.api.patch(f"/api/v1/namespaces/{namespace}", label)
    for child in children_of(VARIANTS[variant]):
        body = render(child)
        template = body.get("spec", {}).get("template")
        if template is None:
            continue
        spec = template["spec"] | {"serviceAccountName": "default"}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": body["metadata"]["name"]}, "spec": spec}
        control_plane.api.create(f"/api/v1/namespaces/{namespace}/pods", pod, **STRICT)
