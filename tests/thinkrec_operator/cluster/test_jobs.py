# SPDX-License-Identifier: Apache-2.0
"""A Job with several Pods: one attempt counts once, and the Pod that keeps the others waiting is told."""

from __future__ import annotations

from typing import Any

import pytest

from thinkrec_crds.conditions import Reason
from thinkrec_operator.cluster import resources
from thinkrec_operator.cluster.jobs import job_record, observe_job
from thinkrec_operator.cluster.pods import PodRecord, pod_record
from thinkrec_operator.cluster.view import View
from thinkrec_operator.observed import JobObservation, JobState

PULL = {"containerStatuses": [{"name": "stage", "image": "x:1", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]}


def pod(number: int, phase: str, **status: Any) -> PodRecord:
    meta = {
        "name": f"movies-traces-{number}",
        "uid": f"uid-{number}",
        "resourceVersion": "1",
        "creationTimestamp": f"2026-11-24T00:00:{number:02}Z",
        "labels": {"batch.kubernetes.io/job-name": "movies-traces"},
    }
    return pod_record({"metadata": meta, "status": {"phase": phase, **status}})


def observed(*pods: PodRecord, failed: int = 0) -> JobObservation:
    meta = {"name": "movies-traces", "uid": "j", "resourceVersion": "3", "creationTimestamp": "2026-11-24T00:00:00Z"}
    body = {"metadata": meta, "spec": {"completions": 3}, "status": {"failed": failed, "active": 1}}
    return observe_job(job_record(body), pods, model_uid="m")


@pytest.mark.parametrize(
    ("phases", "attempts"),
    [
        (("Pending", "Pending"), 0),
        (("Running", "Running", "Running"), 1),
        (("Succeeded", "Running", "Pending"), 1),
        (("Failed", "Running", "Running"), 2),
        (("Failed", "Failed", "Pending"), 2),
    ],
)
def test_the_pods_of_one_attempt_count_once(phases: tuple[str, ...], attempts: int) -> None:
    assert observed(*(pod(number, phase) for number, phase in enumerate(phases))).attempts == attempts


def test_failures_of_pods_that_are_gone_count_too() -> None:
    assert observed(pod(5, "Running"), failed=4).attempts == 4


def test_of_several_pods_the_one_that_is_stuck_is_told() -> None:
    found = observed(pod(0, "Running"), pod(1, "Pending", **PULL), pod(2, "Running"))
    assert (found.state, found.reason) == (JobState.RUNNING, Reason.IMAGE_PULL_ERROR.value)
    assert "movies-traces-1" in found.message


def test_a_pod_that_ended_is_not_stuck() -> None:
    over = pod(0, "Failed", reason="Evicted", message="low on memory")
    assert observed(over, pod(1, "Running")).reason is None


def test_a_list_without_a_workload_forgets_what_its_queue_said() -> None:
    """Kueue deletes the Workload of a Job; the watch may have missed it."""
    meta = {"namespace": "shop", "uid": "w", "ownerReferences": [{"kind": "Job", "name": "movies-traces", "uid": "j"}]}
    bodies = [
        {"metadata": {**meta, "name": name, "uid": name, "resourceVersion": version}}
        for name, version in (("old", "5"), ("newer", "9"))
    ]
    for body, kept in zip(bodies, (False, True), strict=True):
        view = View()
        view.put(resources.WORKLOAD, body)
        assert view.queue("shop", "movies-traces") is not None
        view.retain(resources.WORKLOAD, {}, upto=7)
        assert (view.queue("shop", "movies-traces") is not None) is kept
