# SPDX-License-Identifier: Apache-2.0
"""Experiments on users on a real control plane: pods, the traffic table, looks, promotion, rollback, kills."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.models import condition
from support.scene import SECONDS, Scene, killed_after_every_write
from support.waiting import wait_for
from thinkrec_crds.traffic import TrafficTable
from thinkrec_operator.cluster.resources import DEPLOYMENT, SERVICE

Body = dict[str, Any]
EVEN = {"void": 0.0, "enough": 0.0, "unavailable": 0.0, "0/users": 400.0, "1/users": 410.0}
EFFECT = {"": 0.05, "/lower": 0.02, "/upper": 0.08, "/p": 0.001, "/significant": 1.0, "/better": 1.0}
BETTER = EVEN | {"enough": 1.0, "winner": 1.0} | {f"1/m0/effect{name}": value for name, value in EFFECT.items()}
SLOW = EVEN | {"1/g0": 90.0, "1/g0/regression": 0.8, "1/g0/violated": 1.0}
ANALYSIS = {
    "metrics": [{"name": "clicks", "event": {"name": "click"}}],
    "guardrails": [{"name": "latency", "request": {"field": "LatencyMilliseconds"}, "maxRegression": "0.2"}],
    "minSampleSize": 100,
    "periodSeconds": 10,
}


def path(scene: Scene) -> str:
    return f"/apis/thinkrec.io/v1alpha1/namespaces/{scene.namespace}/thinkrecexperiments"


def seen(scene: Scene) -> Body:
    return scene.api.get(f"{path(scene)}/warmer")


def status(scene: Scene) -> Body:
    found: Body = seen(scene).get("status", {})
    return found


def two_revisions(scene: Scene) -> tuple[str, str]:
    """Train the model twice; return the revision that serves, and the newer one that waits for an experiment."""
    scene.apply(serving={"updatePolicy": "OnExperiment"})
    scene.wait_ready()
    first = scene.api.get(scene.path)["status"]["servingRevision"]
    scene.patch(gate={"temperature": "0.5"})
    scene.wait(lambda model: condition(model, "Ready", "reason") == "WaitingForPin", "a newer revision that waits")
    return first, scene.api.get(scene.path)["status"]["latestRevision"]


def apply(scene: Scene, control: str, **spec: Any) -> None:
    """Compare the model's own two revisions on its users."""
    body: Body = {
        "variants": [
            {"name": "old", "modelRef": {"name": "movies"}, "revision": control},
            {"name": "new", "modelRef": {"name": "movies"}},
        ],
        "controlVariantName": "old",
        "traffic": {"mode": "ABTest", "assignment": {"type": "HashedHeader", "key": "x-user"}},
        "analysis": ANALYSIS,
        "promotionPolicy": "Automatic",
    }
    kind = {"apiVersion": "thinkrec.io/v1alpha1", "kind": "ThinkRecExperiment", "metadata": {"name": "warmer"}}
    scene.api.create(path(scene), {**kind, "spec": body | spec})


def table(scene: Scene) -> TrafficTable | None:
    """Return what the model's gateway is told, or None where it has no ConfigMap."""
    found = scene.api.find(f"/api/v1/namespaces/{scene.namespace}/configmaps/movies-traffic")
    return TrafficTable.from_json(found["data"]["traffic.json"]) if found is not None else None


def shared(scene: Scene) -> dict[str, int]:
    """Return the weights that the gateway is told; empty where nobody is shared out."""
    found = table(scene)
    return dict(found.experiments[0].weights) if found is not None and found.experiments else {}


def own_objects(scene: Scene) -> list[str]:
    """Return the names of the experiment's Deployments and Services."""
    kinds = ((DEPLOYMENT, "apps/v1"), (SERVICE, ""))
    bodies = [body for resource, group in kinds for body in scene.items(resource.plural, group)]
    return [b["metadata"]["name"] for b in bodies if "thinkrec.io/experiment" in b["metadata"].get("labels", {})]


def wait_for_verdict(scene: Scene, seconds: float = SECONDS) -> Body:
    wait_for(lambda: "conclusion" in status(scene), f"a verdict; see {scene.operator.log}", seconds=seconds)
    told: Body = status(scene)["conclusion"]
    return told


def test_the_better_revision_wins_is_promoted_and_serves(scene: Scene) -> None:
    scene.stages.look = dict(EVEN)
    first, newest = two_revisions(scene)
    assert table(scene) is None
    apply(scene, first)
    wait_for(lambda: shared(scene) == {"old": 50, "new": 50}, "the users to be shared out", seconds=SECONDS)
    found = table(scene)
    assert found is not None
    variants = {variant.name: variant for variant in found.experiments[0].variants}
    assert variants["old"].url is None
    assert variants["new"].url == f"http://warmer-new.{scene.namespace}.svc"
    assert {name: v.revision for name, v in variants.items()} == {"old": first, "new": newest}
    wait_for(lambda: condition(seen(scene), "Ready", "reason") == "Running", "that to be told")  # after the table
    assert scene.api.get(scene.path)["status"]["servingRevision"] == first
    scene.stages.look = dict(BETTER)
    told = wait_for_verdict(scene)
    assert (told["reason"], told["winner"], told["effect"]) == ("SignificantWinner", "new", "0.05")
    scene.wait(lambda model: model["status"].get("servingRevision") == newest, "the promoted revision to serve")
    model = scene.api.get(scene.path)
    assert model["status"]["promotion"]["experiment"] == "warmer"
    assert condition(model, "Ready", "reason") == "Serving"
    wait_for(lambda: not own_objects(scene), "the variant's pods to go", seconds=SECONDS)
    wait_for(lambda: shared(scene) == {}, "the table to be empty", seconds=SECONDS)
    reasons = [event["reason"] for event in scene.items("events") if event["involvedObject"]["name"] == "warmer"]
    assert sorted(reasons) == ["ExperimentStarted", "Promoted", "SignificantWinner", "TrafficStarted"]
    scene.api.delete(f"{path(scene)}/warmer")
    scene.patch(suspend=True)
    scene.wait(lambda found: condition(found, "Suspended") == "True", "another visit")
    assert scene.api.get(scene.path)["status"]["servingRevision"] == newest


def test_a_violated_guardrail_rolls_a_canary_back(scene: Scene) -> None:
    scene.stages.look = dict(SLOW)
    first, _ = two_revisions(scene)
    steps = [{"weight": 10, "pauseSeconds": 60}, {"weight": 50, "pauseSeconds": 60}]
    apply(scene, first, traffic={"mode": "Canary", "steps": steps})
    wait_for(lambda: shared(scene) == {"old": 90, "new": 10}, "the first step", seconds=SECONDS)
    told = wait_for_verdict(scene)
    assert told["reason"] == "GuardrailViolated"
    assert condition(seen(scene), "RolledBack") == "True"
    wait_for(lambda: shared(scene) == {}, "the table to be empty", seconds=SECONDS)
    assert scene.api.get(scene.path)["status"]["servingRevision"] == first
    warnings = {e["reason"] for e in scene.items("events") if e["type"] == "Warning"}
    assert {"GuardrailViolated", "RolledBack"} <= warnings


def test_a_deleted_experiment_gives_the_users_back(scene: Scene) -> None:
    scene.stages.look = dict(EVEN)
    first, _ = two_revisions(scene)
    apply(scene, first)
    wait_for(lambda: shared(scene) != {}, "the users to be shared out", seconds=SECONDS)
    scene.api.delete(f"{path(scene)}/warmer")
    wait_for(lambda: shared(scene) == {}, "the table to be empty", seconds=SECONDS)
    wait_for(lambda: not own_objects(scene), "the variant's pods to go", seconds=SECONDS)


def test_somebody_elses_edit_of_the_table_is_put_right(scene: Scene) -> None:
    scene.stages.look = dict(EVEN)
    first, _ = two_revisions(scene)
    apply(scene, first)
    wait_for(lambda: shared(scene) != {}, "the users to be shared out", seconds=SECONDS)
    address = f"/api/v1/namespaces/{scene.namespace}/configmaps/movies-traffic"
    scene.api.patch(address, {"data": {"traffic.json": json.dumps({"experiments": []})}})
    scene.operator.kill()  # ConfigMaps are listed, not watched
    scene.operator.start()
    wait_for(lambda: shared(scene) == {"old": 50, "new": 50}, "the table to be as it was", seconds=SECONDS)


@pytest.mark.timeout(600)
def test_killed_after_every_single_write_it_ends_the_same(scene: Scene) -> None:
    scene.stages.look = dict(BETTER)
    first, newest = two_revisions(scene)

    def serves() -> bool:
        return bool(scene.api.get(scene.path)["status"].get("servingRevision") == newest)

    def tidy() -> bool:
        return serves() and not own_objects(scene) and shared(scene) == {}

    with killed_after_every_write(scene) as kills:
        apply(scene, first)
        wait_for(serves, "the promoted revision to serve", seconds=300)
        wait_for(tidy, "everything to be tidied up", seconds=120)
    told = status(scene)["conclusion"]
    assert (told["reason"], told["winner"]) == ("SignificantWinner", "new")
    named = [event["reason"] for event in scene.items("events") if event["involvedObject"]["name"] == "warmer"]
    assert sorted(named) == ["ExperimentStarted", "Promoted", "SignificantWinner", "TrafficStarted"]
    assert len(kills) >= 12
