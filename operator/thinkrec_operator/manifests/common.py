# SPDX-License-Identifier: Apache-2.0
"""What all children share: metadata, labels, owner reference, pod security, environment. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from thinkrec_crds import group
from thinkrec_crds.fields import PodTemplate, Resources, Toleration
from thinkrec_operator.names import label_value
from thinkrec_operator.plan import Owner, SecretEnvironment

Manifest = dict[str, Any]
_OWNED_BY = {group.MODEL_KIND: group.LABEL_MODEL, group.EXPERIMENT_KIND: group.LABEL_EXPERIMENT}
"""Kind of the owner -> label that names it."""


def labels(owner: Owner, component: str, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the recommended labels and our own; every value fits into 63 characters."""
    found = {
        group.LABEL_NAME: "thinkrec",
        group.LABEL_INSTANCE: owner.name,
        group.LABEL_COMPONENT: component,
        group.LABEL_PART_OF: group.PART_OF,
        group.LABEL_MANAGED_BY: group.MANAGED_BY,
        _OWNED_BY[owner.kind]: owner.name,
        **(extra or {}),
    }
    return {name: label_value(value) for name, value in found.items()}


def owner_reference(owner: Owner) -> Manifest:
    """Return the reference that lets Kubernetes remove the child with its model."""
    return {
        "apiVersion": group.API_VERSION,
        "kind": owner.kind,
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def metadata(
    owner: Owner, name: str, component: str, *, extra: Mapping[str, str] | None = None, annotations: Any = None
) -> Manifest:
    """Return the metadata of a child."""
    found: Manifest = {
        "name": name,
        "namespace": owner.namespace,
        "labels": labels(owner, component, extra),
        "ownerReferences": [owner_reference(owner)],
    }
    return {**found, "annotations": dict(annotations)} if annotations else found


def pod_security() -> Manifest:
    """Return the pod half of the restricted Pod Security Standard."""
    return {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "fsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Manifest:
    """Return the container half of the restricted Pod Security Standard."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def environment(values: Mapping[str, str]) -> list[Manifest]:
    """Return plain environment variables in a stable order."""
    return [{"name": name, "value": values[name]} for name in sorted(values)]


def openmp(threads: int) -> dict[str, str]:
    """Return the variables of OpenMP: as many threads as CPUs, which sleep while they wait.

    Spinning threads use up the CPU limit of the whole pod, and it is throttled while it still has work.
    """
    return {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}


def secret_environment(secrets: Iterable[SecretEnvironment]) -> list[Manifest]:
    """Return the Secrets as environment; the operator never reads them."""
    return [
        {"secretRef": {"name": secret.name}, **({"prefix": secret.prefix} if secret.prefix else {})}
        for secret in secrets
    ]


def resources(value: Resources) -> Manifest:
    """Return compute resources; quantities are text, as the API's own types have them."""
    both = {"requests": value.requests, "limits": value.limits}
    return without_empty({name: {unit: str(text) for unit, text in given.items()} for name, given in both.items()})


_SHARED_IN_TURN = ("cpu", "memory", "ephemeral-storage")


def preparing_resources(value: Resources) -> Manifest:
    """Return what an init container may use: the pod's own CPU, memory and disk, which are free until it is done.

    A pod counts the larger of the two, so this costs nothing; without it a namespace with a quota refuses the pod.
    Devices are left to the container that computes.
    """
    both = {"requests": value.requests, "limits": value.limits}
    kept = {name: {unit: given[unit] for unit in _SHARED_IN_TURN if unit in given} for name, given in both.items()}
    return resources(Resources(**kept))


def tolerations(values: Iterable[Toleration], resources: Resources) -> list[Manifest]:
    """Return the taints that pods tolerate: the user's, and those that keep a device's nodes for pods that ask for it.

    Such a taint is named after the resource; NVIDIA's operator uses one name for whole GPUs and for MIG slices.
    """
    given = [value.model_dump(mode="json", by_alias=True, exclude_none=True) for value in values]
    devices = [name for name in {**resources.requests, **resources.limits} if is_extended(name)]
    taints = dict.fromkeys(taint for name in devices for taint in _taints(name))
    known = {value.get("key") for value in given}
    everything = any("key" not in value and value["operator"] == "Exists" for value in given)
    wanted = [] if everything else [taint for taint in taints if taint not in known]
    return given + [{"key": taint, "operator": "Exists", "effect": "NoSchedule"} for taint in wanted]


def is_extended(resource: str) -> bool:
    """Return whether a resource is a device of some vendor, such as nvidia.com/gpu or nvidia.com/mig-1g.10gb."""
    return "/" in resource and resource.partition("/")[0].removesuffix(".kubernetes.io") != "kubernetes.io"


def _taints(resource: str) -> tuple[str, ...]:
    return (resource, "nvidia.com/gpu") if resource.startswith("nvidia.com/") else (resource,)


def selector(owner: Owner, component: str, variant: str = "") -> dict[str, str]:
    """Return the labels that select the pods of one component of a model, or of a variant; they never change."""
    found = {_OWNED_BY[owner.kind]: label_value(owner.name), group.LABEL_COMPONENT: component}
    return found | variant_label(variant)


def variant_label(variant: str) -> dict[str, str]:
    """Return the label that says which variant of an experiment a child belongs to."""
    return {group.LABEL_VARIANT: label_value(variant)} if variant else {}


def overlaid(template: Manifest, over: PodTemplate | None) -> Manifest:
    """Return the user's pod template laid over ours."""
    if over is None:
        return template
    wish: dict[str, Any] = over.model_dump(mode="json", by_alias=True, exclude_none=True)
    return merged(template, without_empty(wish))


def without_empty(value: Manifest) -> Manifest:
    """Return the object without members that are None or empty."""
    return {name: item for name, item in value.items() if item not in (None, {}, [], ())}


def merged(base: Manifest, over: Mapping[str, Any]) -> Manifest:
    """Return `over` laid over `base`: objects merge, lists of named things merge by name, anything else replaces."""
    found = dict(base)
    for name, value in over.items():
        old = found.get(name)
        if isinstance(old, dict) and isinstance(value, Mapping):
            found[name] = merged(old, value)
        elif isinstance(old, list) and isinstance(value, list) and _named(old) and _named(value):
            found[name] = _merged_lists(old, value)
        else:
            found[name] = value
    return found


def _named(items: list[Any]) -> bool:
    return all(isinstance(item, Mapping) and "name" in item for item in items)


def _merged_lists(old: list[Manifest], new: list[Manifest]) -> list[Manifest]:
    by_name = {item["name"]: item for item in old}
    for item in new:
        by_name[item["name"]] = merged(by_name[item["name"]], item) if item["name"] in by_name else item
    return list(by_name.values())
