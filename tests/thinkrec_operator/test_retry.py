# SPDX-License-Identifier: Apache-2.0
"""What the end of an attempt means, and which Jobs may start beside each other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.model_world import World, merged
from thinkrec_crds.artifact import TerminationMessage
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_operator.local.budget import to_start
from thinkrec_operator.local.records import JobRecord
from thinkrec_operator.local.retry import AttemptEnd, RetryPolicy, after, backoff_seconds
from thinkrec_operator.observed import JobState
from thinkrec_operator.plan import JobChild

NOW = datetime(2026, 1, 5, tzinfo=UTC)
KEY = "a" * 40
POLICY = RetryPolicy(backoff_limit=2, base_seconds=2.0)


def record(**changes: object) -> JobRecord:
    base = {"name": "m-gate-a", "key": KEY, "kind": StageKind.GATE, "title": "gate", "generation": 1, "attempts": 1}
    return JobRecord.model_validate({**base, "state": "Running", **changes})


def told(error: str | None = None) -> TerminationMessage:
    digest = None if error else "sha256:" + "0" * 64
    return TerminationMessage(key=KEY, kind=StageKind.GATE, digest=digest, error=error)


def test_done_is_done() -> None:
    found = after(record(), AttemptEnd(0, told()), POLICY, NOW)
    assert found.state is JobState.SUCCEEDED
    assert found.completion_time == NOW
    assert found.process is None


@pytest.mark.parametrize("code", [2, 64])
def test_bad_input_and_wrong_usage_are_final_at_once(code: int) -> None:
    found = after(record(), AttemptEnd(code, told("no column")), POLICY, NOW)
    assert found.state is JobState.FAILED
    assert found.message == "no column"
    assert found.failures == 0


@pytest.mark.parametrize("code", [1, 75, 137, -9, -11])
def test_other_failures_wait_and_count(code: int) -> None:
    found = after(record(), AttemptEnd(code, None, message="broke"), POLICY, NOW)
    assert (found.state, found.failures) == (JobState.PENDING, 1)
    assert found.next_attempt_time == NOW + timedelta(seconds=2)
    last = after(record(failures=2), AttemptEnd(code, None), POLICY, NOW)
    assert (last.state, last.reason) == (JobState.FAILED, "BackoffLimitExceeded")


@pytest.mark.parametrize("code", [143, -15, -2, 130])
def test_an_interruption_costs_no_retry(code: int) -> None:
    found = after(record(failures=2), AttemptEnd(code, None), POLICY, NOW)
    assert (found.state, found.failures, found.reason) == (JobState.PENDING, 2, "Preempted")


def test_a_deadline_is_final() -> None:
    found = after(record(), AttemptEnd(-15, None, "DeadlineExceeded", "too long"), POLICY, NOW)
    assert (found.state, found.reason) == (JobState.FAILED, "DeadlineExceeded")


def test_too_much_memory_counts_and_names_itself() -> None:
    again = after(record(), AttemptEnd(137, None, "OOMKilled"), POLICY, NOW)
    assert again.state is JobState.PENDING
    final = after(record(failures=2), AttemptEnd(137, None, "OOMKilled"), POLICY, NOW)
    assert (final.state, final.reason) == (JobState.FAILED, "OOMKilled")


def test_waits_double_up_to_six_minutes() -> None:
    assert [backoff_seconds(n, 10.0) for n in (1, 2, 3, 6, 7, 60)] == [10, 20, 40, 320, 360, 360]


def jobs(*titles: str, limit: int | None = None, **changes: dict[str, Any]) -> list[JobChild]:
    world = World()
    world.spec = merged(world.spec, changes)
    if limit is not None:
        world.spec = merged(world.spec, {"training": {"resources": {"limits": {"cpu": limit}}}})
    world.run()
    by_title = {child.title: child for child in world.children.values()}
    return [by_title[title] for title in titles]


def test_heavy_stages_get_the_machine_and_light_ones_a_core() -> None:
    assert [(s.child.title, s.cpus) for s in to_start(jobs("adapter"), 0, 8)] == [("adapter", 8)]
    assert [s.cpus for s in to_start(jobs("keywords", "collaborative"), 0, 8)] == [1, 1]


@pytest.mark.parametrize(
    ("teacher", "cpus"),
    [({"type": "Self"}, 8), ({"type": "OpenAI", "baseUrl": "http://llm.example/v1", "model": "m"}, 1)],
)
def test_keywords_get_the_machine_where_the_base_model_writes_them(teacher: dict[str, Any], cpus: int) -> None:
    found = jobs("keywords", keywords={"source": "LLM"}, teacher=teacher)
    assert [start.cpus for start in to_start(found, 0, 8)] == [cpus]


def test_experts_share_the_machine() -> None:
    assert [s.cpus for s in to_start(jobs("expert-0", "expert-1"), 0, 8)] == [4, 4]
    assert [s.cpus for s in to_start(jobs("expert-0", "expert-1"), 0, 1)] == [1]


def test_a_limit_above_the_machine_runs_alone() -> None:
    assert [s.cpus for s in to_start(jobs("gate", "traces", limit=64), 0, 2)] == [2]


@given(
    st.lists(st.sampled_from(["dataset", "keywords", "gate", "traces", "expert-0", "expert-1"]), unique=True),
    st.integers(0, 8),
    st.integers(1, 8),
)
def test_never_more_cpus_than_there_are_and_never_stuck(titles: list[str], used: int, total: int) -> None:
    starts = to_start([ALL_JOBS[title] for title in titles], min(used, total), total)
    assert min(used, total) + sum(start.cpus for start in starts) <= total
    assert starts or not titles or used > 0


ALL_JOBS = {job.title: job for job in jobs("dataset", "keywords", "gate", "traces", "expert-0", "expert-1")}
