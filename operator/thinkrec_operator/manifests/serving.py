# SPDX-License-Identifier: Apache-2.0
"""Serving Deployment and Service: init containers fetch and verify, then Triton serves. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from thinkrec_crds import group
from thinkrec_operator.manifests import common, event_log
from thinkrec_operator.manifests.common import Manifest
from thinkrec_operator.manifests.quantities import cpu_threads
from thinkrec_operator.plan import DeploymentChild, ServiceChild

COMPONENT = "serving"
CONTAINER = "triton"
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
BUNDLED_GATEWAY_PORT = 8081
"""Where the gateway of Triton's own image listens when another one has taken its place."""
PRE_STOP_SECONDS = 10
"""Time for the Service to stop sending requests before the container is told to end."""
PROBE_SECONDS = 5
"""For an answer to a probe. Kubernetes' own one second is too short where all CPUs are at work: two late answers would
take the only pod of a Service away, and every request with it."""
STOPPING_SECONDS = 40
"""For gateway, Triton and engine to end, beyond the requests that they still have."""
MIN_READY_SECONDS = 5
"""For the Service to know a new pod before an old one is stopped."""
PROGRESS_DEADLINE_SECONDS = 1800
"""For one pod to fetch bundle and base model and to load them; then the rollout counts as stuck."""


def service(child: ServiceChild) -> Manifest:
    """Return the stable address of the gateway."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": common.metadata(child.owner, child.name, COMPONENT, extra=common.variant_label(child.variant)),
        "spec": {
            "type": "ClusterIP",
            "selector": common.selector(child.owner, COMPONENT, child.variant),
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def deployment(child: DeploymentChild) -> Manifest:
    """Return the serving pods of one revision."""
    annotations = {group.ANNOTATION_SPEC_HASH: child.spec_hash, group.LABEL_REVISION: child.revision}
    spec: Manifest = {
        "selector": {"matchLabels": common.selector(child.owner, COMPONENT, child.variant)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "minReadySeconds": MIN_READY_SECONDS,
        "progressDeadlineSeconds": PROGRESS_DEADLINE_SECONDS,
        "revisionHistoryLimit": 2,
        "template": _template(child),
    }
    if child.serving.autoscaling is None:  # otherwise the autoscaler owns the number
        spec["replicas"] = child.serving.effective_replicas
    extra = {group.LABEL_REVISION: child.revision, **common.variant_label(child.variant)}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": common.metadata(child.owner, child.name, COMPONENT, extra=extra, annotations=annotations),
        "spec": spec,
    }


def _template(child: DeploymentChild) -> Manifest:
    found: Manifest = {
        "metadata": {
            "labels": common.labels(child.owner, COMPONENT, common.variant_label(child.variant)),
            "annotations": {group.ANNOTATION_SPEC_HASH: child.spec_hash},
        },
        "spec": _pod(child),
    }
    return event_log.only_where_needed(child, common.overlaid(found, child.serving.pod_template))


def grace_seconds(child: DeploymentChild) -> int:
    """Return the seconds a pod gets to end: no request reaches it, the last one is answered, all is stopped."""
    longest = -(-child.serving.limits.deadline_milliseconds // 1000)
    return PRE_STOP_SECONDS + longest + STOPPING_SECONDS + (0 if child.variant else event_log.SHIPPING_SECONDS)


def _pod(child: DeploymentChild) -> Manifest:
    bundle, base_model = fetch_arguments(child)
    pod: Manifest = {
        "automountServiceAccountToken": False,
        "serviceAccountName": child.service_account_name,
        "nodeSelector": dict(child.serving.node_selector),
        "tolerations": common.tolerations(child.serving.tolerations, child.serving.resources),
        "securityContext": common.pod_security(),
        "terminationGracePeriodSeconds": grace_seconds(child),
        "initContainers": [
            _fetch(child, "fetch-bundle", bundle, BUNDLE_FOLDER),
            _fetch(child, "fetch-base-model", base_model, BASE_MODEL_FOLDER),
            *event_log.shippers(child),
        ],
        "containers": [_triton(child), *([_gateway(child)] if child.serving.gateway_image else [])],
        "topologySpreadConstraints": [_spread(child)],
        "volumes": [
            {"name": "models", "emptyDir": {}},
            {"name": "scratch", "emptyDir": {}},  # feedback events too, until they are shipped
            {"name": "shm", "emptyDir": {"medium": "Memory"}},
            {"name": "tmp", "emptyDir": {}},  # Triton's Python backend unpacks there and cannot be told otherwise
            *event_log.traffic_volumes(child),
        ],
    }
    return common.without_empty(pod)


def _spread(child: DeploymentChild) -> Manifest:
    """Return the wish that pods stand on different nodes, where there are some."""
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": common.selector(child.owner, COMPONENT, child.variant)},
    }


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
            "terminationMessagePolicy": "FallbackToLogsOnError",
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
    replaced = child.serving.gateway_image is not None
    threads = cpu_threads(child.serving.resources)
    values = {"HOME": "/scratch", "TMPDIR": "/scratch", **event_log.traffic_environment(child)}
    if threads is not None:
        values |= {**common.openmp(threads), "THINKREC_THREADS": str(threads)}
    options = [
        *("--bundle", BUNDLE_FOLDER),
        *("--base-model", BASE_MODEL_FOLDER),
        *("--work-dir", "/scratch/serve"),
        *("--host", "0.0.0.0", "--triton-host", "0.0.0.0"),  # noqa: S104 - reached through the pod's own address
        *("--gateway-port", str(BUNDLED_GATEWAY_PORT if replaced else HTTP_PORT)),
        *("--http-port", str(TRITON_HTTP_PORT), "--grpc-port", str(TRITON_GRPC_PORT)),
        *("--metrics-port", str(TRITON_METRICS_PORT), "--engine-metrics-port", str(ENGINE_METRICS_PORT)),
        *("--startup-seconds", str(PROGRESS_DEADLINE_SECONDS)),
        "--log-to-stderr",
    ]
    return common.without_empty(
        {
            "name": CONTAINER,
            "image": child.image,
            "command": ["python", "-m", "thinkrec_inference", "serve", *options],
            "env": common.environment(values),
            "envFrom": [{"configMapRef": {"name": child.config_map}}],
            "ports": _ports({**PORTS, "bundled": BUNDLED_GATEWAY_PORT} if replaced else PORTS, but="http" * replaced),
            "resources": common.resources(child.serving.resources),
            "securityContext": common.container_security(),
            "terminationMessagePolicy": "FallbackToLogsOnError",
            **_life("bundled" if replaced else "http"),
            "volumeMounts": [
                {"name": "models", "mountPath": MODELS, "readOnly": True},
                {"name": "scratch", "mountPath": "/scratch"},
                {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - Triton's shared memory, an emptyDir
                {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - an emptyDir
                *event_log.traffic_mounts(child),
            ],
        }
    )


def _gateway(child: DeploymentChild) -> Manifest:
    """Return the user's own gateway: it reads the same bundle and asks the Triton of its own pod."""
    values = {
        "HOME": "/scratch",
        "TMPDIR": "/scratch",
        "THINKREC_BUNDLE_DIR": BUNDLE_FOLDER,
        "THINKREC_EVENTS_DIR": event_log.folder(child),
        "THINKREC_GATEWAY_HOST": "0.0.0.0",  # noqa: S104 - reached through the pod's own address
        "THINKREC_GATEWAY_PORT": str(HTTP_PORT),
        "THINKREC_TRITON_GRPC": f"127.0.0.1:{TRITON_GRPC_PORT}",
        **event_log.traffic_environment(child),
    }
    return common.without_empty(
        {
            "name": "gateway",
            "image": child.serving.gateway_image,
            "command": ["python", "-m", "thinkrec_inference", "gateway"],
            "env": common.environment(values),
            "envFrom": [{"configMapRef": {"name": child.config_map}}],
            "ports": _ports({"http": HTTP_PORT}),
            "securityContext": common.container_security(),
            **_life("http"),
            "volumeMounts": [
                {"name": "models", "mountPath": MODELS, "readOnly": True},
                {"name": "scratch", "mountPath": "/scratch"},
                *event_log.traffic_mounts(child),
            ],
        }
    )


def _ports(ports: Mapping[str, int], *, but: str = "") -> list[Manifest]:
    return [{"name": name, "containerPort": ports[name], "protocol": "TCP"} for name in ports if name != but]


def _life(port: str) -> Manifest:
    """Return the probes of a container that answers on this port, and its last seconds."""

    def probe(path: str, period: int, failures: int) -> Manifest:
        return {
            "httpGet": {"path": path, "port": port},
            "periodSeconds": period,
            "timeoutSeconds": PROBE_SECONDS,
            "failureThreshold": failures,
        }

    return {
        "startupProbe": probe("/readyz", 5, PROGRESS_DEADLINE_SECONDS // 5),
        "readinessProbe": probe("/readyz", 5, 3),
        "livenessProbe": probe("/healthz", 20, 3),
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_SECONDS}}},
    }
