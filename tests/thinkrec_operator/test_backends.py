# SPDX-License-Identifier: Apache-2.0
"""How a stage is spread out: shards, several nodes, several GPUs; as Job, JobSet and TrainJob; and their absence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from support.model_world import World
from thinkrec_crds.scale_out import DISTRIBUTED_KINDS, SHARDED_KINDS
from thinkrec_operator.manifests import render
from thinkrec_operator.manifests.quantities import gpus
from thinkrec_operator.observed import ChildRef, Settings
from thinkrec_operator.plan import ChildKind, Deletion, JobChild, PeersServiceChild

OPTIONAL = frozenset({"JobSet", "TrainJob"})
TRAIN_JOB = {"backend": "TrainJob", "runtimeRef": {"name": "torch-distributed"}}

# Fields that the published definitions of the kinds admit where we write (JobSet v1alpha2, TrainJob v1alpha1).
JOB_SET_FIELDS = {
    *("replicatedJobs", "network", "successPolicy", "failurePolicy", "startupPolicy", "suspend", "coordinator"),
    *("managedBy", "ttlSecondsAfterFinished", "volumeClaimPolicies"),
}
TRAIN_JOB_FIELDS = {
    *("runtimeRef", "initializer", "trainer", "runtimePatches", "suspend", "activeDeadlineSeconds", "managedBy"),
}
TRAINER_FIELDS = {"image", "command", "args", "env", "numNodes", "resourcesPerNode", "numProcPerNode"}
POD_PATCH_FIELDS = {
    *("serviceAccountName", "volumes", "initContainers", "containers", "imagePullSecrets", "securityContext"),
    *("nodeSelector", "affinity", "tolerations", "schedulingGates"),
}
CONTAINER_PATCH_FIELDS = {"name", "env", "volumeMounts", "securityContext"}


def run(training: dict[str, Any], *, kinds: frozenset[str] = OPTIONAL) -> tuple[World, dict[str, JobChild]]:
    """Return the world after a whole run, and each stage's Job."""
    world = World(kinds=kinds)
    world.edit({"training": training})
    world.run()
    return world, {child.title: child for child in world.children.values()}


def containers(body: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = body["spec"]["template"]["spec"]["containers"][0]
    return found


def variables(body: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["value"] for item in containers(body)["env"]}


class TestKeys:
    def test_no_key_depends_on_how_the_work_is_spread(self) -> None:
        _, plain = run({})
        for training in (
            {"nodes": 4, "parallelism": 8},
            {"resources": {"limits": {"nvidia.com/gpu": 8}}},
            {"backend": "JobSet"},
            TRAIN_JOB,
        ):
            _, spread = run(training)
            assert {title: child.stage.key for title, child in spread.items()} == {
                title: child.stage.key for title, child in plain.items()
            }


class TestShards:
    def test_sharded_stages_become_indexed_jobs_and_others_stay(self) -> None:
        _, children = run({"parallelism": 4})
        for child in children.values():
            body = render(child)
            sharded = child.stage.kind in SHARDED_KINDS
            assert body["spec"]["completions"] == body["spec"]["parallelism"] == (4 if sharded else 1)
            assert body["spec"].get("completionMode") == ("Indexed" if sharded else None)
            assert variables(body).get("THINKREC_SHARD_COUNT") == ("4" if sharded else None)
            assert containers(body)["command"][3] == "run"

    def test_each_index_has_its_own_retries_and_none_may_be_missing(self) -> None:
        _, children = run({"parallelism": 4, "backoffLimit": 2})
        spec = render(children["traces"])["spec"]
        assert (spec["backoffLimitPerIndex"], spec["maxFailedIndexes"]) == (2, 0)
        assert "backoffLimit" not in spec
        assert render(children["gate"])["spec"]["backoffLimit"] == 2

    def test_one_stage_alone_may_be_spread(self) -> None:
        _, children = run({"stages": [{"name": "evaluate", "parallelism": 3}]})
        assert {title: child.layout.pods for title, child in children.items() if child.layout.pods > 1} == {
            "evaluate": 3
        }


class TestNodes:
    def test_stages_that_train_find_each_other_through_a_headless_service(self) -> None:
        world, children = run({"nodes": 2})
        for child in children.values():
            body = render(child)
            together = child.stage.kind in DISTRIBUTED_KINDS
            assert body["spec"]["completions"] == (2 if together else 1)
            assert containers(body)["command"][3] == ("torchrun" if together else "run")
            if together:
                assert body["spec"]["template"]["spec"]["subdomain"] == "movies-training"
                assert variables(body)["PET_MASTER_ADDR"] == f"{child.name}-0.movies-training"
                assert variables(body)["PET_NNODES"] == "2"
            assert ("PET_NNODES" in variables(body)) == together
        service = render(PeersServiceChild("movies-training", next(iter(children.values())).owner))
        template = render(children["adapter"])["spec"]["template"]
        assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
        assert service["spec"]["clusterIP"] == "None"
        assert service["spec"]["publishNotReadyAddresses"] is True
        assert world.step().deletions == ()

    def test_the_headless_service_goes_when_nothing_needs_it(self) -> None:
        world = World()
        world.edit({"training": {"nodes": 2}})
        seen = False
        for _ in range(20):
            world.step()
            seen = seen or ChildRef("Service", "movies-training") in world.others
            for name in world.active:
                world.succeed(name)
        assert seen
        assert ChildRef("Service", "movies-training") not in world.others
        assert ChildRef("Service", "movies") in world.others

    def test_a_job_keeps_its_service_while_the_spec_goes_back_to_one_node(self) -> None:
        world = World()
        world.edit({"training": {"nodes": 2}})
        while not any(world.children[name].title == "adapter" for name in world.active):
            world.step()
            for name in [name for name in world.active if world.children[name].title != "adapter"]:
                world.succeed(name)
        world.edit({"training": {"nodes": 1}})
        assert Deletion(ChildKind.SERVICE, "movies-training", "") not in [
            replace(deletion, why="") for deletion in world.step().deletions
        ]

    def test_a_pod_has_as_many_processes_as_gpus(self) -> None:
        _, children = run({"resources": {"limits": {"cpu": 16, "nvidia.com/gpu": 8}}})
        body = render(children["expert-0"])
        assert body["spec"]["completions"] == 1
        assert containers(body)["command"][3] == "torchrun"
        assert variables(body)["PET_NPROC_PER_NODE"] == "8"
        assert variables(body)["PET_MASTER_ADDR"] == "127.0.0.1"
        assert variables(body)["OMP_NUM_THREADS"] == "2"
        assert containers(render(children["traces"]))["command"][3] == "run"

    @pytest.mark.parametrize(
        ("limits", "number"),
        [({"nvidia.com/gpu": 8}, 8), ({"amd.com/gpu": "2"}, 2), ({"nvidia.com/mig-1g.10gb": 4}, 0), ({"cpu": 4}, 0)],
    )
    def test_a_slice_of_a_gpu_is_no_gpu_to_share_out(self, limits: dict[str, Any], number: int) -> None:
        world = World()
        world.edit({"training": {"resources": {"limits": limits}}})
        assert gpus(world.observed().model.spec.training.resources) == number

    def test_a_laptop_runs_one_process(self) -> None:
        world = World(settings=Settings(relative_files=True))
        world.edit({"training": {"nodes": 2, "parallelism": 4, "backend": "JobSet"}})
        world.run()
        assert {child.layout.pods for child in world.children.values()} == {1}
        assert {child.backend for child in world.children.values()} == {"Job"}


class TestJobSet:
    def test_only_known_fields_are_written(self) -> None:
        _, children = run({"backend": "JobSet", "nodes": 2, "activeDeadlineSeconds": 60})
        spec = render(children["adapter"])["spec"]
        assert set(spec) <= JOB_SET_FIELDS
        assert set(spec["network"]) <= {"enableDNSHostnames", "subdomain", "publishNotReadyAddresses"}
        assert set(spec["failurePolicy"]) <= {"maxRestarts", "rules", "restartStrategy"}
        assert set(spec["failurePolicy"]["rules"][0]) <= {
            *("name", "action", "onJobFailureReasons", "targetReplicatedJobs")
        }
        assert set(spec["replicatedJobs"][0]) <= {"name", "replicas", "template", "groupName", "dependsOn"}

    def test_a_failure_starts_all_pods_again_and_bad_input_none(self) -> None:
        _, children = run({"backend": "JobSet", "nodes": 2, "backoffLimit": 5})
        spec = render(children["adapter"])["spec"]
        assert spec["failurePolicy"]["maxRestarts"] == 5
        assert spec["failurePolicy"]["rules"][0]["action"] == "FailJobSet"
        assert "PodFailurePolicy" in spec["failurePolicy"]["rules"][0]["onJobFailureReasons"]
        inner = spec["replicatedJobs"][0]["template"]["spec"]
        assert inner["backoffLimit"] == 0
        assert inner["completions"] == 2

    def test_no_service_of_our_own_is_needed(self) -> None:
        world, _ = run({"backend": "JobSet", "nodes": 2})
        assert ChildRef("Service", "movies-training") not in world.others


class TestTrainJob:
    def test_only_known_fields_are_written(self) -> None:
        over = {"spec": {"containers": [{"name": "stage", "volumeMounts": [{"name": "x", "mountPath": "/x"}]}]}}
        _, children = run({**TRAIN_JOB, "nodes": 2, "activeDeadlineSeconds": 60, "podTemplate": over})
        spec = render(children["adapter"])["spec"]
        assert set(spec) <= TRAIN_JOB_FIELDS
        assert set(spec["trainer"]) <= TRAINER_FIELDS
        pod = spec["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0]["template"][
            "spec"
        ]["template"]["spec"]
        assert set(pod) <= POD_PATCH_FIELDS
        assert [container["name"] for container in pod["containers"]] == ["node"]
        assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == {"stage", "scratch", "x"}
        assert all(set(container) <= CONTAINER_PATCH_FIELDS for container in pod["containers"])

    def test_the_runtime_starts_as_many_nodes_as_the_stage_wants(self) -> None:
        _, children = run({**TRAIN_JOB, "nodes": 2, "parallelism": 3})
        numbers = {title: render(child)["spec"]["trainer"]["numNodes"] for title, child in children.items()}
        assert (numbers["adapter"], numbers["traces"], numbers["gate"]) == (2, 3, 1)

    def test_a_teachers_secret_keeps_its_own_variable(self) -> None:
        world = World(kinds=OPTIONAL)
        world.edit(
            {
                "training": TRAIN_JOB,
                "artifacts": {"secretRef": {"name": "store"}},
                "teacher": {
                    "type": "OpenAI",
                    "model": "m",
                    "baseUrl": "https://host/v1",
                    "secretRef": {"name": "teacher"},
                },
            }
        )
        world.run()
        traces = next(child for child in world.children.values() if child.title == "traces")
        told = {
            item["name"]: item["valueFrom"]["secretKeyRef"]["name"]
            for item in render(traces)["spec"]["trainer"]["env"]
            if "valueFrom" in item
        }
        assert told["OPENAI_API_KEY"] == "teacher"
        assert told["AWS_ACCESS_KEY_ID"] == "store"


class TestAbsence:
    @pytest.mark.parametrize("training", [{"backend": "JobSet"}, TRAIN_JOB])
    def test_a_kind_that_the_cluster_does_not_know_stalls(self, training: dict[str, Any]) -> None:
        world = World()
        world.edit({"training": training})
        for _ in range(3):
            assert world.step().jobs == ()
        for kind in ("Stalled", "Ready"):
            found = world.status.condition(kind)
            assert found is not None
            assert found.reason == "BackendNotInstalled"
            assert f"`spec.training.backend` is {training['backend']}" in found.message
            assert "Install JobSet or Kubeflow Trainer" in found.message

    def test_it_goes_on_when_the_kind_appears(self) -> None:
        world = World()
        world.edit({"training": {"backend": "JobSet"}})
        world.step()
        world.step()
        world.kinds = OPTIONAL
        world.run()
        world.step()
        assert {child.backend for child in world.children.values()} == {"JobSet"}
        assert world.status.is_true("Ready")

    def test_a_trained_model_does_not_need_it(self) -> None:
        world = World()
        world.run()
        world.edit({"training": {"backend": "JobSet"}})
        world.step()
        assert world.status.is_true("Ready")

    def test_a_job_at_work_keeps_its_kind_when_the_backend_changes(self) -> None:
        world = World(kinds=OPTIONAL)
        world.step()
        world.edit({"training": {"backend": "JobSet"}})
        assert [job.backend for job in world.step().jobs] == ["Job"]
        world.succeed(world.active[0])
        assert {job.backend for job in world.step().jobs} == {"JobSet"}

    def test_what_is_no_longer_asked_for_is_deleted_by_its_kind(self) -> None:
        world = World(kinds=OPTIONAL)
        world.edit({"training": {"backend": "JobSet"}})
        world.step()
        world.edit({"dataset": {"revision": "2"}})
        assert [d.kind for d in world.step().deletions if d.kind is not ChildKind.CONFIG_MAP] == [ChildKind.JOB_SET]
