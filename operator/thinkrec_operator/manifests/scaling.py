# SPDX-License-Identifier: Apache-2.0
"""How many serving pods there are: HorizontalPodAutoscaler and PodDisruptionBudget. Pure."""

from __future__ import annotations

from thinkrec_crds.spec_serving import AutoscalingMetric
from thinkrec_operator.manifests import common
from thinkrec_operator.manifests.common import Manifest
from thinkrec_operator.manifests.serving import COMPONENT, CONTAINER
from thinkrec_operator.plan import AutoscalerChild, DisruptionBudgetChild

PENDING_REQUESTS = "thinkrec_gateway_pending_requests"
"""Gauge of every gateway; a metrics adapter makes it a metric of pods."""


def disruption_budget(child: DisruptionBudgetChild) -> Manifest:
    """Return the budget: one pod at a time, and a pod that does not answer anyway is never in the way of a drain."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": common.metadata(child.owner, child.name, COMPONENT),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": common.selector(child.owner, COMPONENT)},
        },
    }


def autoscaler(child: AutoscalerChild) -> Manifest:
    """Return the autoscaler of the Deployment."""
    wish = child.autoscaling
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": common.metadata(child.owner, child.name, COMPONENT),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": child.deployment},
            "minReplicas": wish.min_replicas,
            "maxReplicas": wish.max_replicas,
            "metrics": [_metric(metric) for metric in wish.metrics],
        },
    }


def _metric(metric: AutoscalingMetric) -> Manifest:
    if metric.name == "CPUUtilization":  # of Triton's container alone: others of the pod may have no request
        target = {"type": "Utilization", "averageUtilization": metric.target}
        return {
            "type": "ContainerResource",
            "containerResource": {"name": "cpu", "container": CONTAINER, "target": target},
        }
    average = {"type": "AverageValue", "averageValue": str(metric.target)}
    return {"type": "Pods", "pods": {"metric": {"name": PENDING_REQUESTS}, "target": average}}
