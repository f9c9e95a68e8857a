# SPDX-License-Identifier: Apache-2.0
"""Whatever happens in whatever order, the end is that of a straight run, and no finished key runs again.

`World` itself asserts, at every step, that no Job is created for a published key, that inputs are published before they
are read, and that a revision's data never changes.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from support.model_world import World
from thinkrec_crds.artifact import ExitCode
from thinkrec_crds.conditions import Reason
from thinkrec_crds.model_status import ModelStatus
from thinkrec_operator.observed import JobState
from thinkrec_operator.plan import ChildKind, DeploymentChild, JobChild

EDITS: list[dict[str, Any]] = [
    {"dataset": {"revision": "1"}},
    {"dataset": {"revision": "2"}},
    {"experts": {"count": 2, "auto": None, "items": None}},
    {"experts": {"count": 1, "auto": None, "items": None}},
    {"experts": {"count": None, "auto": {"min": 2, "max": 5}, "items": None}},
    {"experts": {"count": None, "auto": None, "items": [{"name": "day"}, {"name": "night"}]}},
    {"gate": {"temperature": "0.1"}},
    {"gate": {"temperature": "0.2"}},
    {"adapter": {"steps": 7}},
    {"suspend": True},
    {"suspend": False},
    {"evaluation": {"gates": [{"metric": "AUC", "minimum": "0.99"}]}},
    {"evaluation": {"gates": []}},
    {"training": {"backoffLimit": 1}},
    {"serving": {"limits": {"maxCandidates": 20}}},
    {"serving": {"replicas": 2, "autoscaling": None}},
    {"serving": {"replicas": 1, "autoscaling": None}},
    {"serving": {"replicas": None, "autoscaling": {"minReplicas": 2, "maxReplicas": 3}}},
    {"training": {"nodes": 2, "parallelism": 4}},
    {"training": {"nodes": 1, "parallelism": 1}},
    {"training": {"backend": "JobSet"}},
    {"training": {"backend": "Job"}},
    {"artifacts": {"deletionPolicy": "Delete"}},
    {"artifacts": {"deletionPolicy": "Retain"}},
    {"schedule": {"cron": "@yearly"}},
]
CALM = {"suspend": False, "evaluation": {"gates": []}}
"""What every run ends with, so that there is an end."""


def outcome(world: World) -> dict[str, Any]:
    """Return what must not depend on the way: everything but times, counts, history and whom it was compared with."""
    status = world.status
    rows = [row for row in (*status.stages, *status.experts) if row.kind != "evaluate"]
    assert world.deployment is not None
    return {
        "conditions": {c.type: (c.status, c.reason, c.message) for c in status.conditions},
        "stages": [(row.name, row.key, row.digest, row.state in ("Succeeded", "Reused")) for row in rows],
        "expert_count": status.expert_count,
        "revisions": (status.latest_revision, status.serving_revision),
        "served": (world.deployment.bundle.digest, world.deployment.config_map, world.deployment.spec_hash),
        "replicas": (status.replicas, status.ready_replicas),
        "metrics": status.metrics,
        "active": world.active,
        "config_maps": world.config_maps,
        "others": world.others,
        "finalizer": world.finalizer,
        "next_run": status.next_schedule_time,
    }


class Interleavings(RuleBasedStateMachine):
    """Jobs end well or badly, drivers are killed between writes, users edit: in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(kinds=frozenset({"JobSet"}))

    @rule()
    def the_other_backend_comes_or_goes(self) -> None:
        self.world.kinds = frozenset() if self.world.kinds else frozenset({"JobSet"})

    @rule()
    def decide(self) -> None:
        self.world.step()

    @rule(writes=st.integers(min_value=0, max_value=12))
    def the_driver_is_killed_between_two_writes(self, writes: int) -> None:
        self.world.step(writes=writes)

    @precondition(lambda self: self.world.active)
    @rule(data=st.data())
    def a_job_succeeds(self, data: st.DataObject) -> None:
        self.world.succeed(data.draw(st.sampled_from(self.world.active)))

    @precondition(lambda self: self.world.active)
    @rule(data=st.data(), exit_code=st.sampled_from([1, int(ExitCode.BAD_INPUT), int(ExitCode.TEMPORARY), 137]))
    def a_job_fails_for_good(self, data: st.DataObject, exit_code: int) -> None:
        reason = Reason.OOM_KILLED if exit_code == 137 else Reason.BACKOFF_LIMIT_EXCEEDED
        self.world.fail(data.draw(st.sampled_from(self.world.active)), exit_code=exit_code, reason=reason)

    @precondition(lambda self: self.world.active)
    @rule(data=st.data())
    def a_process_is_killed_and_tries_again(self, data: st.DataObject) -> None:
        name, world = data.draw(st.sampled_from(self.world.active)), self.world
        job, later = world.jobs[name], world.now + timedelta(seconds=10)
        retry = {"attempts": job.attempts + 1, "failures": job.failures + 1, "next_attempt_time": later}
        world.jobs[name] = replace(job, state=JobState.PENDING, exit_code=137, **retry)  # type: ignore[arg-type]

    @precondition(lambda self: self.world.active)
    @rule(data=st.data())
    def a_stage_publishes_and_dies_before_it_says_so(self, data: st.DataObject) -> None:
        name, world = data.draw(st.sampled_from(self.world.active)), self.world
        world.succeed(name)
        world.jobs.pop(name)

    @precondition(lambda self: any(not job.active for job in self.world.jobs.values()))
    @rule(data=st.data())
    def a_finished_job_is_removed_after_its_time(self, data: st.DataObject) -> None:
        finished = [job.name for job in self.world.jobs.values() if not job.active]
        self.world.jobs.pop(data.draw(st.sampled_from(finished)))

    @rule(edit=st.sampled_from(EDITS))
    def the_user_edits(self, edit: dict[str, Any]) -> None:
        self.world.edit(edit)

    @rule()
    def the_status_is_lost(self) -> None:
        self.world.status = ModelStatus()

    @rule()
    def the_server_gets_ready(self) -> None:
        self.world.roll_out()

    @precondition(lambda self: self.world.serving is not None)
    @rule()
    def the_server_is_lost(self) -> None:
        assert self.world.serving is not None
        self.world.serving = replace(self.world.serving, ready_replicas=0)

    @invariant()
    def never_stalled_and_reconciling(self) -> None:
        types = {c.type for c in self.world.status.conditions if c.status == "True"}
        assert not {"Stalled", "Reconciling"} <= types
        assert not {"Ready", "Stalled"} <= types

    @invariant()
    def suspended_models_start_nothing(self) -> None:
        if self.world.spec.get("suspend"):
            before = sum(self.world.runs.values())
            self.world.step()
            assert sum(self.world.runs.values()) == before

    def teardown(self) -> None:
        """Let the storm pass: the end must be that of a straight run of the same spec."""
        world = self.world
        world.edit(CALM)
        world.kinds = frozenset({"JobSet"})
        for job in [job for job in world.jobs.values() if job.state is JobState.FAILED]:
            world.jobs.pop(job.name)  # as a person who wants another try
        if any(row.state == "Failed" for row in (*world.status.stages, *world.status.experts)):
            world.generation += 1  # status remembers a failure until something changes, and CALM may have been the spec
        world.run()
        world.step()
        straight = World(spec=world.spec, generation=world.generation, kinds=world.kinds)
        straight.run()
        straight.step()
        assert outcome(world) == outcome(straight)
        plan = world.step()
        assert not plan.jobs
        assert [d for d in plan.deletions if d.kind is not ChildKind.CONTROLLER_REVISION] == []
        assert plan.events == ()


Interleavings.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestInterleavings = Interleavings.TestCase


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(["Forbid", "Replace"]),
    st.lists(st.tuples(st.sampled_from(["hour", "step", "killed", "succeed", "fail", "lost"]), st.integers(0, 5))),
)
def test_a_schedule_runs_each_key_once_and_ends_in_service(policy: str, story: list[tuple[str, int]]) -> None:
    world = World()
    world.edit({"schedule": {"cron": "0 * * * *", "concurrencyPolicy": policy}})
    world.run()
    world.step()
    newest = world.now.replace(year=2000)
    for action, number in story:
        names = world.active
        if action == "hour":
            world.now += timedelta(minutes=60 * number)
        elif action in ("step", "killed"):
            world.step(writes=number if action == "killed" else None)
        elif action == "lost":
            world.status = ModelStatus()
        elif names and action == "succeed":
            world.succeed(names[number % len(names)])
        elif names:
            world.fail(names[number % len(names)])
        last = world.status.last_schedule_time
        assert last is None or last >= newest or action == "lost"
        newest = last or newest
    for name in [job.name for job in world.jobs.values() if job.state is JobState.FAILED]:
        world.jobs.pop(name)
    for _ in range(3):
        world.run()
    assert world.status.is_true("Ready")
    assert world.active == []
    assert world.step().jobs == ()


def test_a_driver_killed_at_any_single_write_ends_in_the_same_place() -> None:
    straight = World()
    straight.run()
    expected = outcome(straight)
    for doomed in range(9):
        for writes in range(0, 8, 2):
            world = World()
            for step in range(200):
                plan = world.step(writes=writes if step == doomed else None)
                if (
                    step > doomed
                    and not world.active
                    and not plan.jobs
                    and not world.roll_out()
                    and plan.requeue_after != 0
                ):
                    break
                for name in world.active:
                    world.succeed(name)
            assert outcome(world) == expected, (doomed, writes)
            assert set(world.runs.values()) == {1}


def test_the_children_of_a_decision_are_the_same_however_often_it_is_taken() -> None:
    world = World()
    for _ in range(25):
        first, again = world.step(), world.step()
        if not again.events:
            jobs = [child.name for child in first.children if isinstance(child, JobChild | DeploymentChild)]
            assert jobs == [child.name for child in again.children if isinstance(child, JobChild | DeploymentChild)]
        for name in world.active:
            world.succeed(name)
