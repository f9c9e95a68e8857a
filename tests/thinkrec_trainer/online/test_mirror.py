# SPDX-License-Identifier: Apache-2.0
"""A Mirror: how the copies' answers differ, by branch of the gate; nothing is compared that nobody saw."""

from __future__ import annotations

from typing import Any

import pytest

from thinkrec_crds.findings import MirrorSummary

Log = Any
MIRROR = {"mode": "Mirror"}
LIKE = {"name": "likes", "event": {"name": "Like"}}


def guarded(*guards: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"metrics": [LIKE], "guardrails": list(guards), "minSampleSize": 50} | more


def test_answers_are_summarised_by_variant_and_branch(log: Log) -> None:
    log.copy("a", branch="OneHot", overlap=0.5, rank_correlation=1.0, score_shift=0.25, latency_milliseconds=10.0)
    log.copy("a", branch="OneHot", overlap=1.0, rank_correlation=None, score_shift=-0.75, latency_milliseconds=20.0)
    log.copy("b", branch="Fused", overlap=0.0, rank_correlation=None, score_shift=None, latency_milliseconds=30.0)
    failed = {"overlap": None, "rank_correlation": None, "score_shift": None}
    log.copy("c", branch="Fused", error=True, latency_milliseconds=100.0, **failed)
    log.copy("a", "other", branch="OneHot")
    log.copy("z", experiment="u2")
    log.copy("z", minutes=-1)
    found = log.look(None, variants=("control", "new", "other"), **MIRROR)
    new = [each for each in found.report.mirrored if each.variant == "new"]
    assert new == [
        MirrorSummary(
            variant="new",
            branch="",
            requests=4,
            errors=1,
            overlap=0.5,
            rank_correlation=1.0,
            score_shift=-0.25,
            latency_milliseconds=40.0,
        ),
        MirrorSummary(variant="new", branch="Fused", requests=2, errors=1, overlap=0.0, latency_milliseconds=65.0),
        MirrorSummary(
            variant="new",
            branch="OneHot",
            requests=2,
            errors=0,
            overlap=0.75,
            rank_correlation=1.0,
            score_shift=-0.25,
            latency_milliseconds=15.0,
        ),
    ]
    assert [(each.variant, each.branch) for each in found.report.mirrored[3:]] == [("other", ""), ("other", "OneHot")]
    assert found.report.newest.users == {"new": 3, "other": 1}
    assert found.result.counts["users"] == 4
    assert "new got copies of 4 requests, and 25 % of them failed" in found.page
    assert "its answers held 50 % of the items that control showed" in found.page
    assert "<td>Fused</td>" in found.page
    assert "Who was counted" not in found.page


def test_guardrails_are_held_against_the_copies(log: Log) -> None:
    for number in range(60):
        log.copy(f"u{number}", latency_milliseconds=90.0 + number % 3 * 10, error=number % 2 == 0)
    request = {"latency": "LatencyMilliseconds", "errors": "Error"}
    guards = [
        {"name": f"{name}-{len(bound)}", "request": {"field": field}, "maximum": bound}
        for name, field, bound in (
            ("latency", request["latency"], "50"),
            ("latency", request["latency"], "500"),
            ("errors", request["errors"], "0.01"),
        )
    ]
    found = log.look(guarded(*guards), **MIRROR)
    checks = found.report.newest.guardrails
    assert [check.value for check in checks] == [pytest.approx(100), pytest.approx(100), pytest.approx(0.5)]
    assert [check.violated for check in checks] == [True, False, True]
    assert all(check.lower < check.value < check.upper for check in checks)
    assert found.report.newest.enough
    assert found.report.newest.winner is None
    few = log.look(guarded(*guards, minSampleSize=61), name="few", **MIRROR)
    assert not any(check.violated for check in few.report.newest.guardrails)
    assert not few.report.newest.enough


def test_a_mirrors_guardrails_are_held_at_every_look_whatever_the_method(log: Log) -> None:
    for number in range(60):
        log.copy(f"u{number}", latency_milliseconds=90.0 + number % 3 * 10)
    guard = {"name": "latency", "request": {"field": "LatencyMilliseconds"}, "maximum": "50"}
    looks = [
        log.look(
            guarded(guard, method="FixedHorizon", minSampleSize=least),
            name=f"{least}-{at_end}",
            at_end=at_end,
            **MIRROR,
        )
        for least, at_end in ((50, False), (50, True), (61, True))
    ]
    assert [look.report.newest.guardrails[0].violated for look in looks] == [True, True, False]
    assert [look.report.newest.guardrails[0].lower is None for look in looks] == [False, False, True]


def test_what_a_mirror_cannot_tell_is_said(log: Log) -> None:
    log.copy("a")
    log.copy("b", minutes=-5)
    log.act("a")
    guards = (
        {"name": "empty", "request": {"field": "Empty"}, "maximum": "1"},
        {"name": "slower", "request": {"field": "LatencyMilliseconds"}, "maxRegression": "0.1"},
        {"name": "fine", "request": {"field": "LatencyMilliseconds"}, "maximum": "100"},
    )
    look = log.look(guarded(*guards), **MIRROR).report.newest
    assert [line.partition(":")[0] for line in look.unavailable] == [
        "metric likes",
        "guardrail empty",
        "guardrail slower",
    ]
    assert look.values[0].value is None
    assert look.users == {"new": 1}, "the time before the start is another experiment's"
    assert not any(check.violated for check in look.guardrails)


def test_a_metric_of_the_requests_is_the_copies(log: Log) -> None:
    log.copy("a", latency_milliseconds=30.0)
    log.copy("a", latency_milliseconds=50.0)
    latency = {"name": "latency", "request": {"field": "LatencyMilliseconds"}}
    found = log.look({"metrics": [latency], "minSampleSize": 50}, **MIRROR)
    assert found.value("new", "latency") == 40
    assert found.value("control", "latency") is None
    assert found.report.newest.unavailable == ()


def test_nothing_was_copied_yet(log: Log) -> None:
    found = log.look(None, **MIRROR)
    assert found.report.newest.users == {"new": 0}
    assert found.report.mirrored == ()
    assert "No request has been copied yet." in found.page
    assert found.result.metrics["1/users"] == 0
