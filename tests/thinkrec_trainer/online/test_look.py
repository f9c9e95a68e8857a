# SPDX-License-Identifier: Apache-2.0
"""One look at a log whose answer is known by construction: who counts, which events do, and what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from thinkrec_trainer.analysis.analyse import analyse as compare
from thinkrec_trainer.analysis.results import Metric, Plan
from thinkrec_trainer.analysis.sums import sums_of
from thinkrec_trainer.errors import BadInput

Log = Any
LIKE = {"name": "likes", "event": {"name": "Like"}}
WATCH = {"name": "watched", "event": {"type": "Mean", "name": "Watch"}}
RATE = {"name": "rate", "event": {"type": "Ratio", "name": "Click", "denominator": "View"}}


def analysis(*metrics: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"metrics": list(metrics) or [LIKE], "minSampleSize": 50, "varianceReduction": "None"} | more


def test_a_known_effect_is_told_as_the_statistics_tell_it(log: Log, crowd: Sequence[str]) -> None:
    """Users 0, 2, 4, … of `new` and 0, 10, 20, … of control like something, some of them often."""
    for number in range(60):
        for _ in range(number % 3 + 1):
            if number % 2 == 0:
                log.act(f"n{number}")
            if number % 10 == 0:
                log.act(f"c{number}")
    found = log.look(analysis())
    arms = {
        "control": {"likes": sums_of("Conversion", np.array([float(n % 10 == 0) for n in range(60)]))},
        "new": {"likes": sums_of("Conversion", np.array([float(n % 2 == 0) for n in range(60)]))},
    }
    plan = Plan("control", (Metric("likes"),), {"control": 1, "new": 1}, minimum_users=50, variance_reduction="None")
    wanted = compare(arms, plan).effect("new", "likes")
    (effect,) = found.report.newest.effects
    told = (effect.effect, effect.lower, effect.upper, effect.p_value)
    assert told == pytest.approx((wanted.effect, wanted.lower, wanted.upper, wanted.p_value))
    assert effect.effect == pytest.approx(0.5 - 0.1)
    assert (effect.significant, effect.better, found.report.newest.winner) == (True, True, "new")
    assert found.report.newest.users == {"control": 60, "new": 60}
    assert found.result.metrics == found.report.numbers()
    assert found.result.counts["users"] == 120
    assert found.result.counts["events"] == 30 * 2 + 6 * 2, "one to three likes of each who likes"


def test_every_kind_of_metric_counts_what_it_says(log: Log) -> None:
    log.see("c1", "control", bucket=7000, latency_milliseconds=100.0)
    log.see("n1", latency_milliseconds=10.0)
    log.see("n1", minutes=1, latency_milliseconds=20.0, error=True, empty=True)
    log.see("n2", bucket=101, latency_milliseconds=60.0, empty=True)
    for value in (3.0, None, 0.5):
        log.act("n1", "Watch", 2, value=value)
    for _ in range(4):
        log.act("n1", "View", 2)
    log.act("n2", "View", 2)
    log.act("n1", "Click", 3)
    requests = [
        {"name": field.lower(), "request": {"field": field}} for field in ("LatencyMilliseconds", "Error", "Empty")
    ]
    found = log.look(analysis(LIKE, WATCH, RATE, *requests))
    assert found.value("new", "likes") == 0
    assert found.value("new", "watched") == pytest.approx((3.0 + 1.0 + 0.5) / 2), "an event without a value counts 1"
    assert found.value("new", "rate") == pytest.approx(1 / 5)
    assert found.value("new", "latencymilliseconds") == pytest.approx(90 / 3)
    assert found.value("new", "error") == pytest.approx(1 / 3)
    assert found.value("new", "empty") == pytest.approx(2 / 3)
    assert found.value("control", "watched") == 0, "a user without events counts with 0"
    assert found.value("control", "rate") is None
    assert found.report.newest.unavailable == (
        "metric rate: no event 'View' of control's users, so there is nothing to divide by",
    )
    assert (found.result.metrics["unavailable"], found.result.metrics["silent"]) == (1, 0)
    deciding = log.look(analysis(RATE, LIKE), name="deciding")
    assert deciding.result.metrics["silent"] == 1, "the contract reads it from the sentence's beginning"


def test_a_cap_bounds_what_one_user_counts_for(log: Log) -> None:
    log.see("n1")
    log.see("n2", bucket=101)
    for _ in range(40):
        log.act("n1", "Watch", value=5.0)
        log.act("n1", "View")
    for _ in range(10):
        log.act("n1", "Click")
    log.act("n2", "View")
    log.act("n2", "Click")
    metrics = [{**each, "event": {**each["event"], "cap": "4"}} for each in (WATCH, RATE)]
    found = log.look(analysis(*metrics))
    assert found.value("new", "watched") == pytest.approx((4 + 0) / 2)
    assert found.value("new", "rate") == pytest.approx((4 * 10 / 40 + 1) / (4 + 1))


def test_only_events_between_the_first_exposure_and_the_end_count(log: Log) -> None:
    log.see("n1", minutes=30)
    log.see("n1", minutes=60)
    for minutes in (-5, 0, 29.99, 30, 45, 119.99, 120, 200):
        log.act("n1", "Watch", minutes)
    log.act("stranger", "Watch", 45)
    found = log.look(analysis(WATCH))
    assert found.value("new", "watched") == 3
    assert found.result.counts["events"] == 3


def test_what_was_sent_or_shipped_twice_counts_once(log: Log) -> None:
    for _ in range(2):
        log.see("n1", exposure_id="x", latency_milliseconds=10.0)
        log.act("n1", "Watch", event_id="e")
        log.write(log.root / "events-store", f"again-{_}")
    log.see("n1", minutes=1, exposure_id="y", latency_milliseconds=40.0)
    found = log.look(analysis(WATCH, {"name": "latency", "request": {"field": "LatencyMilliseconds"}}))
    assert found.value("new", "watched") == 1
    assert found.value("new", "latency") == 25
    assert found.report.newest.exposures == {"control": 0, "new": 2}


def test_fallbacks_and_times_without_every_variant_are_left_out(log: Log) -> None:
    log.see("fallen", fallback=True, served_by="control", fallback_reason="NotReady", bucket=1)
    log.see("fallen", minutes=50, latency_milliseconds=30.0, bucket=1)
    log.see("early", degraded=True, bucket=2)
    log.see("early", minutes=50, latency_milliseconds=50.0, bucket=2)
    log.see("never", fallback=True, served_by="control", bucket=3)
    log.see("never", degraded=True, bucket=3)
    log.see("c1", "control", degraded=True)
    log.see("c2", "control", bucket=7001)
    for user in ("fallen", "early", "never", "c1"):
        log.act(user, "Watch", 10)
        log.act(user, "Watch", 55)
    found = log.look(analysis(WATCH, {"name": "latency", "request": {"field": "LatencyMilliseconds"}}))
    look = found.report.newest
    assert look.users == {"control": 1, "new": 2}
    assert found.value("new", "watched") == 1, "events count from the first request that counts"
    assert found.value("new", "latency") == 40
    assert look.exposures == {"control": 2, "new": 6}
    assert look.fallbacks == {"control": 0, "new": 2}


def test_what_a_variant_failed_to_answer_is_its_own_and_an_error(log: Log) -> None:
    """Left out, a variant that fails would look as sound as control, and lose the users who met it at its worst."""
    log.see("met-it", fallback=True, served_by="control", fallback_reason="Failed", bucket=1)
    log.see("met-it", minutes=5, bucket=1)
    log.see("only-that", fallback=True, served_by="control", fallback_reason="Failed", bucket=2)
    log.see("c1", "control", bucket=7000)
    log.act("only-that", "Watch", 10)
    found = log.look(analysis(WATCH, {"name": "errors", "request": {"field": "Error"}}))
    assert found.report.newest.users == {"control": 1, "new": 2}
    assert found.value("new", "errors") == pytest.approx(2 / 3)
    assert found.value("control", "errors") == 0
    assert found.value("new", "watched") == 0.5
    assert found.report.newest.fallbacks == {"control": 0, "new": 2}


def test_other_experiments_and_models_are_not_seen(log: Log) -> None:
    log.see("n1", experiment="u2")
    log.see("c1", "control")
    assert log.look(analysis()).report.newest.users == {"control": 1, "new": 0}
    assert log.look(analysis(), name="other", model="books").report.newest.users == {"control": 0, "new": 0}


def test_only_users_of_buckets_that_no_weight_moved_count(log: Log) -> None:
    """The variant's buckets are those below 1000, then those below 3000."""
    first, second = "control=90,new=10", "control=70,new=30"
    for bucket, before, after in ((500, "new", "new"), (2000, "control", "new"), (8000, "control", "control")):
        log.see(f"always-{bucket}", before, 0, bucket=bucket, weights=first)
        log.see(f"always-{bucket}", after, 60, bucket=bucket, weights=second)
        log.see(f"early-{bucket}", before, 0, bucket=bucket + 1, weights=first)
        log.see(f"late-{bucket}", after, 60, bucket=bucket + 2, weights=second)
        log.act(f"late-{bucket}", minutes=61)
    found = log.look(analysis())
    look = found.report.newest
    assert look.users == {"control": 3, "new": 3}
    assert look.expected == pytest.approx({"control": 7000 / 8000, "new": 1000 / 8000})
    assert found.value("new", "likes") == pytest.approx(1 / 3)
    assert found.result.counts["users_of_moved_buckets"] == 3


def test_weights_that_give_a_variant_nothing_are_no_comparison(log: Log) -> None:
    """Neither before, where they would keep no bucket of `new`, nor behind, where everybody had the other variant."""
    for user, variant, bucket in (("n1", "new", 100), ("c1", "control", 7000)):
        log.see(user, "control", 0, bucket=bucket, weights="control=100,new=0")
        log.act(user, "Watch", 5)
        log.see(user, variant, 10, bucket=bucket)
        log.act(user, "Watch", 15, value=7.0)
        log.see(user, "new", 30, bucket=bucket, weights="control=0,new=100")
        log.act(user, "Watch", 35, value=100.0)
    log.see("only-then", "control", 0, bucket=200, weights="control=100,new=0")
    found = log.look(analysis(WATCH))
    assert found.report.newest.users == {"control": 1, "new": 1}
    assert found.report.newest.expected == {"control": 0.5, "new": 0.5}
    assert (found.value("control", "watched"), found.value("new", "watched")) == (7, 7)
    assert found.result.counts["users_of_moved_buckets"] == 0


def test_users_of_several_buckets_are_no_variants_own(log: Log) -> None:
    """Also where both buckets are one variant's: at 90:10 nearly all such users would be control's."""
    log.see("one", bucket=100)
    log.see("one", minutes=5, bucket=100)
    log.see("both", "new", bucket=100)
    log.see("both", "control", bucket=7000)
    log.see("same", "control", bucket=7000)
    log.see("same", "control", bucket=7001)
    log.see("hidden", "new", bucket=100)
    log.see("hidden", "control", bucket=7000, degraded=True)
    found = log.look(analysis())
    assert found.report.newest.users == {"control": 0, "new": 1}
    assert found.result.counts["users_of_several_buckets"] == 3


def test_a_random_assignment_counts_users_of_one_request_in_the_expected_shares(log: Log) -> None:
    generator = np.random.default_rng(0)
    for number in range(400):
        for bucket in generator.integers(10_000, size=1 + number % 2):
            log.see(
                f"u{number}", "new" if bucket < 1000 else "control", bucket=int(bucket), weights="control=90,new=10"
            )
    found = log.look(analysis())
    assert sum(found.report.newest.users.values()) == 200
    assert found.result.counts["users_of_several_buckets"] == 200
    assert not found.report.newest.void


def test_users_who_do_not_arrive_as_expected_make_the_look_void(log: Log) -> None:
    for number in range(300):
        log.see(f"c{number}", "control", bucket=9000 + number)
        if number < 60:
            log.see(f"n{number}", "new", bucket=number)
            log.act(f"n{number}")
    found = log.look(analysis())
    look = found.report.newest
    assert look.void
    assert look.winner is None
    assert look.effects[0].significant, "were it not for the users who are missing"
    assert "did not arrive in the expected proportion" in found.page


def test_three_variants_are_compared_with_control_each(log: Log) -> None:
    weights, names = "control=34,a=33,b=33", ("b", "control", "a")
    for number in range(300):
        log.see(f"u{number}", "whatever", bucket=number * 33, weights=weights)
        log.act(f"u{number}", "Watch")
    found = log.look(analysis(WATCH), variants=names)
    look = found.report.newest
    assert sum(look.users.values()) == 300
    assert all(users == pytest.approx(100, abs=30) for users in look.users.values())
    assert [effect.variant for effect in look.effects] == ["b", "a"]
    assert sum(look.expected.values()) == pytest.approx(1)
    assert look.expected["control"] == pytest.approx(0.34, abs=0.02)


def test_a_metric_and_a_guardrail_of_one_name_are_two_quantities(log: Log, crowd: Sequence[str]) -> None:
    for number in range(60):
        log.act(f"n{number}", "Skip")
        log.act(f"c{number}", "Skip") if number < 30 else None
    guard = {"name": "likes", "event": {"name": "Skip"}, "maxRegression": "0.1"}
    found = log.look(analysis(LIKE, guardrails=[guard, {**guard, "name": "lenient", "maxRegression": "1"}]))
    assert found.value("new", "likes") == 0
    strict, lenient = found.report.newest.guardrails
    assert (strict.value, strict.regression, strict.violated) == (1.0, pytest.approx(1.0), True)
    assert not lenient.violated
    assert found.result.metrics["1/g0/violated"] == 1
    assert "1/g1/violated" not in found.result.metrics
    assert found.result.metrics["guardrails/violated"] == 1


def test_a_log_with_nothing_in_it_is_a_look_too(log: Log) -> None:
    found = log.look(analysis(LIKE, RATE, guardrails=[{**RATE, "maximum": "1"}], varianceReduction="CUPED"))
    look = found.report.newest
    assert look.users == {"control": 0, "new": 0}
    assert (look.enough, look.void, look.winner, look.unavailable) == (False, False, None, ())
    assert look.expected == {}
    assert all(value.value is None for value in look.values)
    assert found.result.counts == {
        "users": 0,
        "events": 0,
        "users_of_moved_buckets": 0,
        "users_of_several_buckets": 0,
    }
    assert "No user has been counted yet." in found.page


def test_an_event_that_nobody_sent_is_zero_and_the_page_asks_for_its_name(log: Log, crowd: Sequence[str]) -> None:
    found = log.look(analysis())
    assert (found.value("control", "likes"), found.value("new", "likes")) == (0, 0)
    (why,) = found.report.newest.unavailable
    assert why == "metric likes: none of these users sent an event of type 'Like'; is it sent by that name?"
    assert found.result.metrics["silent"] == 1
    assert "no event &#39;Like&#39; has been counted" in found.page


def test_a_fixed_horizon_decides_at_the_planned_end_only(log: Log, crowd: Sequence[str]) -> None:
    for number in range(60):
        log.act(f"n{number}") if number % 2 else None
    given = analysis(method="FixedHorizon")
    early, ended = log.look(given), log.look(given, name="end", at_end=True)
    assert early.report.newest.winner is None
    assert ended.report.newest.winner == "new"
    assert early.report.newest.effects[0].p_value == ended.report.newest.effects[0].p_value


@pytest.mark.parametrize("weights", ["", "control", "control=x,new=1", "control=50,other=50", "=5,new=5"])
def test_weights_that_make_no_sense_are_no_comparison(log: Log, weights: str) -> None:
    log.see("n1", weights=weights)
    log.see("c1", "control")
    assert log.look(analysis()).report.newest.users == {"control": 1, "new": 0}


def test_a_value_beyond_all_measure_does_not_break_the_look(log: Log, crowd: Sequence[str]) -> None:
    log.act("n1", "Watch", value=1e308)
    log.act("n1", "Watch", value=1e308)
    log.act("n2", "Watch", value=float("nan"))
    log.act("c1", "Watch", value=1e200)
    found = log.look(analysis(WATCH, varianceReduction="CUPED"))
    assert found.report.newest.winner is None
    assert found.value("new", "watched") == found.value("control", "watched") == pytest.approx(1e50 / 60)
    assert found.report.newest.effects[0].lower is not None, "its fourth power is a number still"


def test_without_events_or_an_analysis_there_is_nothing_to_do(log: Log) -> None:
    with pytest.raises(BadInput, match="give eventsUri, or inputs named events-0"):
        log.look(analysis(), events_uri=None)
    with pytest.raises(BadInput, match="`analysis` must be given"):
        log.look(None, name="none")
    with pytest.raises(BadInput, match="control 'old' is none of"):
        log.look(analysis(), name="control", control="old")


def test_simulated_events_of_all_artifacts_are_read_together_and_once(log: Log) -> None:
    log.see("n1", exposure_id="x")
    log.act("n1", "Watch", event_id="e")
    first = log.artifact("first")
    log.see("n1", exposure_id="x")
    log.act("n1", "Watch", event_id="e")
    log.act("n1", "Watch", minutes=2, event_id="f")
    log.see("c1", "control")
    inputs = {"events-1": first, "events-2": log.artifact("second")}
    found = log.look(analysis(WATCH), inputs=inputs, events_uri=None)
    assert found.report.newest.users == {"control": 1, "new": 1}
    assert found.value("new", "watched") == 2
    assert found.report.newest.exposures == {"control": 1, "new": 1}


def test_the_range_of_the_look_is_half_open(log: Log) -> None:
    log.see("n1", minutes=-0.001)
    log.see("n2", minutes=0, bucket=101)
    log.see("n3", minutes=119.999, bucket=102)
    log.see("n4", minutes=120, bucket=103)
    assert log.look(analysis()).report.newest.users["new"] == 2
    later = log.look(analysis(), name="later", end=log.context(analysis()).spec.parameters.end + timedelta(minutes=1))
    assert later.report.newest.users["new"] == 3
