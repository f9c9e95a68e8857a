# SPDX-License-Identifier: Apache-2.0
"""Pods as the apiserver shows them -> the reason a person needs."""

from __future__ import annotations

from typing import Any

import pytest

from thinkrec_crds.conditions import Reason
from thinkrec_operator.cluster.pods import pod_record, without_secrets


def body(**status: Any) -> dict[str, Any]:
    meta = {"name": "movies-dataset-x", "uid": "u1", "resourceVersion": "7", "labels": {}}
    return {"metadata": meta, "status": {"phase": "Pending", **status}}


def container(name: str = "stage", **parts: Any) -> dict[str, Any]:
    return {"name": name, "image": "registry/trainer:1", **parts}


def stage(**parts: Any) -> dict[str, Any]:
    return body(containerStatuses=[container(**parts)])


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"state": {"waiting": {"reason": reason, "message": message}}}


def unschedulable(message: str) -> dict[str, Any]:
    return {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}


CONFIG = "CreateContainerConfigError"
LOST_BUCKET = {"terminated": {"exitCode": 64, "message": "first\nno such bucket\n"}}


def failed(**terminated: Any) -> dict[str, Any]:
    return body(phase="Failed", containerStatuses=[container(state={"terminated": terminated})])


CASES: list[tuple[dict[str, Any], Reason, str]] = [
    (body(conditions=[unschedulable("0/3 nodes: 3 Insufficient nvidia.com/gpu")]), Reason.UNSCHEDULABLE, "nvidia"),
    (stage(**waiting("ImagePullBackOff", "no such host")), Reason.IMAGE_PULL_ERROR, "registry/trainer:1"),
    (stage(**waiting("ErrImagePull", "denied")), Reason.IMAGE_PULL_ERROR, "denied"),
    (stage(**waiting(CONFIG, 'secret "store" not found')), Reason.SECRET_NOT_FOUND, '"store"'),
    (stage(**waiting(CONFIG, 'configmap "x" not found')), Reason.CONTAINER_START_ERROR, '"x"'),
    (
        body(
            initContainerStatuses=[
                container("fetch-bundle", **waiting("CrashLoopBackOff"), lastState=LOST_BUCKET),
            ]
        ),
        Reason.CRASH_LOOP_BACK_OFF,
        "ended with 64: no such bucket",
    ),
    (
        stage(state={"running": {}}, ready=False, restartCount=2, lastState={"terminated": {"exitCode": 1}}),
        Reason.CRASH_LOOP_BACK_OFF,
        "ended with 1",
    ),
    (failed(exitCode=137, reason="OOMKilled"), Reason.OOM_KILLED, "memory"),
    (failed(exitCode=128, reason="StartError", message="no python"), Reason.CONTAINER_START_ERROR, "no python"),
    (body(phase="Failed", reason="Evicted", message="low on memory"), Reason.POD_EVICTED, "low on memory"),
    (
        body(phase="Failed", conditions=[{"type": "DisruptionTarget", "status": "True", "message": "by x"}]),
        Reason.PREEMPTED,
        "by x",
    ),
]


@pytest.mark.parametrize(
    ("pod", "reason", "words"), CASES, ids=[f"{case[1]}-{index}" for index, case in enumerate(CASES)]
)
def test_trouble_has_a_concrete_reason(pod: dict[str, Any], reason: Reason, words: str) -> None:
    found = pod_record(pod)
    assert found.reason == reason.value
    assert words in found.message


def test_a_pod_that_recovered_has_no_reason() -> None:
    crashed = {"terminated": {"exitCode": 1}}
    found = pod_record(stage(state={"running": {}}, ready=True, restartCount=2, lastState=crashed))
    assert found.reason is None


def test_a_pod_at_work_has_no_reason() -> None:
    found = pod_record(body(phase="Running", containerStatuses=[container(state={"running": {}})]))
    assert (found.reason, found.message, found.exit_code) == (None, "", None)


def test_the_stage_container_is_read_beside_an_injected_sidecar() -> None:
    ended = container(state={"terminated": {"exitCode": 0, "message": '{"key": "k"}'}})
    mesh = container("a-mesh-proxy", state={"terminated": {"exitCode": 143, "message": "bye"}})
    found = pod_record(body(phase="Succeeded", containerStatuses=[mesh, ended]))
    assert (found.exit_code, found.left) == (0, '{"key": "k"}')


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("AWS_SECRET_ACCESS_KEY=abc/def+123 is wrong", "abc/def"),
        ("token: eyJhbGciOi.payload", "eyJhbGciOi"),
        ("Authorization: Bearer s3cr3t", "s3cr3t"),
        ("key AKIAIOSFODNN7EXAMPLE was refused", "AKIAIOSFODNN7EXAMPLE"),
    ],
)
def test_what_looks_like_a_credential_is_masked(text: str, hidden: str) -> None:
    assert hidden not in without_secrets(text)
    assert "***" in without_secrets(text)


def test_a_message_is_cut() -> None:
    assert len(without_secrets("x" * 10_000)) == 512
