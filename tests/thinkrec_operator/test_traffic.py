# SPDX-License-Identifier: Apache-2.0
"""What experiments ask of a model, and what the model does about it: the traffic table, a held rollout, a promotion."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from support.model_world import SPEC, START, World, merged
from thinkrec_crds.experiment import ThinkRecExperiment
from thinkrec_crds.traffic import TrafficExperiment, TrafficTable
from thinkrec_operator.cluster.wishes import Wishes
from thinkrec_operator.manifests import render
from thinkrec_operator.observed import Experiments, Promotion
from thinkrec_operator.plan import ConfigMapChild

KEY = ("team", "warmer")
MOVIES, WARM, FRONT = ("team", "movies"), ("team", "warm"), ("team", "front")


def shared(name: str = "warmer", weight: int = 50) -> TrafficExperiment:
    """Return what one experiment asks of its gateway."""
    return TrafficExperiment.model_validate(
        {
            "uid": f"uid-{name}",
            "name": name,
            "mode": "ABTest",
            "control": "old",
            "variants": [
                {"name": "old", "revision": "movies-1", "weight": 100 - weight, "ready": True},
                {"name": "new", "revision": "movies-2", "url": "http://new", "weight": weight, "ready": True},
            ],
        }
    )


def table(world: World) -> TrafficTable | None:
    """Return what the model's ConfigMap says, or None where it has none."""
    found = [c for c in world.step().children if isinstance(c, ConfigMapChild) and c.component == "traffic"]
    if not found:
        return None
    body = render(found[0])
    assert "immutable" not in body
    assert body["metadata"]["name"] == "movies-traffic"
    return TrafficTable.from_json(body["data"]["traffic.json"])


def trained(**spec: Any) -> World:
    world = World(spec=merged(SPEC, spec))
    world.run()
    return world


def test_a_model_has_a_table_once_an_experiment_shares_out_its_users() -> None:
    world = trained()
    assert table(world) is None
    world.experiments = Experiments(traffic=(shared(), shared("other", 10)))
    found = table(world)
    assert found is not None
    assert [one.name for one in found.experiments] == ["warmer", "other"]


def test_an_empty_table_stays_when_the_last_one_has_ended() -> None:
    world = trained()
    world.traffic_shared = True
    found = table(world)
    assert found is not None
    assert found.experiments == ()


def serving(world: World) -> str:
    assert world.serving is not None
    return world.serving.revision


def retrained(world: World) -> str:
    """Change the spec and let it train; return the name of the new revision."""
    world.spec = merged(world.spec, {"gate": {"temperature": "0.7"}})
    world.generation += 1
    world.run()
    return max(world.revisions.values(), key=lambda record: record.number).name


def test_no_rollout_while_an_experiment_shares_out_the_users() -> None:
    world = trained()
    before = serving(world)
    world.experiments = Experiments(holding="warmer")
    newest = retrained(world)
    assert newest != before
    assert serving(world) == before
    ready = world.status.condition("Ready")
    assert ready is not None
    assert (ready.status, ready.reason) == ("True", "ExperimentRunning")
    world.experiments = Experiments()
    world.run()
    assert serving(world) == newest


def test_a_pin_is_followed_whatever_an_experiment_does() -> None:
    world = trained(serving={"updatePolicy": "OnExperiment"})
    world.experiments = Experiments(holding="warmer")
    newest = retrained(world)
    world.spec = merged(world.spec, {"serving": {"revision": newest}})
    world.generation += 1
    world.run()
    assert serving(world) == newest


def test_a_promotion_is_followed_and_outlives_its_experiment() -> None:
    world = trained(serving={"updatePolicy": "OnExperiment"})
    first, newest = serving(world), retrained(world)
    assert serving(world) == first
    world.experiments = Experiments(promotion=Promotion("warmer", "e-1", newest, world.now))
    world.run()
    assert serving(world) == newest
    assert world.status.promotion is not None
    assert (world.status.promotion.experiment, world.status.promotion.revision) == ("warmer", newest)
    world.experiments = Experiments()  # its object is gone
    world.run()
    assert serving(world) == newest


def test_while_a_promotion_rolls_out_ready_says_what_serves_and_what_starts() -> None:
    world = trained(serving={"updatePolicy": "OnExperiment"})
    first, newest = serving(world), retrained(world)
    world.experiments = Experiments(promotion=Promotion("warmer", "e-1", newest, world.now))
    world.step()
    ready = world.status.condition("Ready")
    assert ready is not None
    assert (ready.status, ready.message.partition(". ")[0]) == (
        "True",
        f"Revision {first} serves, {newest} is starting",
    )
    world.run()
    ready = world.status.condition("Ready")
    assert ready is not None
    assert ready.message.startswith(f"Revision {newest} serves. ")


def test_a_pin_that_is_taken_back_leaves_what_it_pinned_and_does_not_repeat_a_promotion() -> None:
    world = trained(serving={"updatePolicy": "OnExperiment"})
    first, newest = serving(world), retrained(world)
    world.experiments = Experiments(promotion=Promotion("warmer", "e-1", newest, world.now))
    world.run()
    world.spec = merged(world.spec, {"serving": {"revision": first}})
    world.generation += 1
    world.run()
    assert serving(world) == first
    del world.spec["serving"]["revision"]
    world.experiments = Experiments()
    world.generation += 1
    world.run()
    assert serving(world) == first


@pytest.mark.parametrize("policy", ["Automatic", "Manual"])
def test_other_policies_follow_no_promotion(policy: str) -> None:
    world = trained(serving={"updatePolicy": policy})
    first, newest = serving(world), retrained(world)
    world.experiments = Experiments(promotion=Promotion("warmer", "e-1", first, world.now))
    world.run()
    assert serving(world) == (newest if policy == "Automatic" else first)


def test_a_promotion_of_an_unknown_revision_changes_nothing() -> None:
    world = trained(serving={"updatePolicy": "OnExperiment"})
    before = serving(world)
    world.experiments = Experiments(promotion=Promotion("warmer", "e-1", "movies-gone", world.now))
    world.run()
    assert serving(world) == before
    assert world.status.promotion is not None
    assert world.status.promotion.revision == before


def experiment(name: str = "warmer", **changes: Any) -> ThinkRecExperiment:
    """Return an experiment that shares out the users of `movies`."""
    status: dict[str, Any] = {
        "trafficStartTime": START.isoformat(),
        "variants": [
            {"name": "old", "resolvedRevision": "movies-1", "weight": 50, "readyReplicas": 1},
            {"name": "new", "resolvedRevision": "warm-1", "weight": 50, "readyReplicas": 1, "url": "http://new"},
        ],
    }
    spec = {
        "variants": [{"name": "old", "modelRef": {"name": "movies"}}, {"name": "new", "modelRef": {"name": "warm"}}],
        "controlVariantName": "old",
        "traffic": {"mode": "ABTest", "assignment": {"type": "Random"}},
        "analysis": {"metrics": [{"name": "clicks", "event": {"name": "click"}}]},
    }
    metadata = {"name": name, "namespace": "team", "uid": f"uid-{name}"}
    return ThinkRecExperiment.model_validate(
        {"metadata": metadata, "spec": spec | changes.pop("spec", {}), "status": status | changes}
    )


def promoted(name: str, winner: str, hours: int) -> ThinkRecExperiment:
    """Return an experiment that ended with a promotion."""
    condition = {"type": "Promoted", "status": "True", "reason": "Succeeded", "lastTransitionTime": START.isoformat()}
    return experiment(
        name,
        conclusion={"winner": winner, "reason": "SignificantWinner"},
        conditions=[condition],
        completionTime=(START + timedelta(hours=hours)).isoformat(),
    )


def test_what_is_no_table_shares_out_nobody_and_hurts_no_model() -> None:
    wishes = Wishes()
    rows = [{"name": name, "resolvedRevision": "movies-1", "weight": 70, "readyReplicas": 1} for name in ("old", "new")]
    broken = experiment(variants=rows)
    wishes.put(KEY, broken)
    assert wishes.about(MOVIES).traffic == ()


def test_a_gateway_that_was_left_asks_nobody_who_is_gone() -> None:
    wishes = Wishes()
    traffic = {"mode": "ABTest", "assignment": {"type": "Random"}}
    wishes.put(KEY, experiment(spec={"traffic": {**traffic, "gatewayRef": {"name": "front"}}}))
    assert set(wishes.put(KEY, experiment(spec={"traffic": traffic}))) >= {FRONT}
    wishes.drop(KEY)
    assert (wishes.followers(FRONT), wishes.about(FRONT)) == ((), Experiments())


def test_following_experiments_begins_with_what_serves() -> None:
    """An old promotion, of when the model followed none, does not come into force."""
    world = trained()
    first = serving(world)
    second = retrained(world)
    world.experiments = Experiments(promotion=Promotion("one", "e-1", first, START))
    world.spec = merged(world.spec, {"serving": {"updatePolicy": "OnExperiment"}})
    world.generation += 1
    world.run()
    assert serving(world) == second


def test_a_model_is_told_only_of_what_changes_for_it() -> None:
    wishes = Wishes()
    assert set(wishes.put(KEY, experiment())) == {MOVIES, WARM}
    assert wishes.put(KEY, experiment()) == ()
    assert [one.name for one in wishes.about(MOVIES).traffic] == ["warmer"]
    assert wishes.about(MOVIES).holding == "warmer"
    assert wishes.about(MOVIES).in_use == {"movies-1"}
    assert (wishes.about(WARM).traffic, wishes.about(WARM).holding) == ((), "")
    assert wishes.about(WARM).in_use == {"warm-1"}
    assert wishes.followers(WARM) == (KEY,)
    assert set(wishes.drop(KEY)) == {MOVIES, WARM}
    assert wishes.about(MOVIES) == Experiments()
    assert wishes.drop(KEY) == ()


def test_the_gateways_model_shares_out_the_users_whoever_has_the_variants() -> None:
    wishes = Wishes()
    traffic = {"mode": "ABTest", "assignment": {"type": "Random"}, "gatewayRef": {"name": "front"}}
    wishes.put(KEY, experiment(spec={"traffic": traffic}))
    assert wishes.followers(FRONT) == (KEY,)
    assert [one.name for one in wishes.about(FRONT).traffic] == ["warmer"]
    assert wishes.about(MOVIES).traffic == ()


def test_the_promotion_that_came_last_counts_and_only_for_the_winners_model() -> None:
    wishes = Wishes()
    wishes.put(("team", "first"), promoted("first", "old", 1))
    wishes.put(("team", "second"), promoted("second", "new", 2))
    assert wishes.about(MOVIES).promotion == Promotion("first", "uid-first", "movies-1", START + timedelta(hours=1))
    assert wishes.about(WARM).promotion == Promotion("second", "uid-second", "warm-1", START + timedelta(hours=2))
    wishes.put(("team", "third"), promoted("third", "old", 3))
    assert wishes.about(MOVIES).promotion == Promotion("third", "uid-third", "movies-1", START + timedelta(hours=3))
    assert wishes.about(MOVIES).in_use == frozenset()
    assert wishes.about(MOVIES).traffic == ()


def test_an_older_promotion_does_not_come_back_when_a_newer_ones_object_goes() -> None:
    world = trained(serving={"updatePolicy": "OnExperiment"})
    first, second = serving(world), retrained(world)
    older, newer = world.now, world.now + timedelta(hours=1)
    world.experiments = Experiments(promotion=Promotion("one", "e-1", second, older))
    world.run()
    assert serving(world) == second
    world.experiments = Experiments(promotion=Promotion("two", "e-2", first, newer))
    world.run()
    assert serving(world) == first
    world.experiments = Experiments(promotion=Promotion("one", "e-1", second, older))
    world.run()
    assert serving(world) == first
