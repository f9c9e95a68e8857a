# SPDX-License-Identifier: Apache-2.0
"""An experiment on users from its first pod to its verdict: readiness, shares, looks, steps, ends, kills."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from support.experiment_world import SPEC, World, trained
from thinkrec_crds.experiment import ThinkRecExperiment
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_crds.stages import AnalyseParameters
from thinkrec_crds.traffic import TrafficExperiment
from thinkrec_operator.experiments.shares import table_entry
from thinkrec_operator.manifests import render
from thinkrec_operator.observed import JobState
from thinkrec_operator.plan import ConfigMapChild, DeploymentChild, JobChild, ServiceChild

MOVIES, WARM = trained("movies"), trained("warm", gate={"temperature": "0.5"})
ANALYSIS: Mapping[str, Any] = {
    "metrics": [{"name": "clicks", "event": {"name": "click"}}],
    "guardrails": [{"name": "latency", "request": {"field": "LatencyMilliseconds"}, "maxRegression": "0.2"}],
    "minSampleSize": 100,
    "periodSeconds": 60,
}
AB: Mapping[str, Any] = {"mode": "ABTest", "assignment": {"type": "HashedHeader", "key": "x-user"}}
CANARY: Mapping[str, Any] = {
    "mode": "Canary",
    "steps": [{"weight": 10, "pauseSeconds": 120}, {"weight": 50, "pauseSeconds": 60}],
}
NOTHING_YET = {"void": 0.0, "enough": 0.0, "unavailable": 0.0, "0/users": 40.0, "1/users": 41.0, "1/exposures": 80.0}
EVEN = {**NOTHING_YET, "enough": 1.0, "0/users": 900.0, "1/users": 910.0, "0/m0": 0.1, "1/m0": 0.1, "ratio/p": 0.8} | {
    "1/m0/effect": 0.0,
    "1/m0/effect/lower": -0.02,
    "1/m0/effect/upper": 0.02,
    "1/m0/effect/p": 0.9,
}
BETTER = EVEN | {
    "winner": 1.0,
    "1/m0": 0.15,
    "1/m0/effect": 0.05,
    "1/m0/effect/lower": 0.02,
    "1/m0/effect/upper": 0.08,
    "1/m0/effect/p": 0.001,
    "1/m0/effect/significant": 1.0,
    "1/m0/effect/better": 1.0,
}
WORSE = BETTER | {"winner": 0.0, "1/m0/effect": -0.05, "1/m0/effect/better": 0.0}
SLOW = EVEN | {"1/g0": 90.0, "1/g0/regression": 0.8, "1/g0/violated": 1.0, "guardrails/violated": 1.0}
UNKNOWN = {"unavailable": 1.0, "guardrails/silent": 1.0}
"""No guardrail has a value."""
OFFLINE = {"score-old": 1, "score-new": 1, "compare": 1}


def world_of(traffic: Mapping[str, Any], **spec: Any) -> World:
    """Return an experiment with users, after its offline comparison has let them in."""
    body = {**copy.deepcopy(dict(SPEC)), "traffic": dict(traffic), "analysis": dict(ANALYSIS), **spec}
    made = World(spec=body, models={"movies": MOVIES, "warm": WARM}, look=dict(NOTHING_YET))
    made.settle()
    return made


@pytest.fixture
def world() -> World:
    return world_of(AB)


def entry(world: World) -> TrafficExperiment | None:
    """Return what the gateway is told."""
    return table_entry(world.observed().experiment)


def weights(world: World) -> dict[str, int | None]:
    return {row.name: row.weight for row in world.status.variants}


def looks(world: World) -> list[AnalyseParameters]:
    found = [child.stage.parameters for child in world.children.values() if child.stage.kind is StageKind.ANALYSE]
    return [given for given in found if isinstance(given, AnalyseParameters)]


def reasons(world: World) -> list[str]:
    return [event.reason for event in world.events]


def told(world: World) -> tuple[str, str | None]:
    """Return reason and winner of the verdict."""
    assert world.status.conclusion is not None
    return world.status.conclusion.reason, world.status.conclusion.winner


def test_a_variant_of_another_revision_gets_pods_and_users_once_it_answers() -> None:
    world = World(
        spec={**copy.deepcopy(dict(SPEC)), "traffic": dict(AB), "analysis": dict(ANALYSIS)},
        models={"movies": MOVIES, "warm": WARM},
        answering=False,
    )
    world.settle()
    assert world.runs == OFFLINE
    assert list(world.deployments) == ["new"]
    assert (entry(world), world.status.traffic_start_time) == (None, None)
    assert world.condition("VariantsReady") == ("False", "ServingNotReady")
    assert world.condition("Ready") == ("False", "Progressing")
    assert world.condition("Reconciling")[0] == "True"
    assert weights(world) == {"old": 100, "new": 0}
    world.deployments["new"] = replace(world.deployments["new"], ready_replicas=1)
    world.settle()
    assert world.condition("Ready") == ("True", "Running")
    assert world.condition("TrafficConfigured") == ("True", "Succeeded")
    shared = entry(world)
    assert shared is not None
    rows = {variant.name: variant for variant in shared.variants}
    assert (shared.uid, shared.control, shared.mode) == ("e-1", "old", "ABTest")
    assert (rows["old"].url, rows["old"].weight, rows["old"].ready) == (None, 50, True)
    assert (rows["new"].url, rows["new"].weight, rows["new"].ready) == ("http://warmer-new.team.svc", 50, True)
    assert weights(world) == {"old": 50, "new": 50}


def test_no_offline_gate_no_users() -> None:
    world = world_of(AB, offline={"gates": [{"metric": "UAUC", "minimum": "0.99"}]})
    assert told(world) == ("OfflineGateFailed", None)
    assert world.deployments == {}
    assert entry(world) is None
    assert world.condition("RolledBack")[0] == "False"


def test_pods_that_do_not_come_up_stall_it_and_it_goes_on_when_they_do() -> None:
    world = World(
        spec={**copy.deepcopy(dict(SPEC)), "traffic": dict(AB), "analysis": dict(ANALYSIS)},
        models={"movies": MOVIES, "warm": WARM},
        answering=False,
    )
    plan = world.settle()
    assert plan.requeue_after == 3600.0
    world.wait(3601)
    assert world.condition("Stalled") == ("True", "ServingNotReady")
    assert "warmer-new are starting" in next(c.message for c in world.status.conditions if c.type == "Stalled")
    world.deployments["new"] = replace(world.deployments["new"], ready_replicas=1)
    world.settle()
    assert world.condition("Stalled")[0] == "absent"
    assert world.condition("Ready") == ("True", "Running")


def test_without_an_answering_control_nobody_is_shared_out(world: World) -> None:
    model = MOVIES.model
    away = model.model_copy(update={"status": model.status.model_copy(update={"ready_replicas": 0})})
    world.models["movies"] = replace(MOVIES, model=away)
    world.settle()
    assert entry(world) is None
    assert world.condition("TrafficConfigured") == ("False", "ServingNotReady")
    world.models["movies"] = MOVIES
    world.settle()
    assert entry(world) is not None


def test_a_variant_that_dies_keeps_its_users_and_control_answers(world: World) -> None:
    world.deployments["new"] = replace(world.deployments["new"], ready_replicas=0)
    world.settle()
    shared = entry(world)
    assert shared is not None
    assert [(v.name, v.weight, v.ready) for v in shared.variants] == [("old", 50, True), ("new", 50, False)]
    assert world.condition("TrafficConfigured") == ("True", "ServingNotReady")


def test_a_control_that_its_model_no_longer_serves_gets_pods_of_its_own(world: World) -> None:
    model = MOVIES.model
    other = model.model_copy(update={"status": model.status.model_copy(update={"serving_revision": "movies-other"})})
    world.models["movies"] = replace(MOVIES, model=other)
    world.settle()
    assert sorted(world.deployments) == ["new", "old"]
    shared = entry(world)
    assert shared is not None
    assert {v.name: v.url for v in shared.variants} == {
        "old": "http://warmer-old.team.svc",
        "new": "http://warmer-new.team.svc",
    }


def test_looks_come_each_period_one_at_a_time(world: World) -> None:
    assert looks(world) == []
    assert world.step().requeue_after == pytest.approx(60, abs=30)
    world.wait(60)
    assert [look.number for look in looks(world)] == [1]
    analysis = world.status.analysis
    assert analysis is not None
    assert (analysis.number, analysis.violations, analysis.inconclusive) == (1, 0, 0)
    assert [row.users for row in world.status.variants] == [40, 41]
    assert [row.exposures for row in world.status.variants] == [0, 80]
    world.wait(240)  # two were missed meanwhile
    assert [look.number for look in looks(world)][-1] == 5
    given = looks(world)[-1]
    assert (given.end - given.start).total_seconds() == 300
    assert world.status.traffic_start_time == given.start
    assert given.events_uri == "s3://store/movies"
    previous = {ref.name: ref for ref in list(world.children.values())[-1].stage.inputs}["previous"]
    assert previous.digest.startswith("sha256:")


def test_a_winner_ends_it_and_is_promoted() -> None:
    world = world_of(AB, promotionPolicy="Automatic")
    world.look = dict(BETTER)
    world.wait(60)
    assert told(world) == ("SignificantWinner", "new")
    conclusion = world.status.conclusion
    assert conclusion is not None
    assert (conclusion.metric, conclusion.effect, conclusion.p_value) == ("clicks", "0.05", "0.001")
    assert "910 users against 900" in conclusion.message
    assert world.condition("Promoted") == ("True", "Succeeded")
    assert world.condition("RolledBack") == ("False", "SignificantWinner")
    assert world.condition("Succeeded") == ("True", "SignificantWinner")
    assert (entry(world), world.deployments, world.others) == (None, {}, set())
    assert weights(world) == {"old": 100, "new": 0}
    effects = world.status.analysis.effects if world.status.analysis else ()
    assert [(row.variant, row.metric, row.significant) for row in effects] == [("new", "clicks", True)]
    metrics = {m.name: m.value for m in world.status.variants[1].metrics}
    assert metrics["clicks"] == "0.15"
    assert "UAUC" in metrics


def test_too_few_users_do_not_end_it_and_enough_without_a_winner_do(world: World) -> None:
    world.wait(60)
    assert world.status.conclusion is None
    world.look = dict(EVEN)
    world.wait(60)
    assert told(world) == ("NoDifference", None)
    assert world.condition("RolledBack") == ("True", "NoDifference")


def test_it_runs_at_least_as_long_as_was_asked_for() -> None:
    world = world_of({**AB, "durationSeconds": 180})
    world.look = dict(BETTER)
    world.wait(60)
    assert world.status.conclusion is None
    world.wait(130)
    assert told(world) == ("SignificantWinner", "new")
    assert [look.at_end for look in looks(world)] == [False, True]


def test_users_who_do_not_arrive_as_expected_void_it(world: World) -> None:
    world.look = {**BETTER, "void": 1.0, "ratio/p": 0.00001}
    del world.look["winner"]
    world.wait(60)
    assert told(world) == ("SampleRatioMismatch", None)
    assert world.condition("Succeeded")[0] == "False"
    assert world.condition("RolledBack") == ("True", "SampleRatioMismatch")
    assert world.status.conclusion is not None
    assert world.status.conclusion.sample_ratio_mismatch


def test_a_violated_guardrail_ends_it_beyond_what_is_tolerated() -> None:
    world = world_of(AB, analysis={**ANALYSIS, "failureLimit": 1})
    world.look = {**SLOW, "enough": 0.0}
    world.wait(60)
    assert world.status.conclusion is None
    world.look = dict(NOTHING_YET)
    world.wait(60)
    world.look = {**SLOW, "enough": 0.0}
    world.wait(60)
    assert world.status.conclusion is None
    world.wait(60)
    assert told(world) == ("GuardrailViolated", None)
    assert world.condition("RolledBack") == ("True", "GuardrailViolated")
    assert world.condition("Succeeded") == ("True", "GuardrailViolated")
    assert world.status.conclusion is not None
    assert world.status.conclusion.message.startswith("new: latency is 90 (+80.0 % worse than control)")


def test_without_rollback_a_violated_guardrail_is_told_at_the_end() -> None:
    world = world_of({**AB, "durationSeconds": 120}, rollbackPolicy="None")
    world.look = dict(SLOW)
    world.wait(60)
    assert world.status.conclusion is None
    world.wait(70)
    assert told(world) == ("GuardrailViolated", None)


def test_a_violated_guardrail_keeps_a_winner_waiting() -> None:
    world = world_of(AB, promotionPolicy="Automatic", analysis={**ANALYSIS, "failureLimit": 1})
    world.look = BETTER | {"1/g0/violated": 1.0, "guardrails/violated": 1.0}
    world.wait(60)
    assert world.status.conclusion is None
    world.look = dict(BETTER)
    world.wait(60)
    assert told(world) == ("SignificantWinner", "new")


def test_a_guardrail_without_a_value_takes_nothing_back_and_lets_nobody_win() -> None:
    world = world_of(AB, promotionPolicy="Automatic", analysis={**ANALYSIS, "failureLimit": 1, "inconclusiveLimit": 2})
    for look in (SLOW, BETTER | UNKNOWN):
        world.look = dict(look)
        world.wait(60)
        assert world.status.conclusion is None
        assert world.status.analysis is not None
        assert world.status.analysis.violations == 1
    world.look = dict(SLOW)
    world.wait(60)
    assert told(world) == ("GuardrailViolated", None)


def test_a_canary_stays_on_its_step_while_nobody_knows_what_a_guardrail_says() -> None:
    world = world_of(CANARY)
    world.look = EVEN | UNKNOWN
    for _ in range(4):
        world.wait(60)
    assert world.status.current_step_index == 0


def test_without_rollback_a_canary_goes_on_and_tells_of_the_harm_at_its_end() -> None:
    world = world_of(CANARY, rollbackPolicy="None")
    world.look = dict(SLOW)
    for _ in range(8):
        if world.status.conclusion is None:
            world.wait(60)
    assert world.status.current_step_index == 1
    assert told(world) == ("GuardrailViolated", None)


def test_a_canary_goes_up_its_steps_and_ends_on_the_last() -> None:
    world = world_of(CANARY, promotionPolicy="Automatic")
    assert (weights(world), world.status.current_step_index) == ({"old": 90, "new": 10}, 0)
    world.look = dict(BETTER)
    world.wait(60)
    assert (weights(world), world.status.current_step_index) == ({"old": 90, "new": 10}, 0)
    world.wait(70)
    assert (weights(world), world.status.current_step_index) == ({"old": 50, "new": 50}, 1)
    assert world.status.conclusion is None
    world.wait(130)
    assert told(world) == ("SignificantWinner", "new")
    assert "StepStarted" in reasons(world)


def test_a_canary_that_loses_is_rolled_back_at_once() -> None:
    world = world_of(CANARY)
    world.look = dict(WORSE)
    world.wait(60)
    assert told(world) == ("SignificantWinner", "old")
    assert world.condition("RolledBack") == ("True", "SignificantWinner")
    assert weights(world) == {"old": 100, "new": 0}


def test_a_canary_stays_on_its_step_while_a_guardrail_is_violated() -> None:
    world = world_of(CANARY, analysis={**ANALYSIS, "failureLimit": 100})
    world.look = dict(SLOW)
    for _ in range(4):
        world.wait(60)
    assert world.status.current_step_index == 0
    world.look = dict(EVEN)
    world.wait(60)
    assert world.status.current_step_index == 1


def test_edited_weights_and_steps_are_followed() -> None:
    world = world_of(AB)
    for variant, weight in zip(world.spec["variants"], (80, 20), strict=True):
        variant["weight"] = weight
    world.generation += 1
    world.settle()
    assert weights(world) == {"old": 80, "new": 20}
    canary = world_of(CANARY)
    canary.spec["traffic"] = {**CANARY, "steps": [{"weight": 25, "pauseSeconds": 600}]}
    canary.generation += 1
    canary.settle()
    assert weights(canary) == {"old": 75, "new": 25}
    assert canary.runs["compare"] == 1


def test_a_gate_that_comes_later_and_is_missed_gives_the_users_back(world: World) -> None:
    world.spec["offline"] = {**world.spec["offline"], "gates": [{"metric": "UAUC", "minimum": "0.99"}]}
    world.generation += 1
    world.settle()
    assert told(world) == ("OfflineGateFailed", None)
    assert world.condition("RolledBack") == ("True", "OfflineGateFailed")
    assert (entry(world), world.deployments) == (None, {})


def test_suspended_all_users_are_with_control_and_nothing_runs(world: World) -> None:
    world.spec["suspend"] = True
    world.generation += 1
    world.settle()
    assert (entry(world), world.deployments) == (None, {})
    assert weights(world) == {"old": 100, "new": 0}
    assert world.condition("TrafficConfigured") == ("False", "Suspended")
    world.wait(300)
    assert looks(world) == []
    world.spec["suspend"] = False
    world.generation += 1
    world.settle()
    assert weights(world) == {"old": 50, "new": 50}
    assert entry(world) is not None


def test_after_a_suspension_a_steps_pause_begins_anew() -> None:
    world = world_of(CANARY)
    world.look = dict(EVEN)
    world.spec["suspend"] = True
    world.generation += 1
    world.settle()
    world.wait(1000)
    world.spec["suspend"] = False
    world.generation += 1
    world.settle()
    world.wait(60)
    assert world.status.current_step_index == 0
    world.wait(120)
    assert world.status.current_step_index == 1


def test_suspended_when_the_comparisons_job_is_long_gone_it_lets_go_of_its_pods(world: World) -> None:
    world.jobs.clear()
    world.spec["suspend"] = True
    world.generation += 1
    world.settle()
    assert (entry(world), world.deployments) == (None, {})
    assert world.condition("TrafficConfigured") == ("False", "Suspended")


def test_an_edit_that_compares_again_does_not_lose_sight_of_the_users(world: World) -> None:
    world.jobs.clear()
    world.spec["offline"] = {"metrics": [{"name": "AUC"}]}
    world.generation += 1
    world.step()
    world.step()
    assert entry(world) is not None
    assert list(world.deployments) == ["new"]
    world.now += timedelta(seconds=60)
    world.step()
    assert [look.number for look in looks(world)] == [1]
    world.settle()
    assert world.runs["compare"] == 2
    assert world.status.conclusion is None


def test_while_a_variants_model_is_away_all_users_are_with_control(world: World) -> None:
    away = world.models.pop("warm")
    world.settle()
    assert (entry(world), weights(world)) == (None, {"old": 100, "new": 0})
    assert world.condition("TrafficConfigured") == ("False", "Progressing")
    world.models["warm"] = away
    world.settle()
    assert entry(world) is not None
    assert weights(world) == {"old": 50, "new": 50}


def test_its_deadline_ends_it_and_gives_the_users_back() -> None:
    world = world_of(AB, activeDeadlineSeconds=300)
    world.wait(400)
    assert told(world) == ("DeadlineExceeded", None)
    assert world.condition("RolledBack") == ("True", "DeadlineExceeded")
    assert (entry(world), world.deployments) == (None, {})


def test_a_mirror_moves_nobody_and_ends_when_its_time_is_over() -> None:
    world = world_of({"mode": "Mirror", "mirrorPercent": 20, "durationSeconds": 600}, analysis=None)
    shared = entry(world)
    assert shared is not None
    assert (shared.mirror_percent, weights(world)) == (20, {"old": 100, "new": 0})
    world.wait(300)
    assert world.status.conclusion is None
    world.wait(310)
    assert told(world) == ("MirrorCompleted", None)
    assert world.condition("RolledBack")[0] == "False"


def test_a_metric_without_values_stalls_it_until_it_has_some() -> None:
    world = world_of(AB, analysis={**ANALYSIS, "inconclusiveLimit": 1})
    world.look = {**NOTHING_YET, "unavailable": 1.0}
    world.wait(60)
    assert world.condition("Stalled")[0] == "absent"
    world.wait(60)
    assert world.condition("Stalled") == ("True", "MetricUnavailable")
    world.look = dict(NOTHING_YET)
    world.wait(60)
    assert world.condition("Stalled")[0] == "absent"
    assert world.condition("Ready") == ("True", "Running")


def test_a_metric_that_was_never_measured_is_no_verdict() -> None:
    world = world_of(AB, analysis={**ANALYSIS, "inconclusiveLimit": 1})
    world.look = {**EVEN, "unavailable": 1.0, "silent": 1.0}
    world.wait(60)
    world.wait(60)
    assert world.status.conclusion is None
    assert world.condition("Stalled") == ("True", "MetricUnavailable")
    world.look = dict(EVEN)
    world.wait(60)
    assert told(world) == ("NoDifference", None)


def test_a_look_that_fails_is_told_and_the_next_one_is_taken(world: World) -> None:
    world.now += timedelta(seconds=60)
    world.step()
    world.fail(world.job("analyse-1"), "the store is not there")
    world.step()
    assert world.condition("Stalled") == ("True", "EvaluationFailed")
    world.look = dict(BETTER)
    world.wait(60)
    assert told(world) == ("SignificantWinner", "new")


def test_a_fixed_horizon_ends_at_its_end_even_without_the_sample() -> None:
    world = world_of({**AB, "durationSeconds": 120}, analysis={**ANALYSIS, "method": "FixedHorizon"})
    world.wait(60)
    assert world.status.conclusion is None
    world.wait(70)
    assert told(world) == ("NoDifference", None)
    assert world.status.conclusion is not None
    assert "fewer users than `minSampleSize`" in world.status.conclusion.message


def test_killed_after_any_write_it_ends_alike() -> None:
    def ended(kill: int | None) -> tuple[Any, ...]:
        world = world_of(CANARY, promotionPolicy="Automatic")
        world.look, writes = dict(BETTER), 0
        for _ in range(200):
            plan = world.step(writes=None if kill is None else max(0, kill - writes) if writes < kill else None)
            writes += len(plan.deletions) + len(plan.children) + 1
            for job in [job for job in world.jobs.values() if job.active]:
                world.succeed(job.name)
            if world.status.conclusion is not None and not plan.deletions:
                break
            world.now += timedelta(seconds=plan.requeue_after or 0)
        return told(world), world.runs["compare"], world.others, world.deployments, weights(world)

    whole = ended(None)
    assert whole[0] == ("SignificantWinner", "new")
    for kill in range(1, 40):
        assert ended(kill) == whole


def test_its_objects_are_its_own_and_told_apart_by_variant(world: World) -> None:
    plan = world.step()
    deployment = next(child for child in plan.children if isinstance(child, DeploymentChild))
    service = next(child for child in plan.children if isinstance(child, ServiceChild))
    config = next(child for child in plan.children if isinstance(child, ConfigMapChild))
    body, front = render(deployment), render(service)
    assert front["spec"]["selector"] == body["spec"]["selector"]["matchLabels"]
    assert body["spec"]["selector"]["matchLabels"] == {
        "thinkrec.io/experiment": "warmer",
        "app.kubernetes.io/component": "serving",
        "thinkrec.io/variant": "new",
    }
    labels = body["spec"]["template"]["metadata"]["labels"]
    assert body["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert "thinkrec.io/model" not in labels
    assert body["metadata"]["ownerReferences"][0]["kind"] == "ThinkRecExperiment"
    pod = body["spec"]["template"]["spec"]
    assert [container["name"] for container in pod["initContainers"]] == ["fetch-bundle", "fetch-base-model"]
    assert pod["containers"][0]["envFrom"] == [{"configMapRef": {"name": config.name}}]
    assert config.immutable


def test_an_analysis_runs_without_devices_and_with_the_stores_secret_only() -> None:
    world = world_of(AB, analysis={**ANALYSIS, "parallelism": 4})
    world.now += timedelta(seconds=60)
    plan = world.step()
    job = next(child for child in plan.children if isinstance(child, JobChild))
    pod = render(job)["spec"]["template"]["spec"]["containers"][0]
    assert render(job)["spec"]["completions"] == 4
    assert pod["resources"]["limits"] == {"memory": "4Gi"}
    assert world.jobs[job.name].state is JobState.PENDING


def test_a_gateway_model_that_is_missing_is_waited_for() -> None:
    world = world_of({**AB, "gatewayRef": {"name": "front"}})
    assert world.condition("Ready") == ("False", "ModelNotFound")
    world.models["front"] = trained("front")
    world.settle()
    assert world.condition("Ready") == ("True", "Running")
    assert sorted(world.deployments) == ["new", "old"]


def test_an_experiment_called_like_its_model_keeps_to_names_of_its_own(world: World) -> None:
    plan = world.step()
    config = next(child for child in plan.children if isinstance(child, ConfigMapChild))
    assert config.name.startswith("warmer-variants-")


def test_the_table_has_no_experiment_that_is_being_deleted(world: World) -> None:
    seen: ThinkRecExperiment = world.observed().experiment
    leaving = seen.metadata.model_copy(update={"deletion_timestamp": world.now})
    assert table_entry(seen) is not None
    assert table_entry(seen.model_copy(update={"metadata": leaving})) is None
