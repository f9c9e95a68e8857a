# SPDX-License-Identifier: Apache-2.0
"""Schedules: when the next training comes, across time zones and missed times, and what one run does to a model."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from support.model_world import START, World
from thinkrec_crds.conditions import Reason
from thinkrec_crds.model_status import ModelStatus
from thinkrec_crds.spec_training import Schedule
from thinkrec_operator import schedule
from thinkrec_operator.observed import Settings

HOURLY: dict[str, Any] = {"schedule": {"cron": "0 * * * *"}}
MADRID = "Europe/Madrid"


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def following(cron: str, after: str, zone: str = "UTC") -> str:
    found = schedule.next_time(cron, zone, moment(after))
    assert found is not None
    return found.strftime("%Y-%m-%dT%H:%M")


class TestTimes:
    @pytest.mark.parametrize(
        ("cron", "expected"),
        [
            ("0 3 * * *", "2026-01-06T03:00"),
            ("*/15 * * * *", "2026-01-05T12:15"),
            ("0 9 ? * MON-FRI", "2026-01-06T09:00"),
            ("0 0 1 jan *", "2027-01-01T00:00"),
            ("0 0 * * 7", "2026-01-11T00:00"),
            ("@yearly", "2027-01-01T00:00"),
            ("@annually", "2027-01-01T00:00"),
            ("@monthly", "2026-02-01T00:00"),
            ("@weekly", "2026-01-11T00:00"),
            ("@daily", "2026-01-06T00:00"),
            ("@midnight", "2026-01-06T00:00"),
            ("@hourly", "2026-01-05T13:00"),
        ],
    )
    def test_every_form_that_the_field_admits(self, cron: str, expected: str) -> None:
        Schedule(cron=cron)
        assert following(cron, "2026-01-05T12:00") == expected

    def test_a_time_zone_moves_with_its_summer(self) -> None:
        assert following("0 3 * * *", "2026-01-05T12:00", MADRID) == "2026-01-06T02:00"
        assert following("0 3 * * *", "2026-07-05T12:00", MADRID) == "2026-07-06T01:00"

    def test_an_hour_that_is_left_out_in_spring_is_made_up_for(self) -> None:
        # On 2026-03-29 clocks in Madrid go from 02:00 to 03:00, which is 01:00 UTC.
        assert following("30 2 * * *", "2026-03-28T12:00", MADRID) == "2026-03-29T01:00"
        assert following("30 2 * * *", "2026-03-29T01:00", MADRID) == "2026-03-30T00:30"

    def test_an_hour_that_comes_twice_in_autumn_counts_once(self) -> None:
        # On 2026-10-25 clocks in Madrid go from 03:00 back to 02:00, which is 01:00 UTC.
        first = following("30 2 * * *", "2026-10-24T12:00", MADRID)
        assert first == "2026-10-25T00:30"
        assert following("30 2 * * *", first, MADRID) == "2026-10-26T01:30"
        assert following("30 2 * * *", "2026-10-25T01:10", MADRID) == "2026-10-26T01:30"

    def test_a_minute_step_runs_through_the_doubled_hour(self) -> None:
        times, now = set(), moment("2026-10-25T00:00")
        for _ in range(6):
            now = schedule.next_time("*/30 * * * *", MADRID, now)  # type: ignore[assignment]
            times.add(now)
        assert max(times) == moment("2026-10-25T03:00")
        assert len(times) == 6


class TestClock:
    def read(self, promised: str | None, now: str, **fields: Any) -> schedule.Clock:
        wish = Schedule(**{"cron": "0 * * * *", **fields})
        return schedule.read(wish, moment(promised) if promised else None, moment(now))

    def test_without_a_promise_nothing_is_due(self) -> None:
        assert self.read(None, "2026-01-05T12:30") == schedule.Clock(moment("2026-01-05T13:00"))

    def test_a_promise_is_kept_until_its_time(self) -> None:
        assert self.read("2026-01-05T13:00", "2026-01-05T12:59:59") == schedule.Clock(moment("2026-01-05T13:00"))
        due = self.read("2026-01-05T13:00", "2026-01-05T13:00")
        assert (due.due, due.next_time) == (moment("2026-01-05T13:00"), moment("2026-01-05T14:00"))

    def test_many_missed_times_are_due_once(self) -> None:
        clock = self.read("2026-01-05T13:00", "2026-01-07T09:30")
        assert (clock.due, clock.next_time) == (moment("2026-01-07T09:00"), moment("2026-01-07T10:00"))

    def test_so_many_that_they_are_not_counted(self) -> None:
        clock = self.read("2025-01-05T13:00", "2026-01-07T09:30")
        assert clock.due == moment("2026-01-07T09:00")

    @pytest.mark.parametrize(("now", "starts"), [("2026-01-05T13:05", True), ("2026-01-05T13:05:01", False)])
    def test_the_starting_deadline(self, now: str, starts: bool) -> None:
        clock = self.read("2026-01-05T13:00", now, starting_deadline_seconds=300)
        assert (clock.due is not None, clock.missed is not None) == (starts, not starts)

    def test_the_promise_of_another_cron_is_forgotten(self) -> None:
        clock = self.read("2026-01-05T12:17", "2026-01-05T12:30")
        assert clock == schedule.Clock(moment("2026-01-05T13:00"))

    @pytest.mark.parametrize(
        ("fields", "named"),
        [
            ({"cron": "99 * * * *"}, "`spec.schedule.cron` is '99 * * * *'"),
            ({"cron": "0 0 31 2 *"}, "`spec.schedule.cron`"),
            ({"cron": "0 0 * * FOO"}, "`spec.schedule.cron`"),
            ({"time_zone": "Mars/Olympus"}, "`spec.schedule.timeZone` is 'Mars/Olympus'"),
            ({"time_zone": "Europe"}, "`spec.schedule.timeZone`"),
        ],
    )
    def test_what_can_never_come_due_is_named(self, fields: dict[str, Any], named: str) -> None:
        clock = self.read(None, "2026-01-05T12:30", **fields)
        assert named in clock.problem
        assert "write for example" in clock.problem
        assert clock.next_time is None

    def test_tokens_are_times_and_sort_like_them(self) -> None:
        first, second = moment("2026-01-05T13:00"), moment("2026-11-05T09:00")
        assert schedule.time_of(schedule.token(first)) == first
        assert schedule.token(first) < schedule.token(second)
        assert schedule.time_of("schedule-of-mine") is None
        assert schedule.time_of(None) is None


def trained(changes: dict[str, Any]) -> World:
    """Return a world that serves its first revision, with a schedule."""
    world = World()
    world.edit(changes)
    world.run()
    world.step()
    return world


def due(world: World) -> None:
    """Let the next scheduled time come."""
    assert world.status.next_schedule_time is not None
    world.now = world.status.next_schedule_time


def told(world: World) -> list[str]:
    return [event.reason for event in world.events if event.reason.startswith("ScheduledTraining")]


def types(world: World) -> dict[str, str]:
    return {c.type: c.status for c in world.status.conditions}


class TestRun:
    def test_the_next_time_is_in_status_and_is_waited_for(self) -> None:
        world = trained(HOURLY)
        assert world.status.next_schedule_time == START + timedelta(hours=1)
        assert world.status.last_schedule_time is None
        left = (START + timedelta(hours=1) - world.now).total_seconds()
        assert world.step().requeue_after == left

    def test_one_run_trains_everything_again_and_serves_it(self) -> None:
        world = trained(HOURLY)
        first, runs = world.status.serving_revision, len(world.runs)
        due(world)
        assert [job.title for job in world.step().jobs] == ["dataset"]
        assert world.status.last_schedule_time == START + timedelta(hours=1)
        assert world.status.next_schedule_time == START + timedelta(hours=2)
        world.run()
        assert len(world.runs) == 2 * runs
        assert world.status.serving_revision not in (None, first)
        assert told(world) == ["ScheduledTrainingStarted"]
        assert world.step().jobs == ()

    def test_readiness_does_not_move_meanwhile(self) -> None:
        world = trained(HOURLY)
        ready = world.status.condition("Ready")
        due(world)
        for _ in range(12):
            world.step()
            now = types(world)
            assert now["Ready"] == "True"
            assert not {"Reconciling", "Stalled"} & set(now)
            for name in world.active:
                world.succeed(name)
        world.run()
        after = world.status.condition("Ready")
        assert ready is not None
        assert after is not None
        assert after.last_transition_time == ready.last_transition_time

    def test_a_failure_is_told_and_the_next_time_tries_again(self) -> None:
        world = trained(HOURLY)
        due(world)
        world.step()
        world.fail(world.active[0], reason=Reason.OOM_KILLED)
        world.events.clear()
        world.step()
        succeeded = world.status.condition("TrainingSucceeded")
        assert succeeded is not None
        assert (succeeded.status, succeeded.reason) == ("False", "OOMKilled")
        assert ("Warning", "OOMKilled") in [(event.type, event.reason) for event in world.events]
        assert types(world)["Ready"] == "True"
        assert "Stalled" not in types(world)
        world.events.clear()
        world.step()
        assert world.events == []
        due(world)
        assert [job.title for job in world.step().jobs] == ["dataset"]

    def test_a_missed_gate_keeps_what_serves(self) -> None:
        world = trained({**HOURLY, "evaluation": {"gates": [{"metric": "AUC", "minimum": "0.6"}]}})
        first = world.status.serving_revision
        world.auc = 0.5
        due(world)
        world.step()
        world.run()
        assert world.status.serving_revision == first
        assert types(world)["Ready"] == "True"
        assert types(world)["Evaluated"] == "False"
        world.auc = 0.8
        due(world)
        world.step()
        world.run()
        assert world.status.serving_revision not in (None, first)

    def test_missed_times_start_one_run(self) -> None:
        world = trained(HOURLY)
        world.now = START + timedelta(hours=7, minutes=20)
        world.step()
        world.run()
        assert world.status.last_schedule_time == START + timedelta(hours=7)
        assert told(world) == ["ScheduledTrainingStarted"]

    def test_missed_by_more_than_the_deadline_is_left_out_and_told(self) -> None:
        world = trained({"schedule": {"cron": "0 * * * *", "startingDeadlineSeconds": 60}})
        world.now = START + timedelta(hours=7, minutes=20)
        assert world.step().jobs == ()
        assert told(world) == ["ScheduledTrainingMissed"]
        assert world.status.next_schedule_time == START + timedelta(hours=8)
        assert world.status.last_schedule_time is None


class TestConcurrency:
    def test_forbid_leaves_a_time_out_while_a_run_is_going_on(self) -> None:
        world = trained(HOURLY)
        due(world)
        world.step()
        running = world.active
        due(world)
        world.step()
        assert world.active == running
        assert told(world)[-1] == "ScheduledTrainingSkipped"
        assert world.status.last_schedule_time == START + timedelta(hours=1)

    def test_replace_stops_the_old_run(self) -> None:
        world = trained({"schedule": {"cron": "0 * * * *", "concurrencyPolicy": "Replace"}})
        due(world)
        world.step()
        old = world.active
        due(world)
        plan = world.step()
        assert [deletion.name for deletion in plan.deletions if deletion.name in old] == old
        assert len(world.active) == 1
        assert world.active != old
        assert world.status.last_schedule_time == START + timedelta(hours=2)

    @pytest.mark.parametrize("policy", ["Forbid", "Replace"])
    def test_the_training_of_a_new_spec_is_never_replaced_and_counts_for_the_run(self, policy: str) -> None:
        world = trained({"schedule": {"cron": "0 * * * *", "concurrencyPolicy": policy}})
        world.edit({"dataset": {"revision": "2"}})
        world.step()
        running = world.active
        due(world)
        world.step()
        assert world.active == running
        assert told(world) == ["ScheduledTrainingSkipped"]

    def test_an_edit_in_the_middle_of_a_run_takes_it_over(self) -> None:
        world = trained(HOURLY)
        due(world)
        world.step()
        world.edit({"dataset": {"revision": "2"}})
        world.run()
        world.step()
        assert types(world)["Ready"] == "True"
        assert world.step().jobs == ()
        assert len(world.revisions) == 2

    def test_an_annotation_in_the_middle_of_a_run_starts_once_more(self) -> None:
        world = trained(HOURLY)
        due(world)
        world.step()
        world.ask_retrain("by hand")
        world.run()
        world.step()
        assert len(world.revisions) == 2
        assert world.step().jobs == ()


class TestOff:
    def test_a_suspended_model_has_no_next_time_and_makes_up_for_nothing(self) -> None:
        world = trained(HOURLY)
        world.edit({"suspend": True})
        world.now += timedelta(hours=5)
        assert world.step().jobs == ()
        assert world.status.next_schedule_time is None
        world.edit({"suspend": False})
        assert world.step().jobs == ()
        assert world.status.next_schedule_time == START + timedelta(hours=6)

    def test_without_a_schedule_nothing_is_promised(self) -> None:
        world = trained(HOURLY)
        world.edit({"schedule": None})
        world.step()
        assert world.status.next_schedule_time is None
        world.now += timedelta(hours=5)
        assert world.step().jobs == ()

    def test_a_laptop_watches_no_clock(self) -> None:
        world = World(settings=Settings(relative_files=True))
        world.edit(HOURLY)
        world.run()
        assert world.status.next_schedule_time is None

    def test_a_schedule_that_cannot_be_stalls_and_serving_goes_on(self) -> None:
        world = trained({"schedule": {"cron": "0 * * * *", "timeZone": "Mars/Olympus"}})
        stalled = world.status.condition("Stalled")
        assert stalled is not None
        assert stalled.reason == "InvalidSpec"
        assert "spec.schedule.timeZone" in stalled.message
        assert types(world)["Available"] == "True"
        world.edit({"schedule": {"timeZone": "Europe/Madrid"}})
        world.step()
        assert "Stalled" not in types(world)


class TestCrashes:
    @pytest.mark.parametrize("writes", range(5))
    def test_a_driver_killed_at_the_start_of_a_run_starts_it_once(self, writes: int) -> None:
        world = trained(HOURLY)
        due(world)
        world.step(writes=writes)
        world.run()
        world.step()
        assert set(world.runs.values()) == {1}
        assert len(world.revisions) == 2
        assert world.status.last_schedule_time == START + timedelta(hours=1)

    def test_a_driver_that_comes_back_a_period_later_goes_on_with_the_old_run(self) -> None:
        world = trained(HOURLY)
        due(world)
        world.step(writes=2)
        running = world.active
        assert running
        world.now = START + timedelta(hours=2, minutes=1)
        world.step()
        assert world.active == running

    def test_a_lost_status_forgets_no_run(self) -> None:
        world = trained(HOURLY)
        due(world)
        world.step()
        running = world.active
        world.status = ModelStatus()
        world.step()
        world.step()
        assert world.active == running
        assert world.status.last_schedule_time == START + timedelta(hours=1)
        world.run()
        world.jobs.clear()
        world.status = ModelStatus()
        world.step()
        world.step()
        assert world.status.last_schedule_time == START + timedelta(hours=1)
        assert world.active == []

    def test_a_lost_status_does_not_train_by_itself(self) -> None:
        world = trained(HOURLY)
        world.status = ModelStatus()
        world.now += timedelta(hours=30)
        for _ in range(3):
            assert world.step().jobs == ()

    def test_asking_again_in_the_same_second_starts_nothing_more(self) -> None:
        world = trained(HOURLY)
        due(world)
        world.step()
        world.jobs = {name: replace(job) for name, job in world.jobs.items()}
        assert {job.name for job in world.step().jobs} == set(world.active)
        assert set(world.runs.values()) == {1}
