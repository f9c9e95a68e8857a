# SPDX-License-Identifier: Apache-2.0
"""A Job, a JobSet and a TrainJob as one record: the same questions, asked of three kinds of status."""

from __future__ import annotations

from typing import Any

import pytest

from thinkrec_operator.cluster.jobs import is_lost, job_record, observe_job
from thinkrec_operator.cluster.pods import PodRecord, pod_record

Body = dict[str, Any]
KEY = "a" * 40
JOB_SET = {"replicatedJobs": [{"name": "stage", "template": {"spec": {"completions": 2}}}]}


def body(kind: str, spec: Body, **status: Any) -> Body:
    meta = {"name": "movies-adapter", "uid": "u", "resourceVersion": "1", "annotations": {"thinkrec.io/key": KEY}}
    return {"kind": kind, "metadata": meta, "spec": spec, "status": status}


def pod(*states: Body, name: str = "p", phase: str = "Failed") -> PodRecord:
    meta = {"name": name, "uid": name, "resourceVersion": "1", "labels": {"thinkrec.io/stage-key": KEY}}
    return pod_record({"metadata": meta, "status": {"phase": phase, "containerStatuses": list(states)}})


def failure(reason: str) -> list[Body]:
    return [{"type": "Failed", "status": "True", "reason": reason, "message": "told by the controller"}]


@pytest.mark.parametrize(
    ("kind", "spec"),
    [("Job", {"completions": 2}), ("JobSet", JOB_SET), ("TrainJob", {"trainer": {"numNodes": 2}})],
)
def test_one_of_two_pods_may_have_taken_what_was_published_with_it(kind: str, spec: Body) -> None:
    done = "Completed" if kind == "JobSet" else "Complete"
    record = job_record(body(kind, spec, conditions=[{"type": done, "status": "True"}]))
    assert record.completions == 2
    assert is_lost(record, [pod(phase="Succeeded")])
    assert not is_lost(record, [pod(name="p", phase="Succeeded"), pod(name="q", phase="Succeeded")])


@pytest.mark.parametrize(
    ("kind", "said", "reason"),
    [
        ("JobSet", "ReachedMaxRestarts", "BackoffLimitExceeded"),
        ("JobSet", "FailedJobs", "BackoffLimitExceeded"),
        ("JobSet", "FailJobSetFailurePolicyAction", "DeadlineExceeded"),
        ("TrainJob", "FailedJobs", "BackoffLimitExceeded"),
        ("TrainJob", "DeadlineExceeded", "DeadlineExceeded"),
        ("Job", "SomethingNew", None),
    ],
)
def test_the_controllers_reason_is_told_as_ours(kind: str, said: str, reason: str | None) -> None:
    seen = observe_job(job_record(body(kind, {}, conditions=failure(said))), [], model_uid="")
    assert seen.reason == reason
    assert seen.message.endswith("told by the controller")


def test_a_restarted_job_set_counts_the_runs_whose_pods_are_gone() -> None:
    record = job_record(body("JobSet", JOB_SET, restarts=2))
    seen = observe_job(record, [pod(name="p", phase="Running"), pod(name="q", phase="Running")], model_uid="")
    assert (seen.failures, seen.attempts) == (2, 3)


def test_a_container_beside_the_stages_does_not_speak_for_it() -> None:
    def ended(name: str, code: int) -> Body:
        return {"name": name, "state": {"terminated": {"exitCode": code}}}

    for ours in ("stage", "node"):
        assert pod(ended("mesh", 0), ended(ours, 64)).exit_code == 64
