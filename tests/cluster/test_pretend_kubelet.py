# SPDX-License-Identifier: Apache-2.0
"""The pretended kubelet does to real Jobs and Deployments what a kubelet would."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from embedded_cluster.cluster import Cluster
from support.pretend_kubelet import Outcome, PretendKubelet
from support.waiting import wait_for


@pytest.fixture
def kubelet(control_plane: Cluster) -> Iterator[PretendKubelet]:
    with PretendKubelet(control_plane) as running:
        yield running


def pod_spec(**more: Any) -> dict[str, Any]:
    container = {"name": "main", "image": "none", **more}
    return {"containers": [container], "restartPolicy": "Never", "terminationGracePeriodSeconds": 1}


def create_job(plane: Cluster, namespace: str, name: str, **more: Any) -> str:
    body = {"metadata": {"name": name}, "spec": {"backoffLimit": 0, "template": {"spec": pod_spec(**more)}}}
    plane.api.create(f"/apis/batch/v1/namespaces/{namespace}/jobs", body)
    return f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}"


def finished(plane: Cluster, path: str) -> str:
    conditions = plane.api.get(path)["status"].get("conditions", [])
    return next((c["type"] for c in conditions if c["type"] in ("Complete", "Failed") and c["status"] == "True"), "")


def test_a_job_succeeds_with_the_message_that_the_callback_chose(
    control_plane: Cluster, namespace: str, kubelet: PretendKubelet
) -> None:
    kubelet.outcome = lambda pod: Outcome(message=json.dumps({"key": pod["metadata"]["labels"]["job-name"]}))
    path = create_job(control_plane, namespace, "good")
    assert wait_for(lambda: finished(control_plane, path), "the end of the job") == "Complete"
    [pod] = control_plane.api.items(f"/api/v1/namespaces/{namespace}/pods")
    [status] = pod["status"]["containerStatuses"]
    assert json.loads(status["state"]["terminated"]["message"]) == {"key": "good"}
    assert kubelet.ran == [f"{namespace}/{pod['metadata']['name']}"]


def test_a_job_fails_with_the_exit_code_and_reason(
    control_plane: Cluster, namespace: str, kubelet: PretendKubelet
) -> None:
    kubelet.outcome = lambda pod: Outcome(exit_code=137, reason="OOMKilled", delay_seconds=0.2)
    path = create_job(control_plane, namespace, "bad")
    assert wait_for(lambda: finished(control_plane, path), "the end of the job") == "Failed"
    [pod] = control_plane.api.items(f"/api/v1/namespaces/{namespace}/pods")
    assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["reason"] == "OOMKilled"


def test_a_deployment_becomes_available_and_its_pods_go_when_deleted(
    control_plane: Cluster, namespace: str, kubelet: PretendKubelet
) -> None:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {**pod_spec(), "restartPolicy": "Always"}}
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    control_plane.api.create(path, {"metadata": {"name": "web"}, "spec": spec})
    wait_for(lambda: control_plane.api.get(f"{path}/web")["status"].get("readyReplicas") == 2, "two ready replicas")
    control_plane.api.delete(f"{path}/web", propagationPolicy="Foreground")
    wait_for(lambda: not control_plane.api.items(f"/api/v1/namespaces/{namespace}/pods"), "the pods to go")


def test_logs_of_a_pod_can_be_read_while_it_runs_and_afterwards(
    control_plane: Cluster, namespace: str, kubelet: PretendKubelet
) -> None:
    kubelet.outcome = lambda pod: Outcome(log="first\nsecond\nthird\n", delay_seconds=0.5)
    path = create_job(control_plane, namespace, "talks")
    wait_for(lambda: kubelet.ran, "the pod")
    [pod] = control_plane.api.items(f"/api/v1/namespaces/{namespace}/pods")
    log = f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}/log"
    assert control_plane.api.text(log) == "first\nsecond\nthird\n"
    assert control_plane.api.text(log, tailLines=1) == "third\n"
    assert control_plane.api.text(log, limitBytes=3) == "fir"
    kubelet.set_log(pod, "fourth\n")
    wait_for(lambda: finished(control_plane, path), "the end of the job")
    assert control_plane.api.text(log) == "fourth\n"


def test_the_real_scheduler_counts_an_extended_resource(
    control_plane: Cluster, namespace: str, kubelet: PretendKubelet
) -> None:
    kubelet.set_capacity(**{"nvidia.com/gpu": "1"})
    resources = {"limits": {"nvidia.com/gpu": "2"}}
    path = create_job(control_plane, namespace, "large", resources=resources)

    def reason() -> str:
        pods = control_plane.api.items(f"/api/v1/namespaces/{namespace}/pods")
        return next((c.get("reason", "") for pod in pods for c in pod["status"].get("conditions", [])), "")

    assert wait_for(reason, "a decision of the scheduler") == "Unschedulable"
    kubelet.set_capacity(**{"nvidia.com/gpu": "2"})
    assert wait_for(lambda: finished(control_plane, path), "the end of the job") == "Complete"


def test_it_goes_on_after_a_restart_of_the_api_server(
    control_plane: Cluster, namespace: str, kubelet: PretendKubelet
) -> None:
    control_plane.restart_apiserver()
    path = create_job(control_plane, namespace, "later")
    assert wait_for(lambda: finished(control_plane, path), "the end of the job") == "Complete"


def test_an_error_of_the_callback_reaches_the_test(control_plane: Cluster, namespace: str) -> None:
    def broken(pod: dict[str, Any]) -> Outcome:
        raise KeyError("no outcome for this pod")

    kubelet = PretendKubelet(control_plane, broken)
    kubelet.__enter__()
    create_job(control_plane, namespace, "odd")
    wait_for(lambda: kubelet.ran, "the pod to be seen")
    with pytest.raises(AssertionError, match="no outcome for this pod"):
        kubelet.__exit__(None, None, None)
