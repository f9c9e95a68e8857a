# SPDX-License-Identifier: Apache-2.0
"""What only the controller can see: told as Stalled with a remedy, once, and tried again when something changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedded_cluster.cluster import Cluster
from support.models import condition, model_manifest, models_path
from support.pretend_stages import failed
from support.scene import Scene, opened, stage
from support.waiting import wait_for

QUIET_SECONDS = 3.0
INVALID_TEMPLATE = {"spec": {"volumes": [{"name": "data", "hostPath": {"path": "/x", "type": "NoSuchType"}}]}}


def stalled(scene: Scene, reason: str) -> str:
    """Wait for the condition and return its message."""
    scene.wait(lambda model: condition(model, "Stalled", "reason") == reason, f"Stalled with {reason}")
    model = scene.api.get(scene.path)
    assert condition(model, "Ready") == "False"
    assert condition(model, "Reconciling") == ""
    return condition(model, "Stalled", "message")


def created(scene: Scene, kind: str) -> list[str]:
    """Return the names of the objects of a kind that the operator made, however it wrote them."""
    made = [write.body for write in scene.proxy.writes if write.status == 201]
    return [body["metadata"]["name"] for body in made if body["kind"] == kind]


def warnings(scene: Scene, reason: str) -> int:
    found = [event for event in scene.items("events") if event["reason"] == reason and event["type"] == "Warning"]
    return sum(event.get("count", 1) for event in found)


def test_a_pod_template_that_the_apiserver_refuses(scene: Scene) -> None:
    scene.apply(training={"podTemplate": INVALID_TEMPLATE})
    message = stalled(scene, "ChildRefused")
    assert "hostPath" in message
    assert "podTemplate" in message
    assert scene.proxy.writes_within(QUIET_SECONDS) == []
    assert [write.status for write in scene.proxy.writes if write.path == scene.jobs] == [422]
    assert warnings(scene, "ChildRefused") == 1
    scene.patch(training={"podTemplate": None})
    scene.wait_ready()


def test_a_quota_that_forbids_jobs(control_plane: Cluster, namespace: str, tmp_path: Path) -> None:
    quotas = f"/api/v1/namespaces/{namespace}/resourcequotas"
    control_plane.api.create(quotas, {"metadata": {"name": "none"}, "spec": {"hard": {"count/jobs.batch": "0"}}})
    with opened(control_plane, namespace, tmp_path, resync_seconds="5") as scene:
        wait_for(lambda: scene.api.get(f"{quotas}/none").get("status", {}).get("hard"), "the quota to be in force")
        scene.apply()
        assert "exceeded quota" in stalled(scene, "ChildRefused")
        control_plane.api.delete(f"{quotas}/none")
        scene.wait_ready()


@pytest.mark.parametrize("backend", ["JobSet", "TrainJob"])
def test_a_backend_that_is_not_installed(scene: Scene, backend: str) -> None:
    runtime = {"runtimeRef": {"name": "torch"}} if backend == "TrainJob" else {}
    scene.apply(training={"backend": backend, **runtime})
    assert "Install" in stalled(scene, "BackendNotInstalled")
    assert scene.proxy.writes_within(QUIET_SECONDS) == []
    scene.patch(training={"backend": "Job", "runtimeRef": None})
    scene.wait_ready()


def test_a_relative_address(scene: Scene) -> None:
    scene.apply(artifacts={"storageUri": "file:here"})
    assert "spec.artifacts.storageUri" in stalled(scene, "LocalUriNotSupported")
    assert scene.items("jobs", "batch/v1") == []


def test_bad_data_is_not_tried_again_until_the_spec_changes(scene: Scene) -> None:
    scene.stages.failing["dataset"] = [failed(64, "column `rating` is missing; set `columns.rating`")]
    scene.apply()
    assert "column `rating` is missing" in stalled(scene, "DatasetInvalid")
    assert scene.proxy.writes_within(QUIET_SECONDS) == []
    assert scene.ran_once()
    scene.patch(dataset={"columns": {"rating": "stars"}})
    scene.wait_ready()


def test_a_stage_that_runs_out_of_memory_is_named(scene: Scene) -> None:
    scene.stages.failing["adapter"] = [failed(137, reason="OOMKilled")] * 2
    scene.apply(training={"backoffLimit": 0})
    stalled(scene, "TrainingFailed")
    model = scene.api.get(scene.path)
    assert stage(model, "adapter")["reason"] == "OOMKilled"
    assert condition(model, "TrainingSucceeded", "reason") == "OOMKilled"


def test_a_pin_to_a_revision_that_does_not_exist(scene: Scene) -> None:
    scene.apply()
    scene.wait_ready()
    scene.patch(serving={"revision": "movies-0000000000"})
    assert "movies-0000000000" in stalled(scene, "RevisionNotFound")
    assert condition(scene.api.get(scene.path), "Available") == "True"
    scene.patch(serving={"revision": None})
    scene.wait_ready()


def test_deletion_leaves_nothing_and_creates_nothing(scene: Scene) -> None:
    scene.stages.delay_seconds = 30
    scene.apply()
    scene.wait_stage("dataset", "Running")
    scene.api.delete(scene.path)
    wait_for(lambda: scene.api.find(scene.path) is None, "the model to go")
    wait_for(lambda: not scene.items("jobs", "batch/v1"), "its Jobs to go", seconds=60)
    assert len(created(scene, "Job")) == 1


def test_artifacts_are_cleaned_up_before_the_model_goes(scene: Scene) -> None:
    scene.apply(artifacts={"storageUri": "s3://models/movies", "deletionPolicy": "Delete"})
    scene.wait_ready()
    assert scene.api.get(scene.path)["metadata"]["finalizers"] == ["thinkrec.io/artifact-cleanup"]
    scene.api.delete(scene.path)
    wait_for(lambda: scene.api.find(scene.path) is None, "the model to go", seconds=60)
    assert len([name for name in created(scene, "Job") if name.startswith("movies-clean")]) == 1
    told = [event["reason"] for event in scene.items("events")]
    assert "ArtifactsDeleted" in told


def test_a_namespace_that_is_deleted_takes_the_finalizer_with_it(scene: Scene, control_plane: Cluster) -> None:
    scene.apply(artifacts={"storageUri": "s3://models/movies", "deletionPolicy": "Delete"})
    scene.wait_stage("dataset")
    control_plane.api.delete(f"/api/v1/namespaces/{scene.namespace}")
    wait_for(lambda: scene.api.find(scene.path) is None, "the model to go", seconds=60)


def test_a_model_made_again_under_its_name_is_trained_anew(scene: Scene) -> None:
    scene.apply()
    scene.wait_stage("dataset")
    scene.api.delete(scene.path)
    scene.api.create(models_path(scene.namespace), model_manifest(experts={"count": 2}))
    scene.wait_ready()
    uid = scene.api.get(scene.path)["metadata"]["uid"]
    owners = {ref["uid"] for job in scene.items("jobs", "batch/v1") for ref in job["metadata"]["ownerReferences"]}
    assert owners == {uid}
