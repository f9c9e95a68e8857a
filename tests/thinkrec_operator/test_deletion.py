# SPDX-License-Identifier: Apache-2.0
"""A model that is deleted: its finalizer, the clean-up of the store, its bounds, and what is never touched."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from kubernetes.client import ApiClient

from support.model_world import World
from thinkrec_crds.clean import CleanSpec
from thinkrec_operator.manifests import render
from thinkrec_operator.observed import JobState, Settings
from thinkrec_operator.plan import ChildKind, CleanupChild, ConfigMapChild, Plan

DELETE: dict[str, Any] = {"artifacts": {"deletionPolicy": "Delete", "secretRef": {"name": "store"}}}


def trained(changes: dict[str, Any] = DELETE) -> World:
    world = World()
    world.edit(changes)
    world.run()
    world.step()
    world.events.clear()
    return world


def order_of(plan: Plan) -> CleanSpec:
    config = next(child for child in plan.children if isinstance(child, ConfigMapChild))
    return CleanSpec.from_json(dict(config.data)["clean.json"])


def told(world: World) -> list[tuple[str, str]]:
    return [(event.type, event.reason) for event in world.events]


class TestFinalizer:
    def test_it_is_there_before_anything_is_made(self) -> None:
        world = World()
        world.edit(DELETE)
        plan = world.step(writes=1)
        assert plan.finalizer is True
        assert world.finalizer
        assert world.jobs == {}

    def test_it_is_written_once(self) -> None:
        world = trained()
        assert world.step().finalizer is None

    def test_without_the_policy_there_is_none(self) -> None:
        world = trained({})
        assert world.step().finalizer is None
        assert not world.finalizer

    def test_it_goes_when_the_policy_goes(self) -> None:
        world = trained()
        world.edit({"artifacts": {"deletionPolicy": "Retain"}})
        assert world.step().finalizer is False
        assert not world.finalizer

    def test_a_laptop_has_none(self) -> None:
        world = World(settings=Settings(relative_files=True))
        world.edit(DELETE)
        assert world.step().finalizer is None

    def test_a_policy_changed_at_the_last_moment_counts(self) -> None:
        world = trained()
        world.spec["artifacts"]["deletionPolicy"] = "Retain"
        world.delete()
        world.step()
        assert world.gone
        assert world.cleanup is None


class TestCleanup:
    def test_every_artifact_of_the_model_is_named(self) -> None:
        world = trained()
        world.edit({"dataset": {"revision": "2"}})
        world.run()
        world.delete()
        named = order_of(world.step())
        assert {item.key for item in named.artifacts} == set(world.store)
        assert named.root_uri == "s3://store/movies"
        kinds = [item.kind.value for item in named.artifacts]
        assert kinds.index("bundle") < kinds.index("adapter") < kinds.index("dataset")

    def test_what_other_models_use_is_left_alone(self) -> None:
        world = trained()
        shared = {row.key for row in world.status.stages if row.kind in ("dataset", "keywords")}
        world.elsewhere = frozenset(shared)
        world.delete()
        assert {item.key for item in order_of(world.step()).artifacts} == set(world.store) - shared

    def test_nothing_of_its_own_means_no_job(self) -> None:
        world = trained()
        world.elsewhere = frozenset(world.store)
        world.delete()
        assert world.step().children == ()
        assert world.gone
        assert told(world) == [("Normal", "ArtifactsDeleted")]

    def test_success_lets_go(self) -> None:
        world = trained()
        world.delete()
        world.step()
        assert not world.gone
        assert world.step().children == ()
        world.end_cleanup(JobState.SUCCEEDED)
        world.step()
        assert world.gone
        assert told(world) == [("Normal", "ArtifactCleanupStarted"), ("Normal", "ArtifactsDeleted")]

    def test_a_final_failure_lets_go_and_says_what_is_left(self) -> None:
        world = trained()
        world.delete()
        world.step()
        world.end_cleanup(JobState.FAILED, message="the store refused the credentials")
        world.step()
        assert world.gone
        assert told(world)[-1] == ("Warning", "ArtifactCleanupFailed")
        assert "refused the credentials" in world.events[-1].message
        assert "s3://store/movies" in world.events[-1].message

    def test_time_is_up_in_any_case(self) -> None:
        world = trained()
        world.delete()
        plan = world.step()
        assert plan.requeue_after is not None
        world.now += timedelta(seconds=plan.requeue_after)
        world.step()
        assert world.gone
        assert told(world)[-1] == ("Warning", "ArtifactCleanupFailed")

    def test_a_namespace_that_goes_too_is_not_held_up(self) -> None:
        world = trained()
        world.namespace_terminating = True
        world.delete()
        assert world.step().children == ()
        assert world.gone

    def test_running_jobs_end_before_the_store_is_cleaned(self) -> None:
        world = World()
        world.edit(DELETE)
        world.step()
        running = world.active
        world.delete()
        plan = world.step(writes=0)
        assert [deletion.name for deletion in plan.deletions] == running
        assert plan.children == ()
        world.step()
        assert world.active == []
        assert any(isinstance(child, CleanupChild) for child in world.step().children)

    @pytest.mark.parametrize("writes", range(6))
    def test_a_driver_killed_in_between_ends_in_the_same_place(self, writes: int) -> None:
        world = trained()
        world.delete()
        world.step(writes=writes)
        for _ in range(4):
            world.step()
        world.end_cleanup(JobState.SUCCEEDED)
        world.step(writes=writes)
        world.step()
        assert world.gone

    def test_a_relative_store_has_nothing_to_clean(self) -> None:
        world = World()
        world.edit({"artifacts": {"storageUri": "file:store", "deletionPolicy": "Delete"}})
        world.step()
        world.delete()
        world.step()
        assert world.gone


class TestJob:
    def rendered(self, changes: dict[str, Any] = DELETE) -> dict[str, Any]:
        world = trained(changes)
        world.delete()
        return render(next(child for child in world.step().children if isinstance(child, CleanupChild)))

    def test_it_is_bounded_and_as_restricted_as_training(self) -> None:
        body = self.rendered()
        assert (body["spec"]["backoffLimit"], body["spec"]["activeDeadlineSeconds"]) == (3, 600)
        container = body["spec"]["template"]["spec"]["containers"][0]
        assert container["command"][2:] == ["thinkrec_trainer", "clean", "/etc/thinkrec/clean.json"]
        assert container["envFrom"] == [{"secretRef": {"name": "store"}}]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert body["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"] is True

    def test_it_asks_for_no_gpu_and_waits_for_no_queue(self) -> None:
        training = {"resources": {"limits": {"nvidia.com/gpu": 1}}, "queueName": "gpus", "image": "own:1"}
        body = self.rendered({**DELETE, "training": training})
        container = body["spec"]["template"]["spec"]["containers"][0]
        assert "nvidia.com/gpu" not in container["resources"]["limits"]
        assert "kueue.x-k8s.io/queue-name" not in body["metadata"]["labels"]
        assert container["image"] == Settings().trainer_image

    def test_it_is_no_stage(self) -> None:
        body = self.rendered()
        assert "annotations" not in body["metadata"]
        assert body["metadata"]["labels"]["app.kubernetes.io/component"] == "cleanup"

    def test_the_api_clients_own_type_reads_it_without_loss(self) -> None:
        body, client = self.rendered(), ApiClient()
        typed = client.deserialize(json.dumps(body), "V1Job", "application/json")
        assert client.sanitize_for_serialization(typed) == body  # type: ignore[no-untyped-call]

    def test_a_recreated_model_has_a_clean_up_of_its_own(self) -> None:
        assert self.rendered()["metadata"]["name"].startswith("movies-clean-")


def test_a_suspended_model_is_cleaned_up_too() -> None:
    world = trained()
    world.edit({"suspend": True})
    world.step()
    world.delete()
    assert any(isinstance(child, CleanupChild) for child in world.step().children)


def test_a_finished_training_is_not_stopped() -> None:
    world = trained()
    world.delete()
    assert [d for d in world.step().deletions if d.kind is ChildKind.JOB] == []
