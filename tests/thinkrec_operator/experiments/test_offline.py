# SPDX-License-Identifier: Apache-2.0
"""An offline comparison from its manifest to its verdict: order, reuse, gates, failures, and kills at every write."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from support.experiment_world import SPEC, World, trained
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_crds.stages import CompareParameters, ScoreParameters
from thinkrec_operator.experiments.reconcile import reconcile
from thinkrec_operator.experiments.status import _TRANSIENT
from thinkrec_operator.manifests import render

MOVIES, WARM = trained("movies"), trained("warm", gate={"temperature": "0.5"})


@pytest.fixture
def world() -> World:
    return World(spec=copy.deepcopy(dict(SPEC)), models={"movies": MOVIES, "warm": WARM})


def offline(world: World, **changes: Any) -> None:
    world.spec = {**world.spec, "offline": {**world.spec["offline"], **changes}}


def test_the_first_visit_writes_every_lasting_condition(world: World) -> None:
    world.step()
    told = {item.type: item.status for item in world.status.conditions}
    assert told.pop("Reconciling") == "True"
    assert set(told.values()) == {"Unknown"}
    assert len(told) == 8
    assert not {kind.value for kind in _TRANSIENT} & set(told)


def test_a_better_variant_wins(world: World) -> None:
    world.run()
    assert world.runs == {"score-old": 1, "score-new": 1, "compare": 1}
    told = world.status.conclusion
    assert told is not None
    assert (told.winner, told.reason, told.metric, told.effect) == ("new", "SignificantWinner", "UAUC", "0.02")
    assert (told.lower, told.upper, told.p_value) == ("0.01", "0.03", "0.01")
    assert world.condition("Succeeded") == ("True", "SignificantWinner")
    assert world.condition("Ready") == ("True", "Succeeded")
    assert world.condition("OfflineEvaluated") == ("True", "GatesPassed")
    assert world.condition("Promoted") == ("False", "PolicyNone")
    assert world.condition("Reconciling")[0] == world.condition("Stalled")[0] == "absent"
    assert world.status.completion_time is not None
    assert [event.reason for event in world.events] == ["ExperimentStarted", "SignificantWinner"]


def test_each_variant_has_its_revision_and_its_numbers_in_status(world: World) -> None:
    world.run()
    rows = {row.name: row for row in world.status.variants}
    assert rows["old"].resolved_revision == MOVIES.revisions[-1].name
    assert rows["new"].resolved_revision == WARM.revisions[-1].name
    value = next(metric for metric in rows["new"].metrics if metric.name == "UAUC")
    assert (value.value, value.lower, value.upper, value.sample_size) == ("0.62", "0.61", "0.63", 40)


def test_it_is_ready_while_it_runs(world: World) -> None:
    world.step()
    world.step()
    assert world.condition("Ready") == ("True", "Running")
    assert world.condition("Succeeded") == ("Unknown", "Running")
    assert world.condition("OfflineEvaluated") == ("Unknown", "JobsRunning")


@pytest.mark.parametrize(
    ("gain", "p_value", "winner", "reason"),
    [
        (0.02, 0.2, None, "NoDifference"),
        (-0.02, 0.01, "old", "SignificantWinner"),
        (-0.02, 0.2, None, "NoDifference"),
        (0.0, 1.0, None, "NoDifference"),
    ],
)
def test_chance_and_loss(world: World, gain: float, p_value: float, winner: str | None, reason: str) -> None:
    world.gain, world.p_value = {"new": gain}, p_value
    world.run()
    told = world.status.conclusion
    assert told is not None
    assert (told.winner, told.reason) == (winner, reason)
    assert world.condition("Succeeded") == ("True", reason), "an unfavourable result is a result"
    assert world.condition("Promoted") == ("False", "Pending")


def test_less_is_better_where_the_manifest_says_so(world: World) -> None:
    offline(world, metrics=[{"name": "UAUC", "direction": "Minimize"}])
    world.gain = {"new": -0.02}
    world.run()
    assert world.status.conclusion is not None
    assert world.status.conclusion.winner == "new"
    given = world.children[world.job("compare")].stage.parameters
    assert isinstance(given, CompareParameters)
    assert given.minimize == ("UAUC",)


def test_the_level_is_the_analysis_own(world: World) -> None:
    world.spec["analysis"] = {
        "metrics": [{"name": "clicks", "event": {"name": "click"}}],
        "significanceLevel": "0.001",
    }
    world.run()
    assert world.status.conclusion is not None
    assert world.status.conclusion.reason == "NoDifference"


@pytest.mark.parametrize(
    ("gate", "sentence"),
    [
        ({"metric": "UAUC", "minimum": "0.63"}, "new: UAUC is 0.62, and `minimum` is 0.63"),
        ({"metric": "AUC", "maxRegression": "0.01"}, "new: AUC lost 0.02 against control, and `maxRegression` is 0.01"),
    ],
)
def test_a_missed_gate_ends_it_before_any_traffic(world: World, gate: dict[str, str], sentence: str) -> None:
    world.gain = {"new": 0.02 if "minimum" in gate else -0.02}
    offline(world, gates=[gate])
    world.spec["traffic"] = {"mode": "Mirror", "mirrorPercent": 10}
    world.settle()
    assert world.condition("OfflineEvaluated") == ("False", "OfflineGateFailed")
    assert world.condition("Succeeded") == ("True", "OfflineGateFailed")
    assert world.status.conclusion is not None
    assert world.status.conclusion.message == sentence
    assert world.status.conclusion.winner is None
    assert ("Warning", "OfflineGateFailed") in [(event.type, event.reason) for event in world.events]


def test_a_gate_that_is_just_reached_is_reached(world: World) -> None:
    offline(world, gates=[{"metric": "UAUC", "minimum": "0.62"}])
    world.run()
    assert world.condition("OfflineEvaluated") == ("True", "GatesPassed")


def test_a_metric_that_only_a_gate_asks_for_is_measured_too(world: World) -> None:
    offline(world, gates=[{"metric": "MAP@5", "minimum": "0.1"}])
    world.run()
    given = world.children[world.job("compare")].stage.parameters
    assert isinstance(given, CompareParameters)
    assert given.metrics == ("UAUC", "MAP@5", "NDCG@5"), "what is decided by comes first"


def test_order_does_not_matter(world: World) -> None:
    late = world.models.pop("warm")
    for _ in range(3):
        plan = world.step()
    assert world.condition("Ready") == ("False", "ModelNotFound")
    assert world.condition("Reconciling")[0] == "True"
    assert world.condition("Stalled")[0] == "absent", "it may still come"
    assert plan.requeue_after is not None
    assert plan.requeue_after > 3000
    assert world.status.start_time is None
    assert not world.jobs
    world.models["warm"] = late
    world.run()
    assert world.condition("Succeeded") == ("True", "SignificantWinner")


def test_what_does_not_come_in_time_stalls_it_and_may_come_later(world: World) -> None:
    late = world.models.pop("warm")
    world.step()
    world.step()
    world.now += timedelta(hours=2)
    plan = world.step()
    assert world.condition("Stalled") == ("True", "ModelNotFound")
    assert world.condition("Reconciling")[0] == "absent"
    found = world.status.condition("Stalled")
    assert found is not None
    assert "`spec.variants[1]` names the model warm" in found.message
    assert "Create it" in found.message
    assert plan.requeue_after is None
    before = world.written
    world.step()
    assert world.written == before, "told once"
    world.models["warm"] = late
    world.run()
    assert world.condition("Succeeded")[0] == "True"


def test_a_revision_that_is_not_there(world: World) -> None:
    world.spec["variants"][1]["revision"] = "warm-0000000000"
    world.step()
    world.step()
    assert world.condition("VariantsReady") == ("False", "RevisionNotFound")


def test_models_in_two_stores_are_refused_at_once(world: World) -> None:
    elsewhere = WARM.model.spec.artifacts.model_copy(update={"endpoint": "http://other:9000"})
    spec = WARM.model.spec.model_copy(update={"artifacts": elsewhere})
    world.models["warm"] = type(WARM)(WARM.model.model_copy(update={"spec": spec}), WARM.revisions)
    world.step()
    world.step()
    assert world.condition("Stalled") == ("True", "InvalidSpec")


def test_a_model_that_trains_again_does_not_change_a_running_comparison(world: World) -> None:
    world.step()
    world.step()
    again = trained("warm", gate={"temperature": "0.9"})
    world.models["warm"] = type(WARM)(again.model, (*WARM.revisions, again.revisions[-1]))
    world.run()
    assert world.status.variants[1].resolved_revision == WARM.revisions[-1].name
    assert world.runs == {"score-old": 1, "score-new": 1, "compare": 1}


def test_experiments_about_the_same_revisions_share_their_work(world: World) -> None:
    world.run()
    other = World(spec=copy.deepcopy(dict(SPEC)), models=dict(world.models))
    offline(other, metrics=[{"name": "AUC"}])
    other.run()
    for title in ("score-old", "score-new"):
        assert world.children[world.job(title)].stage.key == other.children[other.job(title)].stage.key
    assert world.children[world.job("compare")].stage.key != other.children[other.job("compare")].stage.key


def test_a_variant_of_newer_data_brings_its_own_training_data_along(world: World) -> None:
    world.models["warm"] = trained("warm", dataset={"revision": "2"})
    world.run()
    roles = {item.name for item in world.children[world.job("score-new")].stage.inputs}
    assert roles == {"dataset", "bundle", "training"}
    assert {i.name for i in world.children[world.job("score-old")].stage.inputs} == {"dataset", "bundle"}
    data = {world.children[world.job(f"score-{name}")].stage.input("dataset").key for name in ("old", "new")}
    assert len(data) == 1, "the same rows for both"


def test_data_of_its_own_is_read_first(world: World) -> None:
    own = {"storageUri": "s3://data/later.parquet", "items": {"storageUri": "s3://data/items.parquet"}}
    offline(world, dataset=own)
    world.run()
    assert world.runs == {"dataset": 1, "score-old": 1, "score-new": 1, "compare": 1}
    data = world.children[world.job("dataset")].stage
    assert data.kind is StageKind.DATASET
    assert world.children[world.job("score-old")].stage.input("dataset").key == data.key
    assert world.children[world.job("score-old")].stage.input("training").key != data.key


def test_a_failed_job_stalls_it_until_the_manifest_changes(world: World) -> None:
    world.step()
    world.step()
    world.fail(world.job("score-new"), "the bundle is not of one training")
    world.succeed(world.job("score-old"))
    world.step()
    assert world.condition("Stalled") == ("True", "EvaluationFailed")
    assert world.condition("Ready") == ("False", "EvaluationFailed")
    found = world.status.condition("Stalled")
    assert found is not None
    assert "the bundle is not of one training" in found.message
    world.step()
    assert world.runs["score-new"] == 1, "retried only when something changed"
    world.generation += 1
    world.run()
    assert world.runs["score-new"] == 2
    assert world.runs["score-old"] == 1
    assert world.condition("Succeeded")[0] == "True"


def test_suspended_it_starts_nothing_and_goes_on_later(world: World) -> None:
    world.spec["suspend"] = True
    for _ in range(3):
        world.step()
    assert not world.jobs
    assert world.condition("Suspended") == ("True", "Suspended")
    assert world.condition("Ready") == ("False", "Suspended")
    world.spec["suspend"] = False
    world.generation += 1
    world.run()
    assert world.condition("Succeeded")[0] == "True"


def test_a_verdict_is_final(world: World) -> None:
    world.run()
    told = world.status
    offline(world, gates=[{"metric": "UAUC", "minimum": "0.99"}])
    world.generation += 1
    world.jobs.clear()
    world.models.clear()
    world.step()
    assert world.status.conclusion == told.conclusion
    assert _timeless(world)["conditions"] == [
        {**item, "observed_generation": 2} for item in _timeless_of(told)["conditions"]
    ], "whoever waits for this generation must not wait for ever"
    before = world.written
    world.step()
    assert world.written == before
    assert not world.jobs


@pytest.mark.parametrize(
    ("policy", "expected"), [("Manual", ("False", "AwaitingApproval")), ("Automatic", ("True", "Succeeded"))]
)
def test_promotion(world: World, policy: str, expected: tuple[str, str]) -> None:
    world.spec["promotionPolicy"] = policy
    world.run()
    assert world.condition("Promoted") == expected
    assert ("Promoted" in [event.reason for event in world.events]) is (policy == "Automatic")


def test_a_finished_experiment_leaves_no_config_map(world: World) -> None:
    world.run()
    world.step()
    assert not world.config_maps


def test_killed_after_every_write_it_ends_the_same_and_runs_nothing_twice(world: World) -> None:
    world.run()
    expected = world.status
    for writes in range(1, 12):
        killed = World(spec=copy.deepcopy(dict(SPEC)), models=dict(world.models))
        _one_write_at_a_time(killed, writes)
        killed.run()
        assert killed.runs == world.runs, writes
        assert _timeless(killed) == _timeless_of(expected), writes


def _one_write_at_a_time(world: World, writes: int) -> None:
    """Make so many decisions of which only the first write is applied."""
    for _ in range(writes):
        world.step(writes=1)
        for job in [job for job in world.jobs.values() if job.active][:1]:
            world.succeed(job.name)


def _timeless(world: World) -> Any:
    return _timeless_of(world.status)


def _timeless_of(status: Any) -> Any:
    body = status.model_dump(mode="json", exclude={"start_time", "completion_time"})
    for item in body["conditions"]:
        item.pop("last_transition_time")
    return body


def test_its_pods_are_those_of_controls_evaluation(world: World) -> None:
    offline(world, backoffLimit=7, resources={"limits": {"nvidia.com/gpu": 1}})
    world.step()
    world.step()
    child = world.children[world.job("score-new")]
    job = render(child)
    assert job["metadata"]["ownerReferences"][0]["kind"] == "ThinkRecExperiment"
    assert job["metadata"]["labels"]["thinkrec.io/experiment"] == "warmer"
    assert "thinkrec.io/model" not in job["metadata"]["labels"]
    assert job["spec"]["backoffLimit"] == 7
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    assert isinstance(child.stage.parameters, ScoreParameters)


def test_nothing_is_created_while_it_is_being_deleted(world: World) -> None:
    world.step()
    seen = world.observed()
    meta = seen.experiment.metadata.model_copy(update={"deletion_timestamp": world.now})
    leaving = seen.experiment.model_copy(update={"metadata": meta})
    plan = reconcile(type(seen)(experiment=leaving, now=world.now, models=seen.models))
    assert not plan.children
    assert plan.status == world.status


def test_results_are_remembered_when_their_jobs_are_gone(world: World) -> None:
    """A time to live of nothing, one variant after the other."""
    world.step()
    world.step()
    for name in ("score-old", "score-new"):
        world.succeed(world.job(name))
        world.step()
        del world.jobs[world.job(name)]
        world.step()
    world.run()
    assert world.runs == {"score-old": 1, "score-new": 1, "compare": 1}
    assert world.condition("Succeeded")[0] == "True"


def test_a_config_map_stays_while_a_job_may_read_it(world: World) -> None:
    world.step()
    world.step()
    world.succeed(world.job("score-old"))
    world.step()
    assert len(world.config_maps) == 2
    del world.jobs[world.job("score-old")]
    world.step()
    world.step()
    assert len(world.config_maps) == 2


def test_with_traffic_the_comparison_is_remembered_for_good(world: World) -> None:
    world.spec["traffic"] = {"mode": "Mirror", "mirrorPercent": 10}
    world.settle()
    assert world.condition("OfflineEvaluated") == ("True", "GatesPassed")
    rows = world.status.variants
    world.jobs.clear()
    world.settle()
    assert world.runs == {"score-old": 1, "score-new": 1, "compare": 1}
    assert world.status.variants == rows
    assert world.condition("OfflineEvaluated") == ("True", "GatesPassed")


def test_a_failure_is_remembered_when_its_job_is_gone(world: World) -> None:
    world.step()
    world.step()
    world.succeed(world.job("score-old"))
    world.fail(world.job("score-new"), "no such thing")
    world.step()
    world.jobs.clear()
    events = len(world.events)
    world.step()
    assert world.condition("Stalled") == ("True", "EvaluationFailed")
    assert world.runs["score-new"] == 1
    assert len(world.events) == events
    world.generation += 1
    world.run()
    assert world.condition("Succeeded")[0] == "True"


def test_a_variant_waits_for_a_revision_of_its_models_spec(world: World) -> None:
    """What its training or gate did not let through is not there: the old revision does not stand in for it."""
    spec = WARM.model.spec
    changed = spec.model_copy(update={"gate": spec.gate.model_copy(update={"temperature": "0.9"})})
    world.models["warm"] = replace(WARM, model=WARM.model.model_copy(update={"spec": changed}))
    world.step()
    plan = world.step()
    assert world.condition("VariantsReady") == ("False", "Progressing")
    assert plan.children == ()
    world.models["warm"] = WARM
    world.run()
    assert world.condition("Succeeded")[0] == "True"


def test_a_model_still_training_its_spec_is_waited_for(world: World) -> None:
    unseen = WARM.model.metadata.model_copy(update={"generation": WARM.model.metadata.generation + 1})
    world.models["warm"] = replace(WARM, model=WARM.model.model_copy(update={"metadata": unseen}))
    world.step()
    world.step()
    assert world.condition("VariantsReady") == ("False", "Progressing")


def test_what_serves_is_not_compared_with_itself_unless_it_is_named(world: World) -> None:
    for variant in world.spec["variants"]:
        variant["modelRef"] = {"name": "movies"}
    world.step()
    world.step()
    assert world.condition("Ready") == ("False", "Progressing")
    waits = world.status.condition("VariantsReady")
    assert waits is not None
    assert "to have a newer revision than control's" in waits.message
    world.spec["variants"][1]["revision"] = MOVIES.revisions[-1].name
    world.gain, world.p_value = {"new": 0.0}, 1.0
    world.run()
    assert world.condition("Succeeded") == ("True", "NoDifference")


def test_two_variants_of_one_revision_are_scored_once(world: World) -> None:
    world.models["warm"] = type(MOVIES)(MOVIES.model, MOVIES.revisions)
    world.gain, world.p_value = {"new": 0.0}, 1.0
    world.run()
    assert world.runs == {"score-old": 1, "compare": 1}
    assert world.status.conclusion is not None
    assert world.status.conclusion.reason == "NoDifference"


def test_a_variant_that_is_away_for_a_while_costs_no_work(world: World) -> None:
    world.step()
    world.step()
    away = world.models.pop("warm")
    world.step()
    assert len(world.jobs) == 2
    assert world.condition("Ready") == ("False", "ModelNotFound")
    world.models["warm"] = away
    world.run()
    assert world.runs == {"score-old": 1, "score-new": 1, "compare": 1}


def test_another_seed_of_controls_model_changes_nothing_that_runs(world: World) -> None:
    world.step()
    world.step()
    training = MOVIES.model.spec.training.model_copy(update={"seed": 99})
    spec = MOVIES.model.spec.model_copy(update={"training": training})
    world.models["movies"] = type(MOVIES)(MOVIES.model.model_copy(update={"spec": spec}), MOVIES.revisions)
    world.run()
    assert world.runs == {"score-old": 1, "score-new": 1, "compare": 1}


def test_it_ends_at_its_deadline(world: World) -> None:
    world.spec["activeDeadlineSeconds"] = 60
    world.step()
    plan = world.step()
    assert plan.requeue_after == 60
    world.now += timedelta(seconds=61)
    assert world.step().requeue_after == 0, "what is at work must go"
    assert world.condition("Succeeded") == ("False", "DeadlineExceeded")
    world.step()
    assert not world.jobs


def test_what_keeps_a_job_from_starting_is_told(world: World) -> None:
    world.step()
    world.step()
    name = world.job("score-new")
    world.jobs[name] = replace(world.jobs[name], reason="ImagePullError", message="no such image (Pod x)")
    world.step()
    assert world.condition("Stalled") == ("True", "ImagePullError")
    world.run()
    assert world.condition("Succeeded")[0] == "True"


def test_a_gate_without_a_number_is_no_verdict(world: World) -> None:
    offline(world, gates=[{"metric": "UAUC", "minimum": "0.1"}])
    world.step()
    world.step()
    for name in ("score-old", "score-new"):
        world.succeed(world.job(name))
    world.step()
    name = world.job("compare")
    world.succeed(name)
    told = world.jobs[name].termination
    assert told is not None
    world.jobs[name] = replace(world.jobs[name], termination=told.model_copy(update={"metrics": {}}))
    world.step()
    assert world.condition("Stalled") == ("True", "EvaluationFailed")
    assert world.status.conclusion is None


def test_many_missed_gates_fit_into_a_status(world: World) -> None:
    metrics = [f"NDCG@{k}" for k in range(1, 9)] + [f"MAP@{k}" for k in range(1, 9)]
    offline(world, gates=[{"metric": name, "minimum": "0.9", "maxRegression": "0.0"} for name in metrics])
    world.spec["variants"] += [{"name": f"candidate-number-{n}", "modelRef": {"name": "warm"}} for n in range(6)]
    world.gain = dict.fromkeys(("new", *(f"candidate-number-{n}" for n in range(6))), -0.1)
    world.step()
    for _ in range(4):
        world.step()
        for job in [job for job in world.jobs.values() if job.active]:
            world.succeed(job.name)
    world.step()
    assert world.status.conclusion is None or len(world.status.conclusion.message) <= 4096


def test_draws_tell_a_p_value_below_the_corrected_level(world: World) -> None:
    world.spec["analysis"] = {"metrics": [{"name": "clicks", "event": {"name": "click"}}], "significanceLevel": "0.005"}
    world.run()
    given = world.children[world.job("compare")].stage.parameters
    assert isinstance(given, CompareParameters)
    assert given.bootstrap_samples == 4000


def test_the_secret_of_the_experiments_own_data_reaches_the_job_that_reads_them(world: World) -> None:
    own = {
        "storageUri": "s3://private/later.parquet",
        "items": {"storageUri": "s3://private/items.parquet"},
        "secretRef": {"name": "private-data"},
    }
    offline(world, dataset=own)
    world.step()
    world.step()
    names = [secret.name for secret in world.children[world.job("dataset")].settings.secrets]
    assert "private-data" in names


def test_the_same_rows_are_drawn_for_a_variant_that_was_trained_with_another_seed(world: World) -> None:
    world.models["warm"] = trained("warm", training={"seed": 7})
    world.run()
    assert world.models["warm"].revisions[-1].data.seed == 7
    seeds = {child.stage.seed for child in world.children.values()}
    assert seeds == {MOVIES.revisions[-1].data.seed}
