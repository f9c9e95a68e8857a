# SPDX-License-Identifier: Apache-2.0
"""Serving Deployment and Service: init containers fetch and verify, then Triton serves. Pure."""

from __future__ import annotations

from thinkrec_crds import group
from thinkrec_operator.manifests import common
from thinkrec_operator.manifests.common import Manifest
from thinkrec_operator.manifests.quantities import cpu_threads
from thinkrec_operator.plan import DeploymentChild, ServiceChild

COMPONENT = "serving"
HTTP_PORT = 8080
"""Gateway."""
TRITON_HTTP_PORT, TRITON_GRPC_PORT, TRITON_METRICS_PORT = 8000, 8001, 8002
ENGINE_METRICS_PORT = 8003
PORTS = {
    "http": HTTP_PORT,
    "triton-http": TRITON_HTTP_PORT,
    "triton-grpc": TRITON_GRPC_PORT,
    "triton-metrics": TRITON_METRICS_PORT,
    "engine-metrics": ENGINE_METRICS_PORT,
}
MODELS = "/models"
BUNDLE_FOLDER = f"{MODELS}/bundle"
BASE_MODEL_FOLDER = f"{MODELS}/base-model"
GRACE_SECONDS = 60
PRE_STOP_SECONDS = 10
"""Time for the Service to stop sending requests before the container is told to end."""


def service(child: ServiceChild) -> Manifest:
    """Return the stable address of the gateway."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": common.metadata(child.owner, child.name, COMPONENT),
        "spec": {
            "type": "ClusterIP",
            "selector": common.selector(child.owner, COMPONENT),
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def deployment(child: DeploymentChild) -> Manifest:
    """Return the serving pods of one revision."""
    annotations = {group.ANNOTATION_SPEC_HASH: child.spec_hash, group.LABEL_REVISION: child.revision}
    spec: Manifest = {
        "selector": {"matchLabels": common.selector(child.owner, COMPONENT)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "revisionHistoryLimit": 2,
        "template": {
            "metadata": {
                "labels": common.labels(child.owner, COMPONENT),
                "annotations": {group.ANNOTATION_SPEC_HASH: child.spec_hash},
            },
            "spec": _pod(child),
        },
    }
    if child.serving.autoscaling is None:  # otherwise the autoscaler owns the number
        spec["replicas"] = child.serving.effective_replicas
    extra = {group.LABEL_REVISION: child.revision}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": common.metadata(child.owner, child.name, COMPONENT, extra=extra, annotations=annotations),
        "spec": spec,
    }


def _pod(child: DeploymentChild) -> Manifest:
    bundle, base_model = fetch_arguments(child)
    pod: Manifest = {
        "automountServiceAccountToken": False,
        "serviceAccountName": child.service_account_name,
        "nodeSelector": dict(child.serving.node_selector),
        "tolerations": common.tolerations(child.serving.tolerations, child.serving.resources),
        "securityContext": common.pod_security(),
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "initContainers": [
            _fetch(child, "fetch-bundle", bundle, BUNDLE_FOLDER),
            _fetch(child, "fetch-base-model", base_model, BASE_MODEL_FOLDER),
        ],
        "containers": [_triton(child)],
        "volumes": [
            {"name": "models", "emptyDir": {}},
            {"name": "scratch", "emptyDir": {}},  # feedback events too: they outlive a container, but not the pod
            {"name": "shm", "emptyDir": {"medium": "Memory"}},
        ],
    }
    return common.without_empty(pod)


def fetch_arguments(child: DeploymentChild) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what `python -m thinkrec_trainer fetch` is told for the bundle and for the base model; `--to` is missing.

    The address comes first. The bundle's digest is demanded, so that every file of it is verified.
    """
    artifacts = child.artifacts
    options = (
        *(("--endpoint", artifacts.endpoint) if artifacts.endpoint else ()),
        *(("--region", artifacts.region) if artifacts.region else ()),
    )
    bundle = (child.bundle_uri, "--manifest-digest", child.bundle.digest or "", *options)
    return bundle, (base_model_argument(child), *options)


def _fetch(child: DeploymentChild, name: str, arguments: tuple[str, ...], folder: str) -> Manifest:
    return common.without_empty(
        {
            "name": name,
            "image": child.fetch_image,
            "command": ["python", "-m", "thinkrec_trainer", "fetch", *arguments, "--to", folder],
            "env": common.environment({"HOME": "/scratch", "TMPDIR": "/scratch"}),
            "envFrom": common.secret_environment(child.secrets),
            "resources": common.preparing_resources(child.serving.resources),
            "securityContext": common.container_security(),
            "volumeMounts": [
                {"name": "models", "mountPath": MODELS},
                {"name": "scratch", "mountPath": "/scratch"},
            ],
        }
    )


def base_model_argument(child: DeploymentChild) -> str:
    """Return the base model's address, with its revision where it is a hub's."""
    base = child.base_model
    pinned = base.revision and base.storage_uri.startswith("hf://")
    return f"{base.storage_uri}@{base.revision}" if pinned else base.storage_uri


def _triton(child: DeploymentChild) -> Manifest:
    threads = cpu_threads(child.serving.resources)
    values = {"HOME": "/scratch", "TMPDIR": "/scratch"}
    if threads is not None:
        values |= {**common.openmp(threads), "THINKREC_THREADS": str(threads)}
    options = [
        *("--bundle", BUNDLE_FOLDER),
        *("--base-model", BASE_MODEL_FOLDER),
        *("--work-dir", "/scratch/serve"),
        *("--host", "0.0.0.0", "--triton-host", "0.0.0.0"),  # noqa: S104 - reached through the pod's own address
        *("--gateway-port", str(HTTP_PORT)),
        *("--http-port", str(TRITON_HTTP_PORT), "--grpc-port", str(TRITON_GRPC_PORT)),
        *("--metrics-port", str(TRITON_METRICS_PORT), "--engine-metrics-port", str(ENGINE_METRICS_PORT)),
        "--log-to-stderr",
    ]
    return common.without_empty(
        {
            "name": "triton",
            "image": child.image,
            "command": ["python", "-m", "thinkrec_inference", "serve", *options],
            "env": common.environment(values),
            "envFrom": [{"configMapRef": {"name": child.config_map}}],
            "ports": [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in PORTS.items()],
            "resources": common.resources(child.serving.resources),
            "securityContext": common.container_security(),
            "startupProbe": _probe("/readyz", 5, 240),
            "readinessProbe": _probe("/readyz", 5, 2),
            "livenessProbe": _probe("/healthz", 20, 3),
            "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_SECONDS}}},
            "volumeMounts": [
                {"name": "models", "mountPath": MODELS, "readOnly": True},
                {"name": "scratch", "mountPath": "/scratch"},
                {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - Triton's shared memory, an emptyDir
            ],
        }
    )


def _probe(path: str, period: int, failures: int) -> Manifest:
    return {"httpGet": {"path": path, "port": "http"}, "periodSeconds": period, "failureThreshold": failures}
