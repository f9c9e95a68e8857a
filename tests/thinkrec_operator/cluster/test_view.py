# SPDX-License-Identifier: Apache-2.0
"""The view keeps the newest of each object, whoever told it; the echo notices a watch that owes us something."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from thinkrec_operator.cluster import resources
from thinkrec_operator.cluster.echo import PATIENCE_SECONDS, Echo
from thinkrec_operator.cluster.metrics import Metrics
from thinkrec_operator.cluster.objects import Unreadable, header
from thinkrec_operator.cluster.unreadable import unreadable_status
from thinkrec_operator.cluster.view import View

KEY = ("shop", "movies")
NOW = datetime(2026, 11, 25, tzinfo=UTC)


def child(name: str, version: int, *, uid: str = "", namespace: str = "shop") -> dict[str, Any]:
    labels = {"thinkrec.io/model": "movies"}
    meta = {"name": name, "namespace": namespace, "uid": uid or f"uid-{name}", "labels": labels}
    return {"metadata": {**meta, "resourceVersion": str(version)}}


def test_an_older_version_changes_nothing() -> None:
    view = View()
    assert view.put(resources.JOB, child("a", 5)) == KEY
    assert view.put(resources.JOB, child("a", 5)) is None
    assert view.put(resources.JOB, child("a", 4)) is None
    assert view.put(resources.JOB, child("a", 6)) == KEY


def test_a_late_event_does_not_bring_a_deleted_object_back() -> None:
    view = View()
    view.put(resources.SERVICE, child("a", 5))
    assert view.remove(resources.SERVICE, child("a", 7)) == KEY
    assert view.put(resources.SERVICE, child("a", 6)) is None
    assert view.children(KEY).empty
    assert view.put(resources.SERVICE, child("a", 8, uid="another")) == KEY


def test_a_list_takes_away_what_it_does_not_show_but_nothing_newer() -> None:
    view = View()
    for name, version in (("gone", 3), ("kept", 4), ("created-meanwhile", 12)):
        view.put(resources.SERVICE, child(name, version))
    view.put(resources.SERVICE, child("elsewhere", 3, namespace="other"))
    changed = view.retain(resources.SERVICE, {("shop", "kept"): "uid-kept"}, 10, "shop")
    assert changed == {KEY}
    assert {name for _, name in view.children(KEY).objects} == {"kept", "created-meanwhile"}
    assert not view.children(("other", "movies")).empty


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_watch_that_never_delivers_is_dead_and_silence_is_not(clock: Clock) -> None:
    echo = Echo(Metrics(), clock)
    clock.now += 10 * PATIENCE_SECONDS
    assert echo.dead() == ()
    echo.expect(resources.JOB, header(child("a", 5)))
    clock.now += PATIENCE_SECONDS / 2
    assert echo.overdue("Job") == PATIENCE_SECONDS / 2
    echo.heard(resources.JOB, header(child("a", 4)))  # older, but the watch lives
    clock.now += PATIENCE_SECONDS * 0.75
    assert echo.dead() == ()
    clock.now += PATIENCE_SECONDS
    assert echo.dead() == ("Job",)
    echo.heard(resources.JOB, header(child("a", 6)))
    assert echo.dead() == ()
    assert echo.overdue("Job") == 0


def test_an_object_that_a_list_no_longer_shows_is_not_awaited(clock: Clock) -> None:
    echo = Echo(Metrics(), clock)
    echo.expect(resources.JOB, header(child("a", 5)))
    echo.forget_absent(resources.JOB, frozenset(), "other-namespace")
    clock.now += 2 * PATIENCE_SECONDS
    assert echo.dead() == ("Job",)
    echo.forget_absent(resources.JOB, frozenset(), "shop")
    assert echo.dead() == ()


def test_a_model_that_cannot_be_read_keeps_its_status_and_is_told_once() -> None:
    unreadable = Unreadable("shop", "movies", "u", 3, "`spec.later`: not known")
    old = {"type": "Available", "status": "True", "reason": "Serving", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    body = {"status": {"servingRevision": "movies-1", "conditions": [old]}}
    manifest = unreadable_status(body, unreadable, NOW)
    assert manifest is not None
    status = manifest["status"]
    assert status["servingRevision"] == "movies-1"
    told = {item["type"]: (item["status"], item["reason"]) for item in status["conditions"]}
    assert told == {
        "Ready": ("False", "InvalidSpec"),
        "Stalled": ("True", "InvalidSpec"),
        "Available": ("True", "Serving"),
    }
    assert unreadable_status({"status": status}, unreadable, NOW.replace(hour=5)) is None


KEY_OF_STAGE = "5" * 40
DIGEST = "sha256:" + "ab" * 32


def pod_of_stage(version: int, phase: str = "Succeeded", **told: str) -> dict[str, Any]:
    body = child("movies-gate-x", version)
    body["metadata"]["labels"]["thinkrec.io/stage-key"] = KEY_OF_STAGE
    message = json.dumps({"key": KEY_OF_STAGE, "kind": "gate", **told})
    ended = {"name": "stage", "state": {"terminated": {"exitCode": 0, "message": message}}}
    return {**body, "status": {"phase": phase, "containerStatuses": [ended]}}


def job_of_stage(version: int) -> dict[str, Any]:
    body = child("movies-gate-x", version)
    body["metadata"]["annotations"] = {"thinkrec.io/key": KEY_OF_STAGE}
    return body


@pytest.mark.parametrize("order", [("job", "pod"), ("pod", "job")])
def test_what_was_published_is_known_until_a_decision_dealt_with_it_though_job_and_pod_are_gone(
    order: tuple[str, str],
) -> None:
    """A time to live of nothing removes both within milliseconds, in either order."""
    view = View()
    view.put(resources.JOB, job_of_stage(5))
    view.put(resources.POD, pod_of_stage(6, phase="Running"))
    for gone in order:
        if gone == "job":
            view.remove(resources.JOB, job_of_stage(9))
        else:  # the last event of a Pod is the first one to say that it succeeded
            view.remove(resources.POD, pod_of_stage(8, digest=DIGEST))
    found = view.children(KEY).told()
    assert {key: told.digest for key, told in found.items()} == {KEY_OF_STAGE: DIGEST}
    view.let_go(KEY, found)
    assert view.children(KEY).told() == {}
    assert view.children(KEY).empty


def test_a_pod_whose_job_went_first_tells_what_it_published() -> None:
    view = View()
    view.put(resources.JOB, job_of_stage(5))
    view.put(resources.POD, pod_of_stage(6, digest=DIGEST))
    assert view.children(KEY).told() == {}, "its Job tells"
    view.remove(resources.JOB, job_of_stage(7))
    assert list(view.children(KEY).told()) == [KEY_OF_STAGE]


@pytest.mark.parametrize(
    "body",
    [pod_of_stage(8, phase="Failed", digest=DIGEST), pod_of_stage(8), pod_of_stage(8, shard="1-of-2")],
    ids=["failed", "without a digest", "one share of several"],
)
def test_a_pod_that_published_nothing_leaves_nothing(body: dict[str, Any]) -> None:
    view = View()
    view.put(resources.POD, body)
    view.remove(resources.POD, body)
    assert view.children(KEY).empty
