# SPDX-License-Identifier: Apache-2.0
"""`training.backend` with the real controllers of JobSet and Kubeflow Trainer and their webhooks; containers pretend.

That a JobSet's webhook or a TrainJob's was asked shows in what each adds to our objects.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from embedded_cluster.api import ApiError
from support.kube import fresh_namespace
from support.models import condition
from support.pretend_kubelet import Outcome
from support.pretend_stages import failed
from support.scene import SECONDS, Scene, opened, stage
from support.training_controllers import RUNTIMES, kubeflows_own, running, runtime_without_retries
from support.waiting import wait_for

Body = dict[str, Any]
JOB_SET, TRAIN_JOB = ("jobsets", "jobset.x-k8s.io/v1alpha2"), ("trainjobs", "trainer.kubeflow.org/v1alpha1")
BAD_INPUT = "the rating column is missing"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One operator of the whole cluster, for all tests: its start takes longer than most of them."""
    folder = tmp_path_factory.mktemp("training-controllers")
    with running(folder) as cluster, opened(cluster, "", folder, resync_seconds="5") as found:
        yield found


@pytest.fixture
def scene(shared: Scene) -> Iterator[Scene]:
    """A namespace of that operator in which stages succeed at once until a test says otherwise."""
    shared.stages.failing, shared.stages.delay_seconds, shared.kubelet.outcome = {}, 0.0, shared.stages
    for namespace in fresh_namespace(shared.api):
        yield replace(shared, namespace=namespace)


def job_sets(**training: Any) -> Body:
    return {"backend": "JobSet", **training}


def train_jobs(scene: Scene) -> Body:
    """Return settings that name a new runtime of the namespace, which tries everything once."""
    scene.api.create(f"{RUNTIMES}/namespaces/{scene.namespace}/trainingruntimes", runtime_without_retries("stages"))
    return {"backend": "TrainJob", "runtimeRef": {"kind": "TrainingRuntime", "name": "stages"}}


def only(scene: Scene, kind: tuple[str, str], name: str) -> Body:
    """Return the object that runs a stage; a stage has one."""
    (found,) = [body for body in scene.items(*kind) if body["metadata"]["labels"]["thinkrec.io/stage"] == name]
    return found


def pods_of(scene: Scene, name: str) -> list[Body]:
    return [pod for pod in scene.items("pods") if pod["metadata"]["labels"].get("thinkrec.io/stage") == name]


def stage_job(scene: Scene, name: str) -> str:
    return str(stage(scene.api.get(scene.path), name)["jobName"])


def is_gone(scene: Scene, kind: tuple[str, str], name: str) -> bool:
    """Return whether neither an object of that name is left nor one that was made of it."""
    return not [body for body in scene.items(*kind) if body["metadata"]["name"].startswith(name)]


def is_refused(scene: Scene) -> bool:
    """Return whether the API server no longer knows runtimePatches."""
    body = {
        "apiVersion": TRAIN_JOB[1],
        "kind": "TrainJob",
        "metadata": {"name": "probe"},
        "spec": {"runtimeRef": {"name": "none"}, "runtimePatches": []},
    }
    try:
        path = f"/apis/{TRAIN_JOB[1]}/namespaces/{scene.namespace}/trainjobs"
        scene.api.create(path, body, fieldValidation="Strict", dryRun="All")
    except ApiError as error:
        return "unknown field" in str(error)
    return False


def variable(pod: Body, name: str) -> str:
    (found,) = [item["value"] for item in pod["spec"]["containers"][0]["env"] if item["name"] == name]
    return str(found)


def finds_its_master(pods: list[Body]) -> bool:
    """Return whether the address of the first pod that each is told is that pod's name in the JobSet's network."""
    first = next(pod for pod in pods if pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] == "0")
    address = f"{first['spec']['hostname']}.{first['spec']['subdomain']}"
    return {variable(pod, "PET_MASTER_ADDR") for pod in pods} == {address}


class TestJobSet:
    def test_a_model_is_trained_in_pairs_of_pods_and_served(self, scene: Scene) -> None:
        scene.apply(training=job_sets(nodes=2, parallelism=2))
        scene.wait_ready()
        sets = scene.items(*JOB_SET)
        assert {body["status"]["terminalState"] for body in sets} == {"Completed"}
        assert {body["metadata"]["generation"] for body in sets} == {1}, "a resync wrote what was there already"
        assert {body["spec"]["successPolicy"]["operator"] for body in sets} == {"All"}, "its webhook was not asked"
        jobs = {job["metadata"]["ownerReferences"][0]["name"] for job in scene.items(*("jobs", "batch/v1"))}
        assert jobs == {body["metadata"]["name"] for body in sets}
        assert len(jobs) == 11
        adapter = pods_of(scene, "adapter")
        assert [len(adapter), len(pods_of(scene, "traces")), len(pods_of(scene, "gate"))] == [2, 2, 1]
        assert finds_its_master(adapter)
        network = scene.api.get(f"/api/v1/namespaces/{scene.namespace}/services/{adapter[0]['spec']['subdomain']}")
        assert network["spec"]["clusterIP"] == "None"
        assert network["spec"]["publishNotReadyAddresses"] is True

    def test_bad_input_ends_it_at_once_with_the_stages_own_words(self, scene: Scene) -> None:
        scene.stages.failing["dataset"] = [failed(64, BAD_INPUT)]
        scene.apply(training=job_sets())
        scene.wait_stage("dataset", "Failed")
        model = scene.api.get(scene.path)
        assert condition(model, "Stalled", "reason") == "DatasetInvalid"
        assert BAD_INPUT in condition(model, "Stalled", "message")
        assert scene.ran_once()
        assert only(scene, JOB_SET, "dataset")["status"]["restarts"] == 0

    def test_a_crash_starts_all_its_pods_again(self, scene: Scene) -> None:
        scene.stages.failing["adapter"] = [failed(137)]
        scene.apply(training=job_sets(nodes=2))
        scene.wait_stage("adapter")
        found = only(scene, JOB_SET, "adapter")
        assert found["status"]["restarts"] == 1
        key = found["metadata"]["labels"]["thinkrec.io/stage-key"]
        # Both of the second run, and of the first one the Pod that failed: the other may have ended before it began.
        assert scene.stages.started[f"{scene.namespace}/{key}"] in (3, 4)
        # Where the other Pod of the first run published before it was ended, the second run is still on its way.
        assert len(pods_of(scene, "adapter")) in (1, 2)

    def test_too_many_crashes_are_told_and_a_retrain_starts_afresh(self, scene: Scene) -> None:
        scene.stages.failing["dataset"] = [failed(1, "disk is on fire"), failed(1, "disk is on fire")]
        scene.apply(training=job_sets(backoffLimit=1))
        scene.wait_stage("dataset", "Failed")
        model = scene.api.get(scene.path)
        assert stage(model, "dataset")["reason"] == "BackoffLimitExceeded"
        assert "disk is on fire" in condition(model, "Stalled", "message")
        assert stage(model, "dataset")["attempts"] == 2
        scene.api.patch(scene.path, {"metadata": {"annotations": {"thinkrec.io/retrainRequestedAt": "now"}}})
        scene.wait_stage("dataset")

    def test_memory_that_ran_out_is_named(self, scene: Scene) -> None:
        scene.stages.failing["dataset"] = [failed(137, reason="OOMKilled")]
        scene.apply(training=job_sets(backoffLimit=0))
        scene.wait_stage("dataset", "Failed")
        assert stage(scene.api.get(scene.path), "dataset")["reason"] == "OOMKilled"

    def test_a_deadline_is_named(self, scene: Scene) -> None:
        scene.stages.delay_seconds = 60
        scene.apply(training=job_sets(activeDeadlineSeconds=1))
        scene.wait_stage("dataset", "Failed")
        model = scene.api.get(scene.path)
        assert stage(model, "dataset")["reason"] == "DeadlineExceeded"
        assert "deadline passed" in condition(model, "Stalled", "message")

    def test_what_holds_it_back_is_named_until_it_goes_on(self, scene: Scene) -> None:
        scene.stages.delay_seconds = 60
        scene.apply(training=job_sets())
        scene.wait_stage("dataset", "Running")
        path = f"/apis/{JOB_SET[1]}/namespaces/{scene.namespace}/jobsets/{stage_job(scene, 'dataset')}"
        scene.api.patch(path, {"spec": {"suspend": True}})
        scene.wait(lambda model: stage(model, "dataset").get("reason") == "Suspended", "the suspension to be told")
        scene.stages.delay_seconds = 0
        scene.api.patch(path, {"spec": {"suspend": False}})
        scene.wait_stage("dataset")

    def test_what_is_no_longer_asked_for_goes_with_all_that_it_made(self, scene: Scene) -> None:
        scene.stages.delay_seconds = 60
        scene.apply(training=job_sets())
        scene.wait_stage("dataset", "Running")
        before = stage_job(scene, "dataset")
        scene.patch(dataset={"revision": "2"})
        scene.wait(lambda model: stage(model, "dataset").get("jobName") != before, "another JobSet")
        for kind in (JOB_SET, ("jobs", "batch/v1"), ("pods", "")):
            wait_for(partial(is_gone, scene, kind, before), f"{kind[0]} of {before} to go", seconds=SECONDS)

    def test_its_time_to_live_may_pass_before_the_model_is_ready(self, scene: Scene) -> None:
        scene.apply(training=job_sets(ttlSecondsAfterFinished=0))
        scene.wait_stage("collaborative")
        gone = stage_job(scene, "dataset")
        path = f"/apis/{JOB_SET[1]}/namespaces/{scene.namespace}/jobsets/{gone}"
        wait_for(lambda: scene.api.find(path) is None, f"{gone} to go", seconds=SECONDS)
        assert scene.ran_once()


class TestTrainJob:
    def test_a_model_is_trained_through_kubeflows_own_runtime_and_served(self, scene: Scene) -> None:
        scene.api.create(f"{RUNTIMES}/clustertrainingruntimes", kubeflows_own("torch-distributed"))
        training = {"backend": "TrainJob", "runtimeRef": {"name": "torch-distributed"}, "nodes": 2, "parallelism": 2}
        scene.apply(training=training)
        scene.wait_ready()
        jobs = scene.items(*TRAIN_JOB)
        assert {item["type"] for job in jobs for item in job["status"]["conditions"]} == {"Complete"}
        assert {job["metadata"]["generation"] for job in jobs} == {1}, "a resync wrote what was there already"
        assert all(job["spec"]["runtimePatches"][0]["time"] for job in jobs), "its webhook was not asked"
        assert len(jobs) == 11
        adapter = pods_of(scene, "adapter")
        assert [len(adapter), len(pods_of(scene, "traces")), len(pods_of(scene, "gate"))] == [2, 2, 1]
        assert finds_its_master(adapter)
        assert variable(adapter[0], "PET_NNODES") == "2"

    def test_its_pods_are_what_a_job_would_make(self, scene: Scene) -> None:
        scene.stages.delay_seconds = 60
        resources = {"limits": {"cpu": 2, "memory": "1Gi"}}
        nodes = {"kubernetes.io/os": "linux"}
        scene.apply(training={**train_jobs(scene), "resources": resources, "nodeSelector": nodes})
        scene.wait_stage("dataset", "Running")
        (pod,) = pods_of(scene, "dataset")
        container = pod["spec"]["containers"][0]
        assert container["command"] == ["python", "-m", "thinkrec_trainer", "run", "/etc/thinkrec/stage.json"]
        assert container["resources"]["limits"] == {"cpu": "2", "memory": "1Gi"}
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        assert pod["spec"]["nodeSelector"] == nodes
        assert {"/etc/thinkrec", "/scratch"} <= {mount["mountPath"] for mount in container["volumeMounts"]}
        (files,) = [volume["configMap"]["name"] for volume in pod["spec"]["volumes"] if volume["name"] == "stage"]
        key = json.loads(
            scene.api.get(f"/api/v1/namespaces/{scene.namespace}/configmaps/{files}")["data"]["stage.json"]
        )
        assert key["key"] == pod["metadata"]["labels"]["thinkrec.io/stage-key"]

    def test_its_progress_is_read(self, scene: Scene) -> None:
        def half(pod: Body) -> Outcome:
            labels = pod["metadata"]["labels"]
            line = {"stage": "dataset", "key": labels["thinkrec.io/stage-key"], "step": 1, "total": 2}
            return Outcome(exit_code=None, log=json.dumps({"event": "progress", **line}) + "\n")

        scene.kubelet.outcome = half
        scene.apply(training=train_jobs(scene))
        scene.wait(lambda model: stage(model, "dataset").get("progressPercent") == 50, "the progress of the stage")

    def test_bad_input_is_told_in_the_stages_own_words(self, scene: Scene) -> None:
        scene.stages.failing["dataset"] = [failed(64, BAD_INPUT)]
        scene.apply(training=train_jobs(scene))
        scene.wait_stage("dataset", "Failed")
        model = scene.api.get(scene.path)
        assert condition(model, "Stalled", "reason") == "DatasetInvalid"
        assert BAD_INPUT in condition(model, "Stalled", "message")

    def test_a_crash_is_told(self, scene: Scene) -> None:
        scene.stages.failing["dataset"] = [failed(1, "disk is on fire")]
        scene.apply(training=train_jobs(scene))
        scene.wait_stage("dataset", "Failed")
        model = scene.api.get(scene.path)
        assert stage(model, "dataset")["reason"] == "BackoffLimitExceeded"
        assert "disk is on fire" in condition(model, "Stalled", "message")

    def test_a_deadline_is_named(self, scene: Scene) -> None:
        scene.stages.delay_seconds = 60
        scene.apply(training={**train_jobs(scene), "activeDeadlineSeconds": 1})
        scene.wait_stage("dataset", "Failed")
        assert stage(scene.api.get(scene.path), "dataset")["reason"] == "DeadlineExceeded"

    def test_a_runtime_that_is_not_there_is_named(self, scene: Scene) -> None:
        scene.apply(training={"backend": "TrainJob", "runtimeRef": {"name": "torch-distributd"}})
        scene.wait(lambda model: condition(model, "Stalled", "reason") == "ChildRefused", "the refusal")
        assert "torch-distributd" in condition(scene.api.get(scene.path), "Stalled", "message")

    def test_a_trainer_that_is_too_old_for_our_fields_is_named(self, scene: Scene) -> None:
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/trainjobs.trainer.kubeflow.org"
        versions = scene.api.get(path)["spec"]["versions"]
        older = deepcopy(versions)
        del older[0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["runtimePatches"]
        training = train_jobs(scene)
        scene.api.patch(path, {"spec": {"versions": older}})
        try:
            wait_for(partial(is_refused, scene), "the older definition to be served", seconds=SECONDS)
            scene.apply(training=training)
            scene.wait(lambda model: condition(model, "Stalled", "reason") == "ChildRefused", "the refusal")
            assert "runtimePatches" in condition(scene.api.get(scene.path), "Stalled", "message")
        finally:
            scene.api.patch(path, {"spec": {"versions": versions}})
