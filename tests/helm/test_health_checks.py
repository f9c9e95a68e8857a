# SPDX-License-Identifier: Apache-2.0
"""What Argo CD and kstatus make of a model in each situation, side by side.

The samples are statuses that `reconcile` itself wrote. The one lasting difference: kstatus knows no Suspended.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from support import gitops_health
from support.gitops_health import argo, kstatus
from support.model_world import START, World, model, run_until
from thinkrec_crds.conditions import Reason
from thinkrec_crds.experiment import ThinkRecExperiment

GATE = {"evaluation": {"gates": [{"metric": "AUC", "minimum": "0.99"}]}}
Situation = Callable[[], World]


def body(world: World) -> dict[str, Any]:
    """Return the model as the API server would show it."""
    extra: dict[str, Any] = {"deletionTimestamp": world.deleting} if world.deleting else {}
    seen = model(world.spec, generation=world.generation, **extra).model_copy(update={"status": world.status})
    shown: dict[str, Any] = seen.model_dump(mode="json", by_alias=True, exclude_none=True)
    return shown


def unseen() -> World:
    return World()


def first_visit() -> World:
    world = World()
    world.step()
    return world


def training() -> World:
    world = World()
    run_until(world, "adapter")
    return world


def retrying() -> World:
    world = World()
    name = run_until(world, "adapter")
    world.jobs[name] = replace(world.jobs[name], failures=1, attempts=1, message="broke; next try follows")
    world.step()
    return world


def waiting_for_quota() -> World:
    world = World()
    world.edit({"training": {"queueName": "gpus"}})
    name = run_until(world, "adapter")
    world.jobs[name] = replace(world.jobs[name], queued=True, reason="QuotaReserved", message="no quota in gpus")
    world.step()
    return world


def training_failed() -> World:
    world = World()
    world.fail(run_until(world, "adapter"), reason=Reason.OOM_KILLED)
    world.step()
    return world


def starting_to_serve() -> World:
    world = World()
    world.succeed(run_until(world, "evaluate"))
    world.step()
    world.step()
    return world


def serving() -> World:
    world = World()
    world.run()
    return world


def edited_unseen() -> World:
    world = serving()
    world.edit({"dataset": {"revision": "2"}})
    return world


def edited_training() -> World:
    world = edited_unseen()
    world.step()
    return world


def edited_failed() -> World:
    world = edited_training()
    world.fail(world.active[0])
    world.step()
    return world


def edited_gate_failed() -> World:
    world = serving()
    world.edit({"dataset": {"revision": "2"}, **GATE})
    world.run()
    return world


def retraining() -> World:
    world = serving()
    world.ask_retrain("once more")
    world.step()
    assert world.active
    return world


def retraining_failed() -> World:
    world = retraining()
    world.fail(world.active[0])
    world.step()
    return world


def pods_lost() -> World:
    world = serving()
    assert world.serving is not None
    world.serving = replace(world.serving, ready_replicas=0, reason="CrashLoopBackOff", message="exit code 1")
    world.step()
    return world


def suspended_before_training() -> World:
    world = World()
    world.edit({"suspend": True})
    world.step()
    world.step()
    return world


def suspended_while_serving() -> World:
    world = serving()
    world.edit({"suspend": True})
    world.step()
    return world


def pinned_to_older() -> World:
    world = serving()
    older = world.status.serving_revision
    world.edit({"serving": {"revision": older}, "dataset": {"revision": "2"}})
    world.run()
    assert world.status.latest_revision != world.status.serving_revision == older
    return world


def pinned_to_missing() -> World:
    world = serving()
    world.edit({"serving": {"revision": "movies-0000000000"}})
    world.step()
    return world


def being_deleted() -> World:
    world = serving()
    world.deleting = world.now
    world.step()
    return world


TABLE: tuple[tuple[Situation, str, str], ...] = (
    # situation                  Argo CD        kstatus
    (unseen, "Progressing", "InProgress"),
    (first_visit, "Progressing", "InProgress"),
    (training, "Progressing", "InProgress"),
    (retrying, "Progressing", "InProgress"),
    (waiting_for_quota, "Progressing", "InProgress"),
    (training_failed, "Degraded", "Failed"),
    (starting_to_serve, "Progressing", "InProgress"),
    (serving, "Healthy", "Current"),
    (edited_unseen, "Progressing", "InProgress"),
    (edited_training, "Progressing", "InProgress"),
    (edited_failed, "Degraded", "Failed"),
    (edited_gate_failed, "Degraded", "Failed"),
    (retraining, "Healthy", "Current"),
    (retraining_failed, "Healthy", "Current"),
    (pods_lost, "Progressing", "InProgress"),
    (suspended_before_training, "Suspended", "InProgress"),
    (suspended_while_serving, "Healthy", "Current"),
    (pinned_to_older, "Healthy", "Current"),
    (pinned_to_missing, "Degraded", "Failed"),
    (being_deleted, "Progressing", "Terminating"),
)
EVERY_SITUATION = pytest.mark.parametrize(
    ("situation", "by_argo", "by_kstatus"), TABLE, ids=[row[0].__name__ for row in TABLE]
)
SAME = {"Healthy": "Current", "Degraded": "Failed", "Progressing": "InProgress"}


@EVERY_SITUATION
def test_verdicts(situation: Situation, by_argo: str, by_kstatus: str) -> None:
    seen = body(situation())
    assert (argo(seen)[0], kstatus(seen)) == (by_argo, by_kstatus)


def test_both_agree_but_where_one_lacks_the_word() -> None:
    differing = {row[0].__name__ for row in TABLE if SAME.get(row[1]) != row[2]}
    assert differing == {"suspended_before_training", "being_deleted"}


@pytest.mark.parametrize(
    ("situation", "message"),
    [
        (unseen, "The operator has not seen it yet"),
        (edited_unseen, "The operator has not seen the newest spec yet"),
        (training_failed, "TrainingFailed: adapter: "),
        (edited_gate_failed, "GateFailed: "),
        (serving, "Serving: Revision movies-"),
        (retrying, "ProgressingWithRetry: adapter: broke"),
        (suspended_before_training, "Suspended: "),
    ],
)
def test_messages_tell_why(situation: Situation, message: str) -> None:
    told = argo(body(situation()))[1]
    assert message in told


class TestOddStatuses:
    """What no operator of ours writes; a check must not break on it."""

    def sample(self, **status: Any) -> dict[str, Any]:
        return {"metadata": {"generation": 1}, "status": {"observedGeneration": 1, **status}}

    def condition(self, kind: str, status: str = "True", **more: Any) -> dict[str, Any]:
        return {"type": kind, "status": status, "reason": "Because", **more}

    def test_no_status_at_all(self) -> None:
        assert argo({"metadata": {"generation": 1}})[0] == "Progressing"

    def test_no_conditions(self) -> None:
        assert argo(self.sample(conditions=[]))[0] == "Progressing"

    def test_a_condition_without_a_message(self) -> None:
        assert argo(self.sample(conditions=[self.condition("Stalled")])) == ("Degraded", "Because")

    def test_a_condition_of_somebody_else(self) -> None:
        conditions = [self.condition("Ready", message="good"), self.condition("Teapot")]
        assert argo(self.sample(conditions=conditions)) == ("Healthy", "Because: good")

    @pytest.mark.parametrize("status", ["False", "Unknown"])
    def test_a_transient_condition_that_is_not_true_counts_for_nothing(self, status: str) -> None:
        conditions = [self.condition("Ready"), self.condition("Stalled", status), self.condition("Reconciling", status)]
        seen = self.sample(conditions=conditions)
        assert (argo(seen)[0], kstatus(seen)) == ("Healthy", "Current")


class TestExperiments:
    """The same check; an experiment that runs is healthy, so that it holds up no sync wave for two weeks."""

    def sample(self, *conditions: tuple[str, str, str]) -> dict[str, Any]:
        stamp = START.isoformat()
        rows = [
            {"type": kind, "status": status, "reason": reason, "lastTransitionTime": stamp, "observedGeneration": 1}
            for kind, status, reason in conditions
        ]
        given = {
            "apiVersion": "thinkrec.io/v1alpha1",
            "kind": "ThinkRecExperiment",
            "metadata": {"name": "ab", "namespace": "team", "generation": 1},
            "spec": {
                "variants": [
                    {"name": "old", "modelRef": {"name": "movies"}},
                    {"name": "new", "modelRef": {"name": "movies"}, "revision": "movies-1"},
                ],
                "controlVariantName": "old",
                "offline": {"metrics": [{"name": "AUC", "direction": "Maximize"}]},
            },
            "status": {"observedGeneration": 1, "conditions": rows},
        }
        shown: dict[str, Any] = ThinkRecExperiment.model_validate(given).model_dump(
            mode="json", by_alias=True, exclude_none=True
        )
        return shown

    @pytest.mark.parametrize(
        ("conditions", "by_argo", "by_kstatus"),
        [
            ([("Ready", "True", "Running"), ("Succeeded", "Unknown", "Running")], "Healthy", "Current"),
            ([("Ready", "True", "Running"), ("Succeeded", "False", "GuardrailViolated")], "Healthy", "Current"),
            ([("Ready", "False", "ModelNotFound"), ("Stalled", "True", "ModelNotFound")], "Degraded", "Failed"),
            ([("Ready", "False", "Progressing"), ("Reconciling", "True", "Progressing")], "Progressing", "InProgress"),
        ],
    )
    def test_verdicts(self, conditions: list[tuple[str, str, str]], by_argo: str, by_kstatus: str) -> None:
        seen = self.sample(*conditions)
        assert (argo(seen)[0], kstatus(seen)) == (by_argo, by_kstatus)


def test_the_check_needs_none_of_what_argo_forbids() -> None:
    text = gitops_health.CHECK.read_text("utf-8")
    assert not [name for name in gitops_health._FORBIDDEN if f"{name}." in text or f"{name}(" in text]
