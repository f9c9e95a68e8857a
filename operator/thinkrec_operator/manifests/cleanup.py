# SPDX-License-Identifier: Apache-2.0
"""The Job that removes a deleted model's artifacts. Pure. It carries no stage key: it works on no stage."""

from __future__ import annotations

from thinkrec_crds.clean import CLEAN_FILE
from thinkrec_operator.manifests import common, pods
from thinkrec_operator.manifests.common import Manifest
from thinkrec_operator.plan import CleanupChild

COMPONENT = "cleanup"


def cleanup_job(child: CleanupChild) -> Manifest:
    """Return the Job; `training.podTemplate` counts here too, since the store may be a volume that it mounts."""
    settings = child.settings
    template = {
        "metadata": {"labels": common.labels(child.owner, COMPONENT)},
        "spec": common.without_empty(_pod(child)),
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": common.metadata(child.owner, child.name, COMPONENT),
        "spec": {
            "backoffLimit": settings.backoff_limit,
            "activeDeadlineSeconds": settings.active_deadline_seconds,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": pods.failure_policy(),
            "template": common.overlaid(template, settings.pod_template),
        },
    }


def _pod(child: CleanupChild) -> Manifest:
    settings = child.settings
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": settings.service_account_name is not None,
        "securityContext": common.pod_security(),
        "containers": [_container(child)],
        "volumes": [{"name": "stage", "configMap": {"name": child.config_map}}, pods.SCRATCH_VOLUME],
        "serviceAccountName": settings.service_account_name,
        "priorityClassName": settings.priority_class_name,
        "nodeSelector": dict(settings.node_selector),
        "tolerations": common.tolerations(settings.tolerations, settings.resources),
    }


def _container(child: CleanupChild) -> Manifest:
    values = {"HOME": "/scratch", "TMPDIR": "/scratch", "THINKREC_TERMINATION_PATH": pods.TERMINATION_PATH}
    return common.without_empty(
        {
            "name": pods.CONTAINER,
            "image": child.settings.image,
            "command": ["python", "-m", "thinkrec_trainer", "clean", f"{pods.STAGE_FOLDER}/{CLEAN_FILE}"],
            "env": common.environment(values),
            "envFrom": common.secret_environment(child.settings.secrets),
            "resources": common.resources(child.settings.resources),
            "securityContext": common.container_security(),
            "terminationMessagePath": pods.TERMINATION_PATH,
            "terminationMessagePolicy": "File",
            "volumeMounts": pods.OWN_MOUNTS,
        }
    )
