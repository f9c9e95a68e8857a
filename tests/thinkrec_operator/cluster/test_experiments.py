# SPDX-License-Identifier: Apache-2.0
"""Experiments on a real control plane: any order, one verdict, no Job twice, and a crash after each single write."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from support.api_proxy import Fault
from support.models import condition, model_manifest, models_path
from support.pretend_stages import failed
from support.scene import SECONDS, Scene, killed_after_every_write
from support.waiting import wait_for

Body = dict[str, Any]
SPEC: Body = {
    "variants": [
        {"name": "old", "modelRef": {"name": "movies"}},
        {"name": "new", "modelRef": {"name": "warm"}},
    ],
    "controlVariantName": "old",
    "offline": {"metrics": [{"name": "UAUC"}]},
}
QUIET_SECONDS = 2.0
WARM = {"experts": {"count": 2}, "gate": {"temperature": "0.5"}}


def experiments(namespace: str) -> str:
    return f"/apis/thinkrec.io/v1alpha1/namespaces/{namespace}/thinkrecexperiments"


def manifest(**spec: Any) -> Body:
    kind = {"apiVersion": "thinkrec.io/v1alpha1", "kind": "ThinkRecExperiment"}
    return {**kind, "metadata": {"name": "warmer"}, "spec": {**copy.deepcopy(SPEC), **spec}}


def seen(scene: Scene) -> Body:
    return scene.api.get(f"{experiments(scene.namespace)}/warmer")


def apply(scene: Scene, **spec: Any) -> None:
    scene.api.create(experiments(scene.namespace), manifest(**spec))


def wait_condition(scene: Scene, type_: str, status: str, seconds: float = SECONDS) -> None:
    wait_for(lambda: condition(seen(scene), type_) == status, f"{type_} to be {status}", seconds=seconds)


def train_both(scene: Scene) -> None:
    scene.apply()
    scene.api.create(models_path(scene.namespace), model_manifest("warm", **WARM))


def labels_of(scene: Scene) -> list[Body]:
    """Return the labels of the experiment's Jobs."""
    found = [job["metadata"]["labels"] for job in scene.items("jobs", "batch/v1")]
    return [labels for labels in found if "thinkrec.io/experiment" in labels]


def stages_of(scene: Scene) -> list[str]:
    return sorted(labels["thinkrec.io/stage"] for labels in labels_of(scene))


def ran_once(scene: Scene) -> bool:
    """Return whether no Job of the experiment had a second Pod; the models' own stages are not its business."""
    keys = [f"{scene.namespace}/{labels['thinkrec.io/stage-key']}" for labels in labels_of(scene)]
    return bool(keys) and {scene.stages.started[key] for key in keys} == {1}


def test_applied_before_its_models_it_ends_with_a_verdict(scene: Scene) -> None:
    apply(scene)
    wait_condition(scene, "Reconciling", "True")
    wait_for(lambda: condition(seen(scene), "Ready", "reason") == "ModelNotFound", "the missing model to be told")
    train_both(scene)
    wait_condition(scene, "Succeeded", "True")
    status = seen(scene)["status"]
    told = status["conclusion"]
    assert (told["winner"], told["reason"], told["effect"]) == ("new", "SignificantWinner", "0.02")
    assert [row["resolvedRevision"].rpartition("-")[0] for row in status["variants"]] == ["movies", "warm"]
    assert stages_of(scene) == ["compare", "score", "score"]
    assert ran_once(scene)
    events = {e["reason"] for e in scene.items("events") if e["involvedObject"]["kind"] == "ThinkRecExperiment"}
    assert events == {"ExperimentStarted", "SignificantWinner"}
    owners = [job["metadata"]["ownerReferences"][0] for job in scene.items("jobs", "batch/v1")]
    assert {owner["name"] for owner in owners if owner["kind"] == "ThinkRecExperiment"} == {"warmer"}


def test_a_restart_beside_a_verdict_writes_nothing(scene: Scene) -> None:
    train_both(scene)
    apply(scene)
    wait_condition(scene, "Succeeded", "True")
    wait_for(lambda: not scene.proxy.writes_within(QUIET_SECONDS), "everything to be written")
    before = len(scene.proxy.writes)
    scene.operator.kill()
    scene.operator.start()
    scene.operator.wait_ready()
    assert scene.proxy.writes_within(QUIET_SECONDS) == []
    assert len(scene.proxy.writes) == before


def test_a_failed_job_stalls_it_with_the_stages_own_sentence(scene: Scene) -> None:
    scene.stages.failing["score"] = [failed(64, "the bundle is of other data", kind="score")]
    train_both(scene)
    apply(scene)
    wait_condition(scene, "Stalled", "True")
    assert condition(seen(scene), "Stalled", "reason") == "EvaluationFailed"
    assert "the bundle is of other data" in condition(seen(scene), "Stalled", "message")
    scene.api.patch(f"{experiments(scene.namespace)}/warmer", {"spec": {"offline": {"backoffLimit": 5}}})
    wait_condition(scene, "Succeeded", "True")


def test_a_refused_job_is_told_as_such(scene: Scene) -> None:
    train_both(scene)
    scene.wait_ready()
    refusal = Fault(403, times=1000, matches=lambda method, path: method == "POST" and "/jobs" in path)
    scene.proxy.faults.append(refusal)
    apply(scene)
    wait_condition(scene, "Stalled", "True")
    assert condition(seen(scene), "Stalled", "reason") == "ChildRefused"
    scene.proxy.faults.clear()
    scene.api.patch(f"{experiments(scene.namespace)}/warmer", {"spec": {"offline": {"backoffLimit": 5}}})
    wait_condition(scene, "Succeeded", "True")


def test_jobs_that_are_removed_as_they_end_are_not_made_again(scene: Scene) -> None:
    train_both(scene)
    apply(scene, offline={"metrics": [{"name": "UAUC"}], "ttlSecondsAfterFinished": 0})
    wait_condition(scene, "Succeeded", "True")
    rows = {row["name"]: row for row in seen(scene)["status"]["stages"]}
    keys = [f"{scene.namespace}/{row['key']}" for row in rows.values()]
    assert sorted(rows) == ["compare", "score-new", "score-old"]
    assert {scene.stages.started[key] for key in keys} == {1}
    wait_for(lambda: not stages_of(scene), "its Jobs to go", seconds=60)


def test_without_their_definition_models_are_worked_on_all_the_same(scene: Scene) -> None:
    scene.operator.kill()
    missing = Fault(404, times=1000, matches=lambda method, path: path == "/apis/thinkrec.io/v1alpha1")
    scene.proxy.faults.append(missing)
    scene.operator.start()
    scene.apply()
    scene.wait_ready()
    assert "experiments are left out until it is" in scene.operator.log.read_text()


def test_a_deleted_experiment_takes_its_jobs_with_it(scene: Scene) -> None:
    scene.stages.held[scene.namespace] = {"compare"}
    train_both(scene)
    apply(scene)
    wait_for(lambda: "compare" in stages_of(scene), "the comparison to begin", seconds=SECONDS)
    scene.api.delete(f"{experiments(scene.namespace)}/warmer")
    scene.stages.held.clear()
    wait_for(lambda: not stages_of(scene), "its Jobs to go", seconds=60)
    assert scene.api.find(f"{experiments(scene.namespace)}/warmer") is None


@pytest.mark.timeout(600)
def test_killed_after_every_single_write_it_ends_the_same(scene: Scene) -> None:
    """Every write of the experiment, one run; the operator is killed after each and started again."""
    train_both(scene)
    scene.wait_ready()
    path = f"{models_path(scene.namespace)}/warm"
    wait_for(lambda: condition(scene.api.get(path), "Ready") == "True", "warm to be Ready", seconds=SECONDS)
    with killed_after_every_write(scene) as kills:
        apply(scene)
        wait_for(lambda: "conclusion" in seen(scene).get("status", {}), "the verdict", seconds=300)
    told = seen(scene)["status"]["conclusion"]
    assert (told["winner"], told["reason"]) == ("new", "SignificantWinner")
    assert stages_of(scene) == ["compare", "score", "score"]
    assert ran_once(scene)
    assert len(kills) >= 8
    named = [event["reason"] for event in scene.items("events") if event["involvedObject"]["name"] == "warmer"]
    assert sorted(named) == ["ExperimentStarted", "SignificantWinner"]
