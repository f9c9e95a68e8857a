# SPDX-License-Identifier: Apache-2.0
"""The decision, case by case: what runs, what is written to status, what is told as an event."""

from __future__ import annotations

import ast
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

import pytest

import thinkrec_operator
from support.model_world import START, World, run_until
from thinkrec_crds.conditions import CANNOT_START, MODEL_CONDITIONS, Reason
from thinkrec_crds.model_status import ModelStatus
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_operator.observed import ChildRef, Experiments, JobState, Settings
from thinkrec_operator.plan import ChildKind, DeploymentChild, JobChild
from thinkrec_operator.reconcile import reconcile

TRANSIENT = {"Reconciling", "Stalled", "Stale"}
PURE = (
    "reconcile",
    "unsupported",
    "graph",
    "parameters",
    "work",
    "revisions",
    "status",
    "report",
    "events",
    "children",
    "names",
    "schedule",
    "turn",
    "deletion",
    "memo",
)


def condition(world: World, kind: str) -> tuple[str, str]:
    found = world.status.condition(kind)
    return (found.status, found.reason) if found else ("absent", "")


def reasons(world: World) -> list[str]:
    return [event.reason for event in world.events]


class TestFirstVisit:
    def test_writes_every_lasting_condition_unknown_and_reconciling(self) -> None:
        world = World()
        plan = world.step()
        by_type = {c.type: c for c in plan.status.conditions}
        assert set(by_type) == {kind.value for kind in MODEL_CONDITIONS} - {"Stalled", "Stale"}
        assert all(c.status == "Unknown" for kind, c in by_type.items() if kind not in TRANSIENT)
        assert condition(world, "Reconciling") == ("True", "Progressing")
        assert plan.requeue_after == 0

    def test_starts_the_first_stage_at_once(self) -> None:
        assert [job.title for job in World().step().jobs] == ["dataset"]

    def test_conditions_and_status_are_of_the_same_generation(self) -> None:
        world = World(generation=4)
        plan = world.step()
        assert plan.status.observed_generation == 4
        assert {c.observed_generation for c in plan.status.conditions} == {4}


class TestOrder:
    def test_independent_stages_run_side_by_side(self) -> None:
        world = World()
        world.step()
        world.succeed(world.job_of("dataset").name)
        assert {job.title for job in world.step().jobs} == {"keywords", "collaborative"}

    def test_experts_run_in_parallel(self) -> None:
        world = World()
        name = run_until(world, "expert-0")
        assert {world.children[n].title for n in world.active} >= {"expert-0", "expert-1"}
        assert name in world.jobs

    def test_inputs_carry_the_digests_of_what_was_published(self) -> None:
        world = World()
        run_until(world, "gate")
        stage = world.children[world.job_of("gate").name].stage
        assert stage.input("dataset").digest == world.store[stage.input("dataset").key].digest
        assert stage.output_uri == f"s3://store/movies/gate/{stage.key}"

    def test_each_key_runs_once(self) -> None:
        world = World()
        world.run()
        assert set(world.runs.values()) == {1}
        assert len(world.runs) == 11

    def test_published_work_is_not_run_again(self) -> None:
        first = World()
        first.run()
        second = World(store=dict(first.store))
        second.run()
        assert second.runs == {}
        assert {row.state for row in (*second.status.stages, *second.status.experts)} == {"Reused"}
        assert condition(second, "Ready") == ("True", "Serving")

    def test_a_job_that_is_gone_after_its_time_is_remembered_by_status(self) -> None:
        world = World(store_is_seen=False)
        world.edit({"experts": {"count": None, "auto": {"min": 2, "max": 5}}})
        run_until(world, "expert-1")
        for title in ("dataset", "gate", "adapter"):
            world.jobs.pop(world.job_of(title).name)
        before = {row.name: row.state for row in world.status.stages}
        plan = world.step()
        assert {job.title for job in plan.jobs} == {"expert-1", "expert-2"}
        assert {row.name: row.state for row in world.status.stages} == before
        assert world.status.expert_count == 3
        world.run()
        assert set(world.runs.values()) == {1}

    def test_a_vanished_job_that_nobody_remembers_is_asked_again(self) -> None:
        world = World(store_is_seen=False)
        run_until(world, "adapter")
        world.jobs.pop(world.job_of("dataset").name)
        world.status = ModelStatus()
        plan = world.step()
        assert "dataset" in {job.title for job in plan.jobs}

    def test_automatic_k_opens_the_graph_after_the_gate(self) -> None:
        world = World()
        world.edit({"experts": {"count": None, "auto": {"min": 2, "max": 5}}})
        run_until(world, "gate")
        assert world.status.expert_count is None
        world.run()
        assert world.status.expert_count == 3
        assert len(world.status.experts) == 3
        assert condition(world, "Ready")[0] == "True"

    def test_a_gate_without_a_count_stalls(self) -> None:
        world = World()
        world.edit({"experts": {"count": None, "auto": {"min": 2, "max": 5}}})
        name = run_until(world, "gate")
        world.succeed(name)
        told = world.store[world.jobs[name].key].model_copy(update={"counts": {}})
        world.store[told.key] = told
        world.jobs[name] = replace(world.jobs[name], termination=told)
        world.step()
        assert condition(world, "Stalled") == ("True", "TrainingFailed")
        assert "groups" in world.status.condition("Stalled").message  # type: ignore[union-attr]


class TestReady:
    def test_a_whole_run_ends_ready(self) -> None:
        world = World()
        plan = world.run()
        assert {c.type: c.status for c in plan.status.conditions} == {
            "Ready": "True",
            "Available": "True",
            "DatasetReady": "True",
            "Admitted": "True",
            "TrainingSucceeded": "True",
            "ArtifactsStored": "True",
            "Evaluated": "True",
            "ServingReady": "True",
            "Suspended": "False",
        }
        assert plan.status.progress_percent == 100
        assert plan.status.serving_revision == plan.status.latest_revision

    def test_reconciling_until_the_server_answers(self) -> None:
        world = World()
        run_until(world, "evaluate")
        world.succeed(world.job_of("evaluate").name)
        world.step()
        world.step()
        assert condition(world, "Ready") == ("False", "ServingNotReady")
        assert condition(world, "Reconciling")[0] == "True"
        assert condition(world, "Available") == ("False", "ServingNotReady")
        world.roll_out()
        world.step()
        assert condition(world, "Ready") == ("True", "Serving")
        assert condition(world, "Reconciling")[0] == "absent"

    def test_a_steady_state_writes_nothing_new(self) -> None:
        world = World()
        world.run()
        before = world.status
        world.now += timedelta(hours=5)
        world.events.clear()
        plan = world.step()
        assert plan.status == before
        assert plan.events == ()
        assert plan.deletions == ()
        assert plan.requeue_after is None
        assert world.events == []

    def test_the_time_of_a_transition_is_kept_while_the_status_is_the_same(self) -> None:
        world = World()
        world.run()
        ready = world.status.condition("Ready")
        assert ready is not None
        world.now += timedelta(hours=1)
        world.serving = replace(world.serving, ready_replicas=0)  # type: ignore[type-var]
        world.step()
        lost = world.status.condition("Ready")
        assert lost is not None
        assert lost.status == "False"
        assert lost.last_transition_time > ready.last_transition_time

    def test_training_alone_is_never_ready_but_not_reconciling_either(self) -> None:
        world = World(settings=Settings(serve=False))
        plan = world.run()
        assert condition(world, "Ready") == ("False", "ServingNotReady")
        assert condition(world, "Evaluated") == ("True", "GatesPassed")
        assert condition(world, "Reconciling")[0] == "absent"
        assert not any(isinstance(child, DeploymentChild) for child in plan.children)


class TestFailure:
    def test_bad_input_stalls_with_the_stages_own_sentence(self) -> None:
        world = World()
        world.step()
        world.fail(world.job_of("dataset").name, exit_code=64, error="column rating is missing; name it in columns")
        world.step()
        assert condition(world, "Stalled") == ("True", "DatasetInvalid")
        assert condition(world, "DatasetReady") == ("False", "DatasetInvalid")
        assert condition(world, "Ready") == ("False", "DatasetInvalid")
        assert condition(world, "Reconciling")[0] == "absent"
        message = world.status.condition("Stalled").message  # type: ignore[union-attr]
        assert "column rating is missing; name it in columns" in message

    def test_bad_input_of_a_later_stage_is_an_invalid_spec(self) -> None:
        world = World()
        world.fail(run_until(world, "adapter"), exit_code=64, error="target module x does not exist")
        world.step()
        assert condition(world, "Stalled") == ("True", "InvalidSpec")

    def test_a_command_line_that_was_refused_is_an_invalid_spec(self) -> None:
        world = World()
        world.fail(run_until(world, "adapter"), exit_code=2, error="")
        world.step()
        assert condition(world, "Stalled") == ("True", "InvalidSpec")
        assert "`spec.training.image` and `spec.training.args`" in world.status.condition("Stalled").message  # type: ignore[union-attr]

    def test_a_stage_may_name_its_own_reason(self) -> None:
        world = World()
        world.step()
        name = world.job_of("dataset").name
        world.fail(name, exit_code=64, error="no such bucket")
        told = world.jobs[name].termination
        assert told is not None
        termination = told.model_copy(update={"reason": "DatasetNotFound"})
        world.jobs[name] = replace(world.jobs[name], termination=termination)
        world.step()
        assert condition(world, "DatasetReady") == ("False", "DatasetNotFound")
        assert condition(world, "Stalled") == ("True", "DatasetNotFound")

    @pytest.mark.parametrize("cause", [Reason.OOM_KILLED, Reason.DEADLINE_EXCEEDED, Reason.BACKOFF_LIMIT_EXCEEDED])
    def test_used_up_retries_stall_and_name_the_cause(self, cause: Reason) -> None:
        world = World()
        world.fail(run_until(world, "adapter"), reason=cause)
        world.step()
        assert condition(world, "Stalled") == ("True", "TrainingFailed")
        assert condition(world, "TrainingSucceeded") == ("False", cause.value)

    def test_it_stays_stalled_and_tells_it_once(self) -> None:
        world = World()
        world.fail(run_until(world, "adapter"))
        for _ in range(5):
            world.step()
        assert reasons(world).count("TrainingFailed") == 1
        assert world.runs[world.job_of("adapter").key] == 1

    def test_a_retry_under_way_is_reconciling_not_stalled(self) -> None:
        world = World()
        name = run_until(world, "adapter")
        later = world.now + timedelta(seconds=40)
        job = replace(world.jobs[name], attempts=1, failures=1, message="out of reach", next_attempt_time=later)
        world.jobs[name] = job
        plan = world.step()
        assert condition(world, "Reconciling") == ("True", "ProgressingWithRetry")
        assert condition(world, "Stalled")[0] == "absent"
        assert next(row for row in plan.status.stages if row.name == "adapter").state == "Retrying"
        assert plan.requeue_after is not None
        assert plan.requeue_after <= 40

    def test_a_failed_expert_is_retried_alone_after_a_change(self) -> None:
        world = World()
        run_until(world, "expert-0")
        world.fail(world.job_of("expert-1").name)
        world.succeed(world.job_of("expert-0").name)
        world.step()
        assert condition(world, "Stalled")[0] == "True"
        before = dict(world.runs)
        world.ask_retrain("again")
        plan = world.step()
        assert [(d.kind, d.name) for d in plan.deletions if d.kind is ChildKind.JOB] == [
            (ChildKind.JOB, next(n for n, c in world.children.items() if c.title == "expert-1"))
        ]
        world.run()
        again = {key for key, count in world.runs.items() if before.get(key) and count > before[key]}
        assert again == {world.job_of("expert-1").key}
        assert condition(world, "Ready")[0] == "True"
        assert world.status.last_handled_retrain_at == "again"

    def test_other_stages_go_on_beside_a_failed_one(self) -> None:
        world = World()
        run_until(world, "expert-0")
        world.fail(world.job_of("expert-1").name)
        plan = world.step()
        assert [job.title for job in plan.jobs] == ["expert-0"]

    def test_a_failed_evaluation_has_its_own_reason(self) -> None:
        world = World()
        world.fail(run_until(world, "evaluate"))
        world.step()
        assert condition(world, "Stalled") == ("True", "EvaluationFailed")
        assert condition(world, "Evaluated") == ("False", "EvaluationFailed")
        assert condition(world, "TrainingSucceeded")[0] == "True"

    def test_success_without_a_termination_message_is_no_success(self) -> None:
        world = World()
        name = run_until(world, "keywords")
        world.jobs[name] = replace(world.jobs[name], state=JobState.SUCCEEDED, exit_code=0)
        world.step()
        assert condition(world, "Stalled") == ("True", "TrainingFailed")
        assert "stage protocol" in world.status.condition("Stalled").message  # type: ignore[union-attr]

    def test_a_new_failing_spec_leaves_the_old_revision_serving(self) -> None:
        world = World()
        world.run()
        old = world.status.serving_revision
        world.edit({"dataset": {"revision": "2"}})
        world.step()
        world.fail(world.active[0])
        world.step()
        assert condition(world, "Ready")[0] == "False"
        assert condition(world, "Stalled")[0] == "True"
        assert condition(world, "Available") == ("True", "Serving")
        assert world.status.serving_revision == old
        assert world.deployment is not None
        assert world.deployment.revision == old


class TestGates:
    GATE: ClassVar = {"evaluation": {"gates": [{"metric": "AUC", "minimum": "0.6"}]}}

    def test_a_missed_minimum_keeps_the_old_revision(self) -> None:
        world = World()
        world.edit(self.GATE)
        world.run()
        old = world.status.serving_revision
        world.auc = 0.55
        world.edit({"dataset": {"revision": "2"}})
        world.run()
        assert condition(world, "Stalled") == ("True", "GateFailed")
        assert condition(world, "Ready") == ("False", "GateFailed")
        assert condition(world, "Evaluated") == ("False", "GateFailed")
        assert condition(world, "Available")[0] == "True"
        assert world.status.serving_revision == old
        assert world.status.latest_revision != old
        assert "AUC is 0.5500, below its minimum 0.6" in world.status.condition("Evaluated").message  # type: ignore[union-attr]
        assert reasons(world).count("GateFailed") == 2  # Evaluated and Stalled, each once

    def test_lowering_the_gate_serves_it_without_training(self) -> None:
        world = World(auc=0.55)
        world.edit(self.GATE)
        world.run()
        assert world.deployment is None
        runs = dict(world.runs)
        world.edit({"evaluation": {"gates": [{"metric": "AUC", "minimum": "0.5"}]}})
        world.run()
        assert world.runs == runs
        assert condition(world, "Ready") == ("True", "Serving")

    @pytest.mark.parametrize(("after", "passes"), [(0.69, True), (0.68, True), (0.67, False)])
    def test_regression_is_against_the_serving_revision(self, after: float, passes: bool) -> None:
        world = World(auc=0.7)
        world.edit({"evaluation": {"gates": [{"metric": "AUC", "maxRegression": "0.02"}]}})
        world.run()
        old = world.status.serving_revision
        world.auc = after
        world.edit({"adapter": {"steps": 9}})
        world.run()
        assert (world.status.serving_revision != old) is passes
        assert condition(world, "Evaluated")[0] == ("True" if passes else "False")

    def test_a_metric_that_was_not_reported_fails_its_gate(self) -> None:
        world = World()
        world.edit({"evaluation": {"gates": [{"metric": "NDCG@7", "minimum": "0.1"}]}})
        world.run()
        assert condition(world, "Evaluated") == ("False", "GateFailed")

    def test_an_evaluated_revision_is_not_evaluated_again_once_it_serves(self) -> None:
        world = World()
        world.run()
        world.edit({"adapter": {"steps": 9}})
        world.run()
        evaluations = [c for c in world.children.values() if c.stage.kind is StageKind.EVALUATE]
        assert len(evaluations) == 2
        assert [ref.name for ref in evaluations[1].stage.inputs if ref.name == "serving"] == ["serving"]
        runs = dict(world.runs)
        for _ in range(3):
            world.step()
        assert world.runs == runs


class TestRevisions:
    def test_going_back_to_an_old_spec_serves_its_revision_without_work(self) -> None:
        world = World()
        world.run()
        first, runs = world.status.serving_revision, None
        world.edit({"adapter": {"steps": 9}})
        world.run()
        runs = dict(world.runs)
        world.edit({"adapter": None})
        world.run()
        assert world.status.serving_revision == first
        assert world.runs == runs

    def test_a_pin_rolls_back_and_releasing_it_rolls_forward(self) -> None:
        world = World()
        world.run()
        first = world.status.serving_revision
        world.edit({"adapter": {"steps": 9}})
        world.run()
        second = world.status.serving_revision
        world.edit({"serving": {"revision": first}})
        world.run()
        assert world.status.serving_revision == first
        assert condition(world, "Ready") == ("True", "WaitingForPin")
        world.edit({"serving": {"revision": None}})
        world.run()
        assert world.status.serving_revision == second

    def test_a_pin_that_does_not_exist_stalls_and_changes_nothing(self) -> None:
        world = World()
        world.run()
        first = world.status.serving_revision
        world.edit({"serving": {"revision": "movies-nothing"}})
        world.step()
        world.step()
        assert condition(world, "Stalled") == ("True", "RevisionNotFound")
        assert world.deployment is not None
        assert world.deployment.revision == first

    @pytest.mark.parametrize("policy", ["Manual", "OnExperiment"])
    def test_without_automatic_updates_the_first_revision_serves_on(self, policy: str) -> None:
        world = World()
        world.edit({"serving": {"updatePolicy": policy}})
        world.run()
        first = world.status.serving_revision
        assert first is not None
        world.edit({"adapter": {"steps": 9}})
        world.run()
        assert world.status.serving_revision == first
        assert world.status.latest_revision != first
        assert condition(world, "Ready") == ("True", "WaitingForPin")

    def test_history_is_cut_but_never_what_serves(self) -> None:
        world = World()
        world.edit({"revisionHistoryLimit": 1})
        world.run()
        first = world.status.serving_revision
        world.edit({"serving": {"revision": first}})
        for steps in range(1, 6):
            world.edit({"adapter": {"steps": steps}})
            world.run()
        world.step()
        assert first in world.revisions
        assert world.status.latest_revision in world.revisions
        assert len(world.revisions) == 3  # serving, newest, and one of history

    def test_history_keeps_what_an_experiment_compares(self) -> None:
        world = World()
        world.edit({"revisionHistoryLimit": 1})
        for steps in (1, 2, 3, 4):
            world.edit({"adapter": {"steps": steps}})
            world.run()
            if steps == 1:
                compared = next(iter(world.revisions))
                world.experiments = Experiments(in_use=frozenset({compared}))
        assert compared in world.revisions
        world.experiments = Experiments()
        world.step()
        assert compared not in world.revisions

    def test_numbers_count_up(self) -> None:
        world = World()
        for steps in (1, 2, 3):
            world.edit({"adapter": {"steps": steps}})
            world.run()
        assert sorted(record.number for record in world.revisions.values()) == [1, 2, 3]

    def test_lineage_says_where_it_came_from(self) -> None:
        world = World()
        world.run()
        record = next(iter(world.revisions.values()))
        assert record.data.dataset_revision == "1"
        assert record.data.base_model_uri == "s3://models/base"
        assert record.data.expert_names == ("expert-0", "expert-1")
        assert set(record.data.results) >= {"dataset", "adapter", "expert-1", "bundle"}
        assert record.evaluation.result.metrics["auc"] == 0.7


class TestRetrain:
    def test_a_token_on_a_finished_model_trains_everything_again_in_the_background(self) -> None:
        world = World()
        world.run()
        first, runs = world.status.serving_revision, len(world.runs)
        world.ask_retrain("monday")
        world.step()
        assert [world.children[name].title for name in world.active] == ["dataset"]
        assert condition(world, "Ready") == ("True", "Serving")
        assert condition(world, "Reconciling")[0] == "absent"
        world.run()
        assert len(world.runs) == 2 * runs
        assert world.status.serving_revision != first
        assert condition(world, "Ready")[0] == "True"

    def test_ready_never_flaps_while_a_repeated_training_rolls_out(self) -> None:
        world = World()
        world.run()
        world.ask_retrain("monday")
        seen = set()
        for _ in range(60):
            world.step()
            seen.add(condition(world, "Ready")[0])
            for name in world.active:
                world.succeed(name)
        world.roll_out()
        world.step()
        assert seen == {"True"}
        assert world.status.serving_revision == world.status.latest_revision

    def test_a_failed_repeated_training_warns_but_does_not_stall(self) -> None:
        world = World()
        world.run()
        world.ask_retrain("monday")
        world.step()
        world.fail(world.active[0])
        world.step()
        assert condition(world, "Ready") == ("True", "Serving")
        assert condition(world, "Stalled")[0] == "absent"
        assert condition(world, "TrainingSucceeded") == ("False", "BackoffLimitExceeded")
        assert "StageFailed" in reasons(world)

    def test_removing_the_annotation_keeps_the_newer_revision(self) -> None:
        world = World()
        world.run()
        world.ask_retrain("monday")
        world.run()
        newer, runs = world.status.serving_revision, dict(world.runs)
        world.annotations.clear()
        world.run()
        assert world.status.serving_revision == newer
        assert world.runs == runs

    def test_the_same_token_trains_once(self) -> None:
        world = World()
        world.ask_retrain("monday")
        world.run()
        assert set(world.runs.values()) == {1}
        assert len(world.runs) == 11


class TestSuspend:
    def test_suspended_before_the_first_training(self) -> None:
        world = World()
        world.edit({"suspend": True})
        plan = world.run()
        assert world.runs == {}
        assert condition(world, "Ready") == ("False", "Suspended")
        assert condition(world, "Suspended") == ("True", "Suspended")
        assert condition(world, "Reconciling")[0] == "absent"
        assert condition(world, "Stalled")[0] == "absent"
        assert next(row for row in plan.status.stages if row.name == "dataset").state == "Suspended"

    def test_running_work_ends_and_nothing_new_starts(self) -> None:
        world = World()
        name = run_until(world, "keywords")
        world.edit({"suspend": True})
        world.step()
        assert name in world.jobs
        world.succeed(name)
        before = sum(world.runs.values())
        world.run()
        assert sum(world.runs.values()) == before
        world.edit({"suspend": False})
        world.run()
        assert condition(world, "Ready")[0] == "True"

    def test_serving_stays_up(self) -> None:
        world = World()
        world.run()
        world.edit({"suspend": True})
        plan = world.run()
        assert any(isinstance(child, DeploymentChild) for child in plan.children)
        assert condition(world, "Available")[0] == "True"


class TestOther:
    def test_work_the_spec_no_longer_asks_for_is_stopped(self) -> None:
        world = World()
        name = run_until(world, "adapter")
        world.edit({"adapter": {"steps": 5}})
        plan = world.step()
        assert name in [d.name for d in plan.deletions if d.kind is ChildKind.JOB]
        assert name not in world.jobs

    def test_config_maps_go_with_their_jobs(self) -> None:
        world = World()
        world.run()
        world.step()
        assert world.config_maps == set()

    def test_a_lost_config_map_of_a_running_job_comes_back(self) -> None:
        world = World()
        world.step()
        lost = world.config_maps.pop()
        world.step()
        assert world.config_maps == {lost}

    def test_nothing_is_created_while_deleting(self) -> None:
        world = World()
        run_until(world, "adapter")
        world.deleting = world.now
        plan = world.step()
        assert plan.children == ()
        assert world.active == []

    def test_relative_files_are_refused_where_they_mean_nothing(self) -> None:
        world = World()
        world.edit({"dataset": {"storageUri": "file:data/ratings"}})
        world.run()
        assert world.runs == {}
        assert condition(world, "Stalled") == ("True", "LocalUriNotSupported")
        assert "spec.dataset.storageUri" in world.status.condition("Stalled").message  # type: ignore[union-attr]
        local = World(settings=Settings(relative_files=True), spec=world.spec)
        local.run()
        assert condition(local, "Ready")[0] == "True"

    def test_waiting_for_a_queue_mirrors_its_reason(self) -> None:
        world = World()
        world.edit({"training": {"queueName": "gpus"}})
        world.step()
        name = world.active[0]
        world.jobs[name] = replace(world.jobs[name], queued=True, reason="QuotaReserved", message="no quota in gpus")
        world.step()
        assert condition(world, "Admitted") == ("False", "QuotaReserved")
        assert condition(world, "Ready") == ("False", "WaitingForQuota")
        world.run()
        assert condition(world, "Admitted") == ("True", "Succeeded")

    def test_stale_comes_with_time_alone(self) -> None:
        world = World()
        world.edit({"schedule": {"maxStalenessSeconds": 3600}})
        plan = world.run()
        assert plan.requeue_after is not None
        assert 0 < plan.requeue_after <= 3600
        assert condition(world, "Stale")[0] == "absent"
        world.now = START + timedelta(hours=2)
        world.step()
        assert condition(world, "Stale") == ("True", "OlderThanPolicy")
        assert condition(world, "Ready")[0] == "True"
        assert reasons(world).count("OlderThanPolicy") == 1

    def test_a_changed_limit_rolls_the_server_without_training(self) -> None:
        world = World()
        world.run()
        runs, before = dict(world.runs), world.deployment
        world.edit({"serving": {"limits": {"maxCandidates": 50}}})
        world.step()
        assert world.deployment is not None
        assert before is not None
        assert world.deployment.spec_hash != before.spec_hash
        assert condition(world, "Reconciling")[0] == "True"
        assert condition(world, "Available")[0] == "True"
        world.run()
        assert world.runs == runs
        assert condition(world, "Ready")[0] == "True"

    def test_stage_overrides_reach_their_stage_only(self) -> None:
        world = World()
        world.edit({"training": {"image": "a:1", "stages": [{"name": "gate", "image": "b:2", "backoffLimit": 0}]}})
        world.run()
        images = {child.title: child.settings.image for child in world.children.values()}
        assert images["gate"] == "b:2"
        assert set(images.values()) == {"a:1", "b:2"}
        gate = next(child for child in world.children.values() if child.title == "gate")
        assert gate.settings.backoff_limit == 0

    def test_secrets_reach_only_the_stages_that_need_them(self) -> None:
        world = World()
        world.edit(
            {
                "artifacts": {"secretRef": {"name": "store"}},
                "dataset": {"secretRef": {"name": "data"}},
                "baseModel": {"secretRef": {"name": "hub"}},
                "teacher": {
                    "type": "OpenAI",
                    "baseUrl": "https://llm/v1",
                    "model": "m",
                    "secretRef": {"name": "teacher"},
                },
            }
        )
        world.run()
        found = {c.title: [(s.name, s.prefix) for s in c.settings.secrets] for c in world.children.values()}
        assert found["dataset"] == [("store", ""), ("data", "SOURCE_")]
        assert found["gate"] == [("store", "")]
        assert found["traces"] == [("store", ""), ("hub", "SOURCE_"), ("teacher", "")]


class TestPurity:
    def test_equal_input_gives_an_equal_plan(self) -> None:
        world = World()
        for _ in range(12):
            observed = world.observed()
            assert reconcile(observed) == reconcile(observed)
            world.step()
            for name in world.active:
                world.succeed(name)

    @pytest.mark.parametrize("name", PURE)
    def test_no_clock_environment_randomness_or_input_and_output(self, name: str) -> None:
        forbidden = {"os", "time", "random", "uuid", "socket", "subprocess", "pathlib", "sys", "secrets", "httpx"}
        tree = ast.parse((Path(thinkrec_operator.__file__).parent / f"{name}.py").read_text())
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
        froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        names = [alias.name for node in imports for alias in node.names] + [node.module or "" for node in froms]
        assert not {name.partition(".")[0] for name in names} & forbidden
        clocks = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "now"
        ]
        assert clocks == []

    def test_job_names_fit_into_a_label(self) -> None:
        world = World()
        names = [child.name for child in world.step().children if isinstance(child, JobChild)]
        assert all(len(name) <= 63 for name in names)


class TestPods:
    """What the pods of Jobs and of the server tell, before anything has failed for good."""

    @pytest.mark.parametrize("reason", CANNOT_START)
    def test_a_job_that_waits_for_a_person_stalls_while_it_does(self, reason: Reason) -> None:
        world = World()
        name = run_until(world, "traces")
        world.jobs[name] = replace(world.jobs[name], reason=reason.value, message="Secret store does not exist")
        world.step()
        for kind in ("Stalled", "Ready", "TrainingSucceeded"):
            assert condition(world, kind)[1] == reason.value
        stalled = world.status.condition("Stalled")
        assert stalled is not None
        assert "traces: Secret store does not exist" in stalled.message
        assert reason.remedy in stalled.message
        assert next(row.reason for row in world.status.stages if row.name == "traces") == reason.value
        assert reasons(world).count(reason.value) == 1
        world.step()
        assert reasons(world).count(reason.value) == 1
        world.jobs[name] = replace(world.jobs[name], reason=None, message="", state=JobState.RUNNING)
        world.step()
        assert condition(world, "Stalled")[0] == "absent"
        assert condition(world, "Reconciling")[0] == "True"

    @pytest.mark.parametrize(
        "reason",
        [Reason.UNSCHEDULABLE, Reason.POD_EVICTED, Reason.OOM_KILLED, Reason.CRASH_LOOP_BACK_OFF, Reason.PREEMPTED],
    )
    def test_what_may_pass_by_itself_is_told_and_stalls_nothing(self, reason: Reason) -> None:
        world = World()
        name = run_until(world, "adapter")
        world.jobs[name] = replace(world.jobs[name], reason=reason.value, message="0/3 nodes are available")
        world.step()
        assert condition(world, "TrainingSucceeded") == ("False", reason.value)
        assert condition(world, "Stalled")[0] == "absent"
        reconciling = world.status.condition("Reconciling")
        assert reconciling is not None
        assert f"adapter ({reason.value}: 0/3 nodes are available)" in reconciling.message

    @pytest.mark.parametrize("reason", CANNOT_START)
    def test_a_server_that_cannot_start_stalls_a_new_spec(self, reason: Reason) -> None:
        world = World()
        run_until(world, "evaluate")
        world.succeed(world.job_of("evaluate").name)
        world.step()
        assert world.serving is not None
        world.serving = replace(world.serving, reason=reason.value, message="image x: not found")
        world.step()
        assert condition(world, "Stalled") == ("True", reason.value)
        assert condition(world, "ServingReady") == ("False", reason.value)
        world.roll_out()
        world.step()
        assert condition(world, "Ready") == ("True", "Serving")
        assert condition(world, "Stalled")[0] == "absent"

    def test_a_rollout_past_its_deadline_stalls_and_the_old_pods_answer(self) -> None:
        world = World()
        world.run()
        world.edit({"serving": {"limits": {"maxCandidates": 20}}})
        world.step()
        assert world.serving is not None
        world.serving = replace(world.serving, stuck=True, reason="CrashLoopBackOff", message="exit code 1")
        world.step()
        assert condition(world, "Stalled") == ("True", "ServingNotReady")
        assert condition(world, "ServingReady") == ("False", "CrashLoopBackOff")
        assert condition(world, "Available")[0] == "True"
        stalled = world.status.condition("Stalled")
        assert stalled is not None
        assert "CrashLoopBackOff: exit code 1" in stalled.message

    def test_a_new_pod_in_trouble_leaves_a_ready_model_ready(self) -> None:
        world = World()
        world.edit({"serving": {"replicas": 2}})
        world.run()
        world.step()
        world.events.clear()
        assert world.serving is not None
        world.serving = replace(world.serving, ready_replicas=1, reason="ImagePullError", message="image x: gone")
        world.step()
        assert condition(world, "Ready")[0] == "True"
        assert condition(world, "Stalled")[0] == "absent"
        assert condition(world, "ServingReady") == ("False", "ImagePullError")
        assert reasons(world) == ["ImagePullError"]

    def test_a_missing_secret_of_the_data_is_told_of_the_data(self) -> None:
        world = World()
        name = run_until(world, "dataset")
        world.jobs[name] = replace(world.jobs[name], reason="SecretNotFound", message="secret lake not found")
        world.step()
        assert condition(world, "DatasetReady") == ("False", "SecretNotFound")

    def test_what_could_not_be_written_is_told_of_the_artifacts(self) -> None:
        world = World()
        name = run_until(world, "bundle")
        world.fail(name, reason=Reason.UPLOAD_FAILED, error="the bucket is full")
        world.step()
        assert condition(world, "ArtifactsStored") == ("False", "UploadFailed")
        assert condition(world, "Stalled")[0] == "True"

    def test_before_there_is_a_server_nothing_is_said_to_start(self) -> None:
        world = World()
        run_until(world, "evaluate")
        world.succeed(world.job_of("evaluate").name)
        world.step()
        world.serving = None
        world.step()
        told = world.status.condition("ServingReady")
        assert told is not None
        assert "no server runs yet" in told.message

    def test_suspending_says_what_still_runs(self) -> None:
        world = World()
        run_until(world, "adapter")
        world.edit({"suspend": True})
        world.step()
        told = world.status.condition("Suspended")
        assert told is not None
        assert told.message == "No new Job is started; these run on to their end: adapter."

    def test_the_queues_own_reason_is_kept(self) -> None:
        world = World()
        world.edit({"training": {"queueName": "gpus"}})
        world.step()
        name = world.active[0]
        told = "couldn't assign flavors to pod set main: insufficient quota for nvidia.com/gpu"
        world.jobs[name] = replace(world.jobs[name], queued=True, reason="Inadmissible", message=told)
        world.step()
        assert condition(world, "Admitted") == ("False", "Inadmissible")
        assert world.status.condition("Admitted").message == told  # type: ignore[union-attr]
        assert condition(world, "TrainingSucceeded") == ("False", "JobsRunning")


class TestScale:
    def test_what_serves_several_pods_comes_and_goes(self) -> None:
        world = World()
        world.edit({"serving": {"replicas": 2}})
        world.run()
        assert ChildRef("PodDisruptionBudget", "movies-serving") in world.others
        assert ChildRef("HorizontalPodAutoscaler", "movies-serving") not in world.others
        world.edit({"serving": {"replicas": None, "autoscaling": {"maxReplicas": 4}}})
        world.run()
        assert ChildRef("HorizontalPodAutoscaler", "movies-serving") in world.others
        world.edit({"serving": {"replicas": 1, "autoscaling": None}})
        world.run()
        assert world.others == {ChildRef("Service", "movies")}
        assert world.step().deletions == ()

    def test_scaling_restarts_no_pod(self) -> None:
        world = World()
        world.run()
        assert world.deployment is not None
        before = world.deployment.spec_hash
        world.edit({"serving": {"replicas": 3}})
        world.run()
        assert world.deployment.spec_hash == before
        assert world.status.replicas == 3
        assert condition(world, "Ready")[0] == "True"

    def test_a_pod_template_restarts_them(self) -> None:
        world = World()
        world.run()
        assert world.deployment is not None
        before = world.deployment.spec_hash
        world.edit({"serving": {"podTemplate": {"metadata": {"labels": {"team": "films"}}}}})
        world.step()
        assert world.deployment.spec_hash != before

    def test_a_pin_rolls_back_for_real_and_a_missed_gate_never_does(self) -> None:
        world = World()
        world.edit({"evaluation": {"gates": [{"metric": "AUC", "minimum": "0.6"}]}})
        world.run()
        first = world.deployment
        assert first is not None
        world.auc = 0.5
        world.edit({"dataset": {"revision": "2"}})
        world.run()
        assert world.deployment is not None
        assert world.deployment.revision == first.revision
        assert condition(world, "Stalled") == ("True", "GateFailed")
        world.auc = 0.8
        world.edit({"dataset": {"revision": "3"}})
        world.run()
        assert world.deployment.revision != first.revision
        world.edit({"serving": {"revision": first.revision}})
        world.run()
        assert world.deployment.revision == first.revision
        assert world.deployment.bundle == first.bundle
        assert world.deployment.bundle_uri == first.bundle_uri
        assert world.status.serving_revision == first.revision


def test_every_reason_written_is_one_of_the_published_ones() -> None:
    world = World()
    seen: dict[str, set[str]] = {}

    def note() -> None:
        for item in world.status.conditions:
            seen.setdefault(item.type, set()).add(item.reason)

    world.edit({"evaluation": {"gates": [{"metric": "AUC", "minimum": "0.6"}]}})
    for auc, steps, end in ((0.7, 1, "ok"), (0.5, 2, "ok"), (0.7, 3, "adapter"), (0.7, 4, "evaluate")):
        world.auc = auc
        world.edit({"adapter": {"steps": steps}})
        for _ in range(20):
            world.step()
            note()
            for name in world.active:
                if world.children[name].title == end:
                    world.fail(name)
                else:
                    world.succeed(name)
        world.roll_out()
        world.step()
        note()
    published = {kind.value: {reason.value for reason in reasons} for kind, reasons in MODEL_CONDITIONS.items()}
    for kind, reasons_seen in seen.items():
        allowed = published[kind]
        assert reasons_seen <= allowed, kind
