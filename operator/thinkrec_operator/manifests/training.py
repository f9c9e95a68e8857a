# SPDX-License-Identifier: Apache-2.0
"""Stage ConfigMap and stage Job. Pure.

One Pod at a time today; sharded stages and several nodes become Indexed Jobs at the place marked `completions`.
"""

from __future__ import annotations

from typing import Any

from thinkrec_crds import group
from thinkrec_crds.artifact import ExitCode
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_operator.manifests import common
from thinkrec_operator.manifests.common import Manifest
from thinkrec_operator.manifests.quantities import cpu_threads
from thinkrec_operator.plan import ConfigMapChild, JobChild
from thinkrec_operator.work import FINAL_EXIT_CODES

STAGE_FOLDER = "/etc/thinkrec"
CONTAINER = "stage"
TERMINATION_PATH = "/dev/termination-log"
ANNOTATION_GENERATION = f"{group.GROUP}/generation"
"""Generation of the model that a Job was created for; with the retrain token it decides whether a failure is final."""
ANNOTATION_STAGE_KEY = f"{group.GROUP}/key"
"""The whole key of a Job's stage."""


def config_map(child: ConfigMapChild) -> Manifest:
    """Return the immutable ConfigMap with a stage spec or the serving settings."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": common.metadata(child.owner, child.name, child.component),
        "immutable": True,
        "data": dict(child.data),
    }


def job(child: JobChild) -> Manifest:
    """Return the Job of one stage."""
    settings = child.settings
    extra = _labels(child)
    spec: Manifest = {
        "completions": 1,
        "parallelism": 1,
        "backoffLimit": settings.backoff_limit,
        "ttlSecondsAfterFinished": settings.ttl_seconds_after_finished,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": _failure_policy(),
        "template": _template(child, extra),
    }
    if settings.active_deadline_seconds is not None:
        spec["activeDeadlineSeconds"] = settings.active_deadline_seconds
    queue = {group.LABEL_KUEUE_QUEUE: settings.queue_name} if settings.queue_name else {}
    annotations = {ANNOTATION_GENERATION: str(child.owner.generation), ANNOTATION_STAGE_KEY: child.stage.key}
    if child.owner.retrain:
        annotations[group.ANNOTATION_RETRAIN_REQUESTED] = child.owner.retrain
    if child.owner.scheduled:
        annotations[group.ANNOTATION_SCHEDULED_FOR] = child.owner.scheduled
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": common.metadata(
            child.owner, child.name, "training", extra={**extra, **queue}, annotations=annotations
        ),
        "spec": spec,
    }


def _labels(child: JobChild) -> dict[str, str]:
    found = {group.LABEL_STAGE: child.stage.kind.value, group.LABEL_STAGE_KEY: child.stage.key}
    if child.stage.kind is StageKind.EXPERT:
        found[group.LABEL_EXPERT] = child.title
    return found


def _failure_policy() -> Manifest:
    """Return what a Pod's end means: 2 and 64 end the Job; disruptions and a stop after a checkpoint cost no retry."""

    def on_exit(action: str, *values: ExitCode) -> Manifest:
        codes = {"containerName": CONTAINER, "operator": "In", "values": [code.value for code in values]}
        return {"action": action, "onExitCodes": codes}

    disrupted = {"type": "DisruptionTarget", "status": "True"}
    return {
        "rules": [
            on_exit("FailJob", *FINAL_EXIT_CODES),
            {"action": "Ignore", "onPodConditions": [disrupted]},
            on_exit("Ignore", ExitCode.INTERRUPTED),
        ]
    }


def _template(child: JobChild, extra: dict[str, str]) -> Manifest:
    settings, override = child.settings, child.settings.pod_template
    pod: Manifest = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": settings.service_account_name is not None,
        "securityContext": common.pod_security(),
        "terminationGracePeriodSeconds": settings.termination_grace_period_seconds,
        "containers": [_container(child)],
        "volumes": [
            {"name": "stage", "configMap": {"name": child.config_map}},
            {"name": "scratch", "emptyDir": {}},
        ],
        "serviceAccountName": settings.service_account_name,
        "priorityClassName": settings.priority_class_name,
        "nodeSelector": dict(settings.node_selector),
        "tolerations": common.tolerations(settings.tolerations),
    }
    template: Manifest = {
        "metadata": {"labels": common.labels(child.owner, "training", extra)},
        "spec": common.without_empty(pod),
    }
    if override is None:
        return template
    wish: dict[str, Any] = override.model_dump(mode="json", by_alias=True, exclude_none=True)
    return common.merged(template, common.without_empty(wish))


def _container(child: JobChild) -> Manifest:
    settings = child.settings
    threads = cpu_threads(settings.resources)
    values = {"HOME": "/scratch", "TMPDIR": "/scratch", "THINKREC_TERMINATION_PATH": TERMINATION_PATH}
    if threads is not None:
        values |= common.openmp(threads)
    return common.without_empty(
        {
            "name": CONTAINER,
            "image": settings.image,
            "command": ["python", "-m", "thinkrec_trainer", "run", f"{STAGE_FOLDER}/stage.json"],
            "args": list(settings.args),
            "env": common.environment(values),
            "envFrom": common.secret_environment(settings.secrets),
            "resources": common.resources(settings.resources),
            "securityContext": common.container_security(),
            "terminationMessagePath": TERMINATION_PATH,
            "terminationMessagePolicy": "File",
            "volumeMounts": [
                {"name": "stage", "mountPath": STAGE_FOLDER, "readOnly": True},
                {"name": "scratch", "mountPath": "/scratch"},
            ],
        }
    )
