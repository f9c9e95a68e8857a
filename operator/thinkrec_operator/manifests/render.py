# SPDX-License-Identifier: Apache-2.0
"""One child -> one Kubernetes object. Pure."""

from __future__ import annotations

from typing import assert_never

from thinkrec_operator.manifests.cleanup import cleanup_job
from thinkrec_operator.manifests.common import Manifest
from thinkrec_operator.manifests.revision import controller_revision
from thinkrec_operator.manifests.scaling import autoscaler, disruption_budget
from thinkrec_operator.manifests.serving import deployment, service
from thinkrec_operator.manifests.training import config_map, job, peers_service
from thinkrec_operator.plan import (
    AutoscalerChild,
    Child,
    CleanupChild,
    ConfigMapChild,
    ControllerRevisionChild,
    DeploymentChild,
    DisruptionBudgetChild,
    JobChild,
    PeersServiceChild,
    ServiceChild,
)


def render(child: Child) -> Manifest:
    """Return the Kubernetes object of a child."""
    match child:
        case ConfigMapChild():
            return config_map(child)
        case JobChild():
            return job(child)
        case ControllerRevisionChild():
            return controller_revision(child)
        case DeploymentChild():
            return deployment(child)
        case DisruptionBudgetChild():
            return disruption_budget(child)
        case AutoscalerChild():
            return autoscaler(child)
        case ServiceChild():
            return service(child)
        case CleanupChild():
            return cleanup_job(child)
        case PeersServiceChild():
            return peers_service(child)
        case _:
            assert_never(child)
