# SPDX-License-Identifier: Apache-2.0
"""The pod of a stage: one container that speaks the stage protocol, whatever kind of object creates it. Pure."""

from __future__ import annotations

from typing import Any

from thinkrec_crds import group, scale_out
from thinkrec_crds.artifact import ExitCode
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_operator.manifests import common
from thinkrec_operator.manifests.common import Manifest
from thinkrec_operator.manifests.quantities import cpu_threads
from thinkrec_operator.plan import JobChild
from thinkrec_operator.work import FINAL_EXIT_CODES

STAGE_FOLDER = "/etc/thinkrec"
CONTAINER = "stage"
TERMINATION_PATH = "/dev/termination-log"
MASTER_PORT = 29_500
ANNOTATION_GENERATION = f"{group.GROUP}/generation"
"""Generation of the model that a Job was created for; with the retrain token it decides whether a failure is final."""
ANNOTATION_STAGE_KEY = f"{group.GROUP}/key"
"""The whole key of a Job's stage."""


def labels(child: JobChild) -> dict[str, str]:
    """Return the labels of a stage's objects beyond those that all children have."""
    found = {group.LABEL_STAGE: child.stage.kind.value, group.LABEL_STAGE_KEY: child.stage.key}
    if child.stage.kind is StageKind.EXPERT:
        found[group.LABEL_EXPERT] = child.title
    return found


def metadata(child: JobChild) -> Manifest:
    """Return the metadata of the object that runs a stage; a queue's label lets Kueue decide when it starts."""
    queue = {group.LABEL_KUEUE_QUEUE: child.settings.queue_name} if child.settings.queue_name else {}
    extra = {**labels(child), **queue}
    return common.metadata(child.owner, child.name, "training", extra=extra, annotations=_annotations(child))


def failure_policy() -> Manifest:
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


def template(child: JobChild, *, subdomain: str | None = None, master: str = "127.0.0.1") -> Manifest:
    """Return the pod template; `subdomain` gives the pods names, `master` is the one of the first pod."""
    found: Manifest = {
        "metadata": {"labels": common.labels(child.owner, "training", labels(child))},
        "spec": common.without_empty({**_pod(child, master), "subdomain": subdomain}),
    }
    return common.overlaid(found, child.settings.pod_template)


def _pod(child: JobChild, master: str) -> Manifest:
    settings = child.settings
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": settings.service_account_name is not None,
        "securityContext": common.pod_security(),
        "terminationGracePeriodSeconds": settings.termination_grace_period_seconds,
        "containers": [_container(child, master)],
        "volumes": volumes(child),
        "serviceAccountName": settings.service_account_name,
        "priorityClassName": settings.priority_class_name,
        "nodeSelector": dict(settings.node_selector),
        "tolerations": common.tolerations(settings.tolerations, settings.resources),
    }


def volumes(child: JobChild) -> list[Manifest]:
    """Return the stage's own ConfigMap, room to write, and shared memory for processes that exchange gradients."""
    found: list[Manifest] = [{"name": "stage", "configMap": {"name": child.config_map}}, SCRATCH_VOLUME]
    if child.layout.processes > 1:  # the usual 64 MiB are too little for NCCL
        found.append({"name": "shm", "emptyDir": {"medium": "Memory"}})
    return found


def mounts(child: JobChild) -> list[Manifest]:
    """Return where the stage's process finds them."""
    shm = {"name": "shm", "mountPath": "/dev/shm"}  # noqa: S108 - an emptyDir
    return [*OWN_MOUNTS, *([shm] if child.layout.processes > 1 else [])]


SCRATCH_VOLUME: Manifest = {"name": "scratch", "emptyDir": {}}
OWN_MOUNTS: list[Manifest] = [
    {"name": "stage", "mountPath": STAGE_FOLDER, "readOnly": True},
    {"name": "scratch", "mountPath": "/scratch"},
]


def _container(child: JobChild, master: str) -> Manifest:
    settings = child.settings
    return common.without_empty(
        {
            "name": CONTAINER,
            "image": settings.image,
            "command": command(child),
            "args": list(settings.args),
            "env": common.environment(environment(child) | _together(child, master)),
            "envFrom": common.secret_environment(settings.secrets),
            "resources": common.resources(settings.resources),
            "securityContext": common.container_security(),
            "terminationMessagePath": TERMINATION_PATH,
            "terminationMessagePolicy": "File",
            "volumeMounts": mounts(child),
        }
    )


def command(child: JobChild) -> list[str]:
    """Return what the container runs: several processes that train together are started by torchrun."""
    verb = "torchrun" if child.layout.together else "run"
    return ["python", "-m", "thinkrec_trainer", verb, f"{STAGE_FOLDER}/stage.json"]


def environment(child: JobChild) -> dict[str, str]:
    """Return the variables that every backend sets."""
    layout, threads = child.layout, cpu_threads(child.settings.resources)
    values = {"HOME": "/scratch", "TMPDIR": "/scratch", "THINKREC_TERMINATION_PATH": TERMINATION_PATH}
    if threads is not None:
        values |= common.openmp(max(1, threads // layout.processes))
    if layout.shards > 1:
        values[scale_out.SHARD_COUNT_VARIABLE] = str(layout.shards)
    return values


def _together(child: JobChild, master: str) -> dict[str, str]:
    """Return where the processes of one training find each other; the pod's number is set by its Indexed Job."""
    if not child.layout.together:
        return {}
    return {
        scale_out.NODES_VARIABLE: str(child.layout.nodes),
        scale_out.PROCESSES_VARIABLE: str(child.layout.processes),
        scale_out.MASTER_ADDRESS_VARIABLE: master,
        scale_out.MASTER_PORT_VARIABLE: str(MASTER_PORT),
    }


def _annotations(child: JobChild) -> dict[str, Any]:
    """Return what an observation reads back from the object: key, generation, tokens."""
    found = {
        ANNOTATION_GENERATION: str(child.owner.generation),
        ANNOTATION_STAGE_KEY: child.stage.key,
        group.ANNOTATION_RETRAIN_REQUESTED: child.owner.retrain,
        group.ANNOTATION_SCHEDULED_FOR: child.owner.scheduled,
    }
    return common.without_empty(found)
