# SPDX-License-Identifier: Apache-2.0
"""A stage as Kubeflow TrainJob: its runtime makes the pods, we name image, command and what they mount. Pure.

The runtime must have what Kubeflow's own have: a replicated Job `node` with a container `node`. A TrainJob has no field
for retries, time to live, priority or grace period, and takes no Secret as a whole: those are the runtime's, and of a
Secret the variables below are read one by one.
"""

from __future__ import annotations

from collections.abc import Iterable

from thinkrec_operator.manifests import common, pods
from thinkrec_operator.manifests.common import Manifest
from thinkrec_operator.plan import JobChild, SecretEnvironment

API = "trainer.kubeflow.org/v1alpha1"
NODE = "node"
MANAGER = "thinkrec.io/operator"
TEACHER_VARIABLE = "OPENAI_API_KEY"
SECRET_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "HF_TOKEN",
    TEACHER_VARIABLE,
)
"""What the stages read of a Secret; a key that it does not have is left out."""


def train_job(child: JobChild) -> Manifest:
    """Return the TrainJob of one stage."""
    settings, runtime = child.settings, child.runtime
    assert runtime is not None, "the contract demands a runtime for this backend"
    spec: Manifest = {
        "runtimeRef": {"name": runtime.name, "kind": runtime.kind},
        "trainer": common.without_empty(
            {
                "image": settings.image,
                "command": pods.command(child),
                "args": list(settings.args),
                "env": [*common.environment(pods.environment(child)), *_secrets(settings.secrets)],
                "numNodes": child.layout.pods,
                "numProcPerNode": child.layout.processes,
                "resourcesPerNode": common.resources(settings.resources),
            }
        ),
        "runtimePatches": [{"manager": MANAGER, "trainingRuntimeSpec": {"template": {"spec": _patch(child)}}}],
    }
    if settings.active_deadline_seconds is not None:
        spec["activeDeadlineSeconds"] = settings.active_deadline_seconds
    return {"apiVersion": API, "kind": "TrainJob", "metadata": pods.metadata(child), "spec": spec}


def _patch(child: JobChild) -> Manifest:
    """Return what the runtime's pods get besides: our labels, identity, place, and the files of the stage."""
    settings = child.settings
    ours: Manifest = {
        "serviceAccountName": settings.service_account_name,
        "nodeSelector": dict(settings.node_selector),
        "tolerations": common.tolerations(settings.tolerations, settings.resources),
        "securityContext": common.pod_security(),
        "volumes": pods.volumes(child),
        "containers": [
            {
                "name": pods.CONTAINER,
                "volumeMounts": pods.mounts(child),
                "securityContext": common.container_security(),
            },
        ],
    }
    template = common.overlaid(
        {
            "metadata": {"labels": common.labels(child.owner, "training", pods.labels(child))},
            "spec": common.without_empty(ours),
        },
        settings.pod_template,
    )
    for container in template["spec"]["containers"]:  # `training.podTemplate` knows it by the name that a Job gives it
        container["name"] = NODE if container["name"] == pods.CONTAINER else container["name"]
    return {"replicatedJobs": [{"name": NODE, "template": {"spec": {"template": template}}}]}


def _secrets(secrets: Iterable[SecretEnvironment]) -> list[Manifest]:
    """Return each variable from one Secret: its own from the teacher's, which comes last, others from the first."""
    found: dict[str, Manifest] = {}
    for secret in secrets:
        for key in SECRET_VARIABLES:
            name = f"{secret.prefix}{key}"
            if name not in found or key == TEACHER_VARIABLE:
                reference = {"name": secret.name, "key": key, "optional": True}
                found[name] = {"name": name, "valueFrom": {"secretKeyRef": reference}}
    return [found[name] for name in sorted(found)]
