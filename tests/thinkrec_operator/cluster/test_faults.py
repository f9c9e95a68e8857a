# SPDX-License-Identifier: Apache-2.0
"""What a cluster does to an operator: each fault in the middle of a run, and the run ends as it should."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from embedded_cluster.cluster import Cluster
from support.api_proxy import Fault
from support.forked_operator import SKEW, ForkedOperator
from support.models import condition, model_manifest, models_path
from support.pretend_kubelet import Outcome, PretendKubelet
from support.pretend_stages import CLEANUP, PretendStages
from support.scene import SECONDS, Scene, opened, stage
from support.waiting import wait_for
from thinkrec_crds.group import LABEL_COMPONENT

Body = dict[str, Any]


def is_write(method: str, path: str) -> bool:
    return method in ("POST", "PATCH", "PUT", "DELETE")


@pytest.mark.parametrize(
    "fault",
    [
        Fault(429, times=5, matches=is_write, retry_after=1, reason="TooManyRequests"),
        Fault(500, times=5, matches=is_write, reason="InternalError"),
        Fault(503, times=5, matches=is_write, reason="ServiceUnavailable"),
        Fault(409, times=5, matches=is_write, reason="Conflict"),
    ],
    ids=lambda fault: str(fault.status),
)
def test_refused_writes_are_made_again(scene: Scene, fault: Fault) -> None:
    scene.proxy.faults.append(fault)
    scene.apply()
    scene.wait_ready()
    assert fault.seen == fault.times
    assert scene.ran_once()


def test_retry_after_is_honoured(scene: Scene) -> None:
    fault = Fault(429, times=1, matches=is_write, retry_after=3, reason="TooManyRequests")
    scene.proxy.faults.append(fault)
    start = time.monotonic()
    scene.apply()
    scene.wait(lambda model: model["status"]["observedGeneration"] == 1, "the first status")
    wait_for(lambda: scene.items("configmaps"), "the first child", seconds=SECONDS)
    wait_for(lambda: scene.items("jobs", "batch/v1"), "the first Job", seconds=SECONDS)
    assert time.monotonic() - start >= 3


def test_dropped_and_expired_watches_are_resumed(scene: Scene) -> None:
    scene.stages.delay_seconds = 0.5
    scene.apply()
    for name in ("dataset", "keywords", "traces"):
        scene.wait_stage(name)
        scene.proxy.drop_watches()
        scene.proxy.expire_watches()
    scene.wait_ready()
    assert scene.ran_once()
    assert scene.operator.poll() is None


def test_a_restart_of_the_apiserver_is_survived(scene: Scene, control_plane: Cluster) -> None:
    scene.apply()
    scene.wait_stage("dataset")
    control_plane.restart_apiserver()
    scene.wait_ready()
    assert scene.ran_once()


def test_deletions_that_a_watch_missed_are_found_by_the_resync(
    control_plane: Cluster, namespace: str, tmp_path: Path
) -> None:
    with opened(control_plane, namespace, tmp_path, resync_seconds="5") as scene:
        scene.apply()
        scene.wait_ready()
        scene.proxy.faults.append(watch_is_away := Fault(503, times=10_000, matches=_watches))
        scene.proxy.drop_watches()
        scene.api.delete(scene.deployment)
        scene.api.delete(f"/api/v1/namespaces/{namespace}/services/movies")
        wait_for(lambda: scene.api.find(scene.deployment), "the Deployment to be made again", seconds=SECONDS)
        wait_for(
            lambda: scene.api.find(f"/api/v1/namespaces/{namespace}/services/movies"),
            "the Service to be made again",
            seconds=SECONDS,
        )
        assert watch_is_away.seen > 0


def _watches(method: str, path: str) -> bool:
    return method == "GET" and path.endswith("/deployments?watch")


def test_a_model_that_goes_after_its_jobs_is_cleaned_up_once(scene: Scene) -> None:
    """What the garbage collector does may be heard of before the end of the model that let it begin."""
    scene.apply()
    scene.wait_ready()
    scene.patch(artifacts={"deletionPolicy": "Delete"})
    scene.wait(lambda model: model["metadata"].get("finalizers"), "the finalizer")
    release = ("PATCH", scene.path)
    scene.proxy.held_answers.add(release)
    scene.proxy.held_watches.add("thinkrecmodels")
    scene.operator.kill()  # it would not hear of the deletion
    scene.api.delete(scene.path)
    scene.operator.start()
    wait_for(lambda: scene.api.find(scene.path) is None, "the model to be let go", seconds=SECONDS)
    wait_for(lambda: not scene.items("jobs", "batch/v1"), "its Jobs to go", seconds=SECONDS)
    time.sleep(1)  # so that the operator has heard of that
    scene.proxy.held_answers.remove(release)
    time.sleep(1)  # so that it has had its time to decide
    assert _cleanups_ordered(scene) == 1
    scene.proxy.held_watches.clear()


def _cleanups_ordered(scene: Scene) -> int:
    ordered = [
        write.body["metadata"] for write in scene.proxy.writes if (write.method, write.path) == ("POST", scene.jobs)
    ]
    return sum(meta["labels"][LABEL_COMPONENT] == CLEANUP for meta in ordered)


def test_a_job_deleted_by_hand_is_made_again(scene: Scene) -> None:
    scene.stages.failing["traces"] = [Outcome(exit_code=None)]
    scene.apply()
    scene.wait_stage("traces", "Running")
    name = stage(scene.api.get(scene.path), "traces")["jobName"]
    before = scene.api.get(f"{scene.jobs}/{name}")["metadata"]["uid"]
    scene.api.delete(f"{scene.jobs}/{name}", propagationPolicy="Background")
    scene.wait_ready()
    assert scene.api.get(f"{scene.jobs}/{name}")["metadata"]["uid"] != before


def test_a_deployment_edited_by_hand_is_repaired(scene: Scene) -> None:
    scene.apply()
    scene.wait_ready()
    wanted = scene.api.get(scene.deployment)["spec"]["template"]["spec"]["containers"][0]["image"]
    edit = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "other:1"}]
    headers = {"Content-Type": "application/json-patch+json"}
    scene.api.request("PATCH", scene.deployment, json=edit, headers=headers)
    wait_for(
        lambda: scene.api.get(scene.deployment)["spec"]["template"]["spec"]["containers"][0]["image"] == wanted,
        "the image to be repaired",
        seconds=SECONDS,
    )
    scene.api.patch(scene.deployment, {"metadata": {"annotations": {"team.example/owner": "us"}}})
    time.sleep(1)
    assert scene.api.get(scene.deployment)["metadata"]["annotations"]["team.example/owner"] == "us"


def test_an_evicted_pod_costs_no_retry(scene: Scene) -> None:
    scene.stages.failing["dataset"] = [Outcome(exit_code=None)]
    scene.apply(training={"backoffLimit": 0})
    scene.wait_stage("dataset", "Running")
    pods = scene.api.items(f"/api/v1/namespaces/{scene.namespace}/pods")
    name = next(pod["metadata"]["name"] for pod in pods if "dataset" in pod["metadata"]["name"])
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": scene.namespace}}
    scene.api.create(f"/api/v1/namespaces/{scene.namespace}/pods/{name}/eviction", eviction)
    scene.wait_ready()


def test_results_whose_pods_are_gone_are_named_again(scene: Scene) -> None:
    """A node that is lost takes the Pods with it; the Job alone cannot say what it published."""
    scene.operator.kill()
    scene.apply()
    process = scene.operator
    process.start()
    scene.wait_stage("dataset")
    process.kill()
    name = stage(scene.api.get(scene.path), "dataset")["jobName"]
    scene.api.request(
        "DELETE",
        f"/api/v1/namespaces/{scene.namespace}/pods",
        params={"labelSelector": f"batch.kubernetes.io/job-name={name}", "gracePeriodSeconds": 0},
    )
    process.start()
    scene.wait_ready()


@pytest.mark.parametrize("skew", [60, -60])
def test_a_wrong_clock_changes_nothing(control_plane: Cluster, namespace: str, tmp_path: Path, skew: int) -> None:
    stages = PretendStages()
    environment = {"THINKREC_NAMESPACES": namespace, SKEW: str(skew)}
    process = ForkedOperator(control_plane.kubeconfig, tmp_path / "operator.log", environment)
    path = f"{models_path(namespace)}/movies"
    with PretendKubelet(control_plane, stages):
        process.start()
        try:
            control_plane.api.create(models_path(namespace), model_manifest(experts={"count": 2}))
            wait_for(
                lambda: condition(control_plane.api.get(path), "Ready") == "True", "the run to end", seconds=SECONDS
            )
        finally:
            process.kill()
            process.wait()
    assert set(stages.started.values()) == {1}


def test_sigterm_ends_the_operator_well_and_soon(scene: Scene) -> None:
    scene.apply()
    scene.wait_stage("dataset")
    start = time.monotonic()
    assert scene.operator.stop() == 0
    assert time.monotonic() - start < 20


def test_no_crd_is_waited_for_with_a_hint(scene: Scene, control_plane: Cluster, tmp_path: Path) -> None:
    missing = Fault(404, times=2, matches=lambda method, path: path.endswith("/thinkrecmodels"), reason="NotFound")
    scene.operator.kill()
    scene.proxy.faults.append(missing)
    scene.operator.start()
    wait_for(lambda: "is the CRD thinkrecmodels.thinkrec.io installed?" in scene.operator.log.read_text(), "the hint")
    assert httpx.get(f"http://127.0.0.1:{scene.operator.health_port}/readyz", trust_env=False).status_code == 503
    scene.apply()
    scene.wait_ready()
