# SPDX-License-Identifier: Apache-2.0
"""Our side of Kueue's contract: the label on the Job, hands off `suspend`, the Workload's own reason in status.

Kueue itself is not to be had from a package registry; its Workload is a plain definition here, and the test does what
Kueue does to a Job: suspend it, say why, let it go.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from embedded_cluster.cluster import Cluster
from support.models import condition
from support.scene import SECONDS, Scene, opened, stage
from support.waiting import wait_for

GROUP, VERSION = "kueue.x-k8s.io", "v1beta1"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture
def queued(control_plane: Cluster, namespace: str, tmp_path: Path) -> Iterator[Scene]:
    """A scene on a cluster that knows Workloads."""
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": VERSION, "served": True, "storage": True, "schema": schema, "subresources": {"status": {}}}
    names = {"plural": "workloads", "singular": "workload", "kind": "Workload", "listKind": "WorkloadList"}
    name = f"workloads.{GROUP}"
    spec = {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]}
    note = {"api-approved.kubernetes.io": "unapproved, a fixture of tests"}
    control_plane.api.create(DEFINITIONS, {"metadata": {"name": name, "annotations": note}, "spec": spec})
    try:
        wait_for(lambda: control_plane.api.find(f"/apis/{GROUP}/{VERSION}/workloads"), "Workloads to be served")
        with opened(control_plane, namespace, tmp_path) as scene:
            yield scene
    finally:
        control_plane.api.delete(f"{DEFINITIONS}/{name}")


def workload(scene: Scene, job: dict[str, Any], *, admitted: bool) -> None:
    """Write what Kueue says about a Job."""
    path = f"/apis/{GROUP}/{VERSION}/namespaces/{scene.namespace}/workloads"
    name = f"job-{job['metadata']['name']}"
    if scene.api.find(f"{path}/{name}") is None:
        owner = {"apiVersion": "batch/v1", "kind": "Job", "controller": True}
        owner |= {field: job["metadata"][field] for field in ("name", "uid")}
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Workload", "spec": {"queueName": "team"}}
        scene.api.create(path, {**body, "metadata": {"name": name, "ownerReferences": [owner]}})
    reserved = {
        "type": "QuotaReserved",
        "status": str(admitted),
        "reason": "QuotaReserved" if admitted else "NoMatchingFlavor",
        "message": "" if admitted else "insufficient unused quota for nvidia.com/gpu in flavor a100, 8 more needed",
    }
    scene.api.patch(f"{path}/{name}/status", {"status": {"conditions": [reserved]}})


def test_the_queues_own_reason_is_told_and_suspend_is_its_own(queued: Scene) -> None:
    queued.stages.delay_seconds = 60  # so that it is still at work when it is suspended
    queued.apply(training={"queueName": "team"})
    job = wait_for(lambda: next(iter(queued.items("jobs", "batch/v1")), None), "the first Job", seconds=SECONDS)
    path = f"{queued.jobs}/{job['metadata']['name']}"
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    queued.api.patch(path, {"spec": {"suspend": True}})
    workload(queued, job, admitted=False)
    queued.wait(lambda model: condition(model, "Admitted", "reason") == "NoMatchingFlavor", "the queue's reason")
    model = queued.api.get(queued.path)
    assert "8 more needed" in condition(model, "Admitted", "message")
    assert condition(model, "Ready", "reason") == "WaitingForQuota"
    assert stage(model, "dataset")["state"] == "Queued"
    assert queued.api.get(path)["spec"]["suspend"] is True
    queued.stages.delay_seconds = 0
    workload(queued, job, admitted=True)
    queued.api.patch(path, {"spec": {"suspend": False}})
    queued.wait_ready()
    assert condition(queued.api.get(queued.path), "Admitted") == "True"
