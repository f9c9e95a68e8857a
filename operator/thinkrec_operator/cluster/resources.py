# SPDX-License-Identifier: Apache-2.0
"""The kinds that the driver reads and writes, and their addresses at the apiserver. Pure.

They are few and known, so nothing is discovered at run time but which optional ones are installed.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from thinkrec_crds import group

OURS: Final = f"{group.LABEL_MANAGED_BY}={group.MANAGED_BY}"
"""Label selector of everything the operator made; evaluated by the apiserver."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind."""

    kind: str
    plural: str
    api_version: str

    @property
    def group(self) -> str:
        """Return the API group; empty for the core group."""
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        """Return the version within the group."""
        return self.api_version.rpartition("/")[2]

    @property
    def root(self) -> str:
        """Return the path of the group and version."""
        return f"/apis/{self.api_version}" if self.group else f"/api/{self.api_version}"

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """Return the path of a collection (all namespaces where none is given), an object, or its subresource."""
        parts = [self.root]
        if namespace is not None:
            parts.append(f"namespaces/{namespace}")
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/".join(parts)


MODEL: Final = Resource(group.MODEL_KIND, group.MODEL_PLURAL, group.API_VERSION)
EXPERIMENT: Final = Resource(group.EXPERIMENT_KIND, group.EXPERIMENT_PLURAL, group.API_VERSION)
JOB: Final = Resource("Job", "jobs", "batch/v1")
POD: Final = Resource("Pod", "pods", "v1")
DEPLOYMENT: Final = Resource("Deployment", "deployments", "apps/v1")
CONFIG_MAP: Final = Resource("ConfigMap", "configmaps", "v1")
SERVICE: Final = Resource("Service", "services", "v1")
CONTROLLER_REVISION: Final = Resource("ControllerRevision", "controllerrevisions", "apps/v1")
POD_DISRUPTION_BUDGET: Final = Resource("PodDisruptionBudget", "poddisruptionbudgets", "policy/v1")
AUTOSCALER: Final = Resource("HorizontalPodAutoscaler", "horizontalpodautoscalers", "autoscaling/v2")
EVENT: Final = Resource("Event", "events", "v1")
JOB_SET: Final = Resource("JobSet", "jobsets", "jobset.x-k8s.io/v1alpha2")
TRAIN_JOB: Final = Resource("TrainJob", "trainjobs", "trainer.kubeflow.org/v1alpha1")
WORKLOAD: Final = Resource("Workload", "workloads", "kueue.x-k8s.io/v1beta1")

WATCHED: Final = (JOB, POD, DEPLOYMENT)
"""Children whose changes matter within a second."""
LISTED: Final = (CONFIG_MAP, SERVICE, CONTROLLER_REVISION, POD_DISRUPTION_BUDGET, AUTOSCALER)
"""Children that only the operator changes: listed at the start and at every resync."""
OPTIONAL: Final = (JOB_SET, TRAIN_JOB, WORKLOAD)
"""Kinds of other projects, watched where they are installed."""

BY_KIND: Final = MappingProxyType(
    {resource.kind: resource for resource in (MODEL, EXPERIMENT, *WATCHED, *LISTED, *OPTIONAL, EVENT)}
)


@dataclass(frozen=True, slots=True)
class Scope:
    """One kind of ours with the kinds of its children: what one view holds and one controller decides about."""

    owner: Resource
    label: str
    """Label of a child that names its owner."""
    watched: tuple[Resource, ...]
    listed: tuple[Resource, ...]
    optional: tuple[Resource, ...] = ()
    selector: str = OURS
    """Of its children."""

    def covers(self, resource: Resource) -> bool:
        """Return whether objects of this kind belong here."""
        return resource is self.owner or resource in (*self.watched, *self.listed, *self.optional)


MODELS: Final = Scope(MODEL, group.LABEL_MODEL, WATCHED, LISTED, OPTIONAL)
EXPERIMENTS: Final = Scope(
    EXPERIMENT,
    group.LABEL_EXPERIMENT,
    WATCHED,
    (CONFIG_MAP, SERVICE),
    selector=f"{OURS},{group.LABEL_EXPERIMENT}",
)
