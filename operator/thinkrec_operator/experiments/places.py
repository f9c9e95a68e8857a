# SPDX-License-Identifier: Apache-2.0
"""Who answers for each variant: the model of the gateway where it serves that revision already, else pods of its own.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from thinkrec_crds.conditions import Reason
from thinkrec_crds.experiment import ExperimentSpec
from thinkrec_operator import children as build
from thinkrec_operator.experiments.children import owner_of
from thinkrec_operator.experiments.observed import ObservedExperiment
from thinkrec_operator.experiments.variants import Contender, Lineup, Missing
from thinkrec_operator.names import child_name, content_hash
from thinkrec_operator.observed import Observed, ServingObservation
from thinkrec_operator.plan import Child, ChildKind, ConfigMapChild, Deletion, ServiceChild


@dataclass(frozen=True, slots=True)
class Place:
    """Where the requests of one variant are answered."""

    contender: Contender
    own: bool
    """Pods of the experiment's own answer, not the model of the gateway."""
    url: str | None
    """Base address; None: the gateway's own model."""
    ready_replicas: int
    trouble: str = ""
    """Why it is not ready, as far as is known."""
    stuck: bool = False
    """It will not get ready by itself."""

    @property
    def ready(self) -> bool:
        """Return whether it can answer."""
        return self.ready_replicas >= 1


def gateway_of(spec: ExperimentSpec) -> str:
    """Return the name of the model whose gateway shares out the users."""
    if spec.traffic is not None and spec.traffic.gateway_ref is not None:
        return spec.traffic.gateway_ref.name
    return next(v.model_ref.name for v in spec.variants if v.name == spec.control_variant_name)


def missing_gateway(observed: ObservedExperiment, lineup: Lineup) -> Missing | None:
    """Return what keeps the gateway's model from sharing out users, or None."""
    name = gateway_of(observed.experiment.spec)
    owner = observed.models.get(name)
    if owner is None:
        reason = Reason.MODEL_NOT_FOUND
        return Missing(reason, f"the gateway is that of model {name}: {reason.meaning} {reason.remedy}")
    own, other = owner.model.spec.artifacts, lineup.contenders[0].owner.model.spec.artifacts
    if (own.endpoint, own.region, own.secret_ref) != (other.endpoint, other.region, other.secret_ref):
        told = f"`spec.artifacts` of the gateway's model {name} has another endpoint, region or secretRef"
        return Missing(Reason.INVALID_SPEC, f"{told} than those of the variants' models; keep them in one store.")
    return None


def places(observed: ObservedExperiment, lineup: Lineup) -> tuple[Place, ...]:
    """Return where each variant's requests are answered, in the spec's order."""
    return tuple(_place(observed, contender) for contender in lineup.contenders)


def _place(observed: ObservedExperiment, one: Contender) -> Place:
    if observed.settings.laptop:  # there the users are simulated
        return Place(one, own=False, url=None, ready_replicas=1)
    gateway = gateway_of(observed.experiment.spec)
    status = observed.models[gateway].model.status
    if one.owner.model.metadata.name == gateway and status.serving_revision == one.record.name:
        ready = status.ready_replicas or 0
        return Place(one, own=False, url=None, ready_replicas=ready, trouble=f"model {gateway} has no pod that answers")
    name, found = deployment_name(observed, one.name), observed.deployments.get(one.name)
    url = f"http://{name}.{observed.experiment.metadata.namespace}.svc"
    if found is None or found.revision != one.record.name:
        return Place(one, own=True, url=url, ready_replicas=0, trouble=f"Deployment {name} is being written")
    return Place(one, True, url, found.ready_replicas, _trouble(found), found.stuck)


def _trouble(found: ServingObservation) -> str:
    return f"{found.reason}: {found.message}" if found.reason else f"the pods of Deployment {found.name} are starting"


def deployment_name(observed: ObservedExperiment, variant: str) -> str:
    """Return the name of a variant's Deployment and Service."""
    return child_name(observed.experiment.metadata.name, variant)


def place_children(observed: ObservedExperiment, found: tuple[Place, ...]) -> list[Child]:
    """Return ConfigMap, Deployment and Service of every variant that needs pods of its own."""
    return [child for place in found if place.own for child in _children(observed, place)]


def _children(observed: ObservedExperiment, place: Place) -> list[Child]:
    """Return what serves a variant: the pods of its model, as many as that starts with, without an autoscaler."""
    one, owner = place.contender, owner_of(observed)
    seen = Observed(model=one.owner.model, now=observed.now, settings=observed.settings)
    made, settings = build.deployment_child(seen, one.record), build.serving_settings(one.owner.model.spec.serving)
    config_map = child_name(
        owner.name, "variants", content_hash(settings)[:10]
    )  # never the name that a model's own has
    replicas = max(1, made.serving.effective_replicas)
    fixed = made.serving.model_copy(update={"autoscaling": None, "replicas": replicas})
    name = deployment_name(observed, one.name)
    deployment = replace(made, name=name, owner=owner, serving=fixed, config_map=config_map, variant=one.name)
    return [
        ConfigMapChild(config_map, owner, settings, "serving"),
        deployment,
        ServiceChild(name, owner, variant=one.name),
    ]


def surplus_places(observed: ObservedExperiment, wanted: list[Child]) -> tuple[Deletion, ...]:
    """Return the deletions of Deployments and Services that no variant needs any more."""
    names = {child.name for child in wanted if isinstance(child, ServiceChild)}
    return tuple(
        Deletion(ChildKind(ref.kind), ref.name, "no variant needs it")
        for ref in observed.other_children
        if ref.name not in names
    )
