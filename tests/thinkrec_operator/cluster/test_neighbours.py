# SPDX-License-Identifier: Apache-2.0
"""What others do beside the operator: foreign objects, edited annotations, autoscalers, TTLs, namespaces made again."""

from __future__ import annotations

import time
from pathlib import Path

from embedded_cluster.cluster import Cluster
from support.api_proxy import Fault
from support.models import condition, model_manifest, models_path
from support.pretend_stages import failed
from support.scene import SECONDS, Scene, opened, stage
from support.waiting import wait_for


def test_a_foreign_service_of_the_models_name_is_left_alone(
    control_plane: Cluster, namespace: str, tmp_path: Path
) -> None:
    services = f"/api/v1/namespaces/{namespace}/services"
    theirs = {"metadata": {"name": "movies"}, "spec": {"selector": {"app": "shop"}, "ports": [{"port": 80}]}}
    control_plane.api.create(services, theirs)
    with opened(control_plane, namespace, tmp_path, resync_seconds="5") as scene:
        scene.apply()
        scene.wait(lambda model: condition(model, "Stalled", "reason") == "ChildRefused", "the refusal")
        assert "does not belong to this ThinkRecModel" in condition(scene.api.get(scene.path), "Stalled", "message")
        found = scene.api.get(f"{services}/movies")
        assert found["spec"]["selector"] == {"app": "shop"}
        assert "ownerReferences" not in found["metadata"]
        scene.api.delete(f"{services}/movies")
        scene.wait_ready()


def test_an_annotation_edited_beyond_recognition_hurts_nobody(
    control_plane: Cluster, namespace: str, tmp_path: Path
) -> None:
    with opened(control_plane, namespace, tmp_path, resync_seconds="5") as scene:
        scene.apply()
        scene.wait_stage("dataset")
        name = stage(scene.api.get(scene.path), "dataset")["jobName"]
        scene.api.patch(f"{scene.jobs}/{name}", {"metadata": {"annotations": {"thinkrec.io/generation": "foo"}}})
        scene.wait_ready()
        time.sleep(6)  # a resync reads it too
        assert scene.operator.poll() is None


def test_an_autoscaler_takes_over_the_number_that_is_there(scene: Scene) -> None:
    scene.apply(serving={"replicas": 3})
    scene.wait_ready()
    scaling = {"minReplicas": 1, "maxReplicas": 5, "metrics": [{"name": "PendingRequests", "target": 4}]}
    scene.patch(serving={"replicas": None, "autoscaling": scaling})
    wait_for(lambda: scene.items("horizontalpodautoscalers", "autoscaling/v2"), "the autoscaler", seconds=SECONDS)
    wait_for(lambda: "replicas" not in _ours(scene), "the operator to give the number up", seconds=SECONDS)
    assert scene.api.get(scene.deployment)["spec"]["replicas"] == 3


def _ours(scene: Scene) -> str:
    managers = scene.api.get(scene.deployment)["metadata"]["managedFields"]
    return str(next(entry for entry in managers if entry["manager"] == "thinkrec")["fieldsV1"]["f:spec"].keys())


def test_what_failed_stays_failed_after_its_job_is_gone(scene: Scene) -> None:
    scene.stages.failing["dataset"] = [failed(64, "the rating column is missing")]
    scene.apply(training={"ttlSecondsAfterFinished": 1})
    scene.wait_stage("dataset", "Failed")
    wait_for(lambda: not scene.items("jobs", "batch/v1"), "the Job's TTL to pass", seconds=SECONDS)
    time.sleep(2)
    model = scene.api.get(scene.path)
    assert condition(model, "Stalled", "reason") == "DatasetInvalid"
    assert "rating column" in condition(model, "Stalled", "message")
    assert scene.ran_once()
    scene.api.patch(scene.path, {"metadata": {"annotations": {"thinkrec.io/retrainRequestedAt": "now"}}})
    scene.wait_ready()


def test_a_resync_that_fails_half_way_forgets_nothing(control_plane: Cluster, namespace: str, tmp_path: Path) -> None:
    with opened(control_plane, namespace, tmp_path, resync_seconds="5") as scene:
        scene.stages.delay_seconds = 1
        scene.apply()
        scene.wait_stage("dataset")
        away = Fault(503, times=10_000, matches=lambda method, path: path.endswith(("/jobs?watch", "/pods?watch")))
        broken = Fault(500, times=1, matches=lambda method, path: path.endswith("/deployments"))
        scene.proxy.faults += [away, broken]
        scene.proxy.drop_watches()
        wait_for(lambda: broken.seen == 1, "a resync to fail", seconds=SECONDS)
        wait_for(lambda: away.seen > 0, "a watch to be refused", seconds=SECONDS)
        scene.wait_stage("collaborative")  # told by a LIST alone: both watches are away
        away.times = 0
        scene.wait_ready()
        assert scene.ran_once()


def test_a_namespace_made_again_under_its_name_works_again(
    control_plane: Cluster, namespace: str, tmp_path: Path
) -> None:
    api, path = control_plane.api, f"/api/v1/namespaces/{namespace}"
    with opened(control_plane, namespace, tmp_path, resync_seconds="5") as scene:
        scene.apply(artifacts={"storageUri": "s3://models/movies", "deletionPolicy": "Delete"})
        scene.wait_stage("dataset")
        api.delete(path)
        wait_for(lambda: api.find(path) is None, "the namespace to go", seconds=SECONDS)
        api.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
        wait_for(lambda: api.find(f"{path}/serviceaccounts/default"), "its service account", seconds=SECONDS)
        api.create(models_path(namespace), model_manifest(experts={"count": 2}))
        scene.wait_ready()
