# SPDX-License-Identifier: Apache-2.0
"""The scheduler: merging, isolation of bad requests, priority, cancellation, refusal under load, one thread."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support.arithmetic_engine import ArithmeticEngine, expected_score
from thinkrec_crds.engine_api import ExplainEvent, ExplainRequest, ScoreRequest
from thinkrec_inference.engine_metrics import EngineMetrics
from thinkrec_inference.refusal import Refused
from thinkrec_inference.scheduler import ExplainJob, Limits, Scheduler

Received = queue.Queue[ExplainEvent | Exception | None]


@contextmanager
def running(engine: ArithmeticEngine, limits: Limits | None = None, *, speed: float = 1e6) -> Iterator[Scheduler]:
    scheduler = Scheduler(engine, limits or Limits(), EngineMetrics(), tokens_per_second=speed)
    scheduler.start()
    try:
        yield scheduler
    finally:
        scheduler.close()


def request(user: str, *items: str) -> ScoreRequest:
    return ScoreRequest(user_id=user, item_ids=items or ("a",))


def explain(scheduler: Scheduler, item: str) -> tuple[ExplainJob, Received]:
    received: Received = queue.Queue()
    job = ExplainJob(ExplainRequest(user_id="u", item_id=item), received.put)
    scheduler.explain(job)
    return job, received


def collect(received: Received) -> list[ExplainEvent | Exception]:
    return list(iter(lambda: received.get(timeout=10), None))


def test_concurrent_requests_become_one_engine_call_and_each_gets_its_own_scores() -> None:
    engine = ArithmeticEngine()  # 120 tokens for two items: the eighth request fills the batch
    with running(engine, Limits(batch_tokens=960, batch_delay_seconds=10.0)) as scheduler:
        futures = [scheduler.submit([request("u" * n, "a", "b" * n)])[0] for n in range(1, 9)]
        answers = [future.result(timeout=5) for future in futures]
    assert engine.batches == [tuple("u" * n for n in range(1, 9))]
    for n, answer in enumerate(answers, 1):
        assert answer.scores == (expected_score("u" * n, "a"), expected_score("u" * n, "b" * n))


def test_a_batch_closes_at_its_token_budget_and_a_bigger_request_still_runs_alone() -> None:
    engine = ArithmeticEngine()  # 110 tokens for one item, 200 for ten
    with running(engine, Limits(batch_tokens=230, batch_delay_seconds=0.2)) as scheduler:
        futures = scheduler.submit([request("a"), request("b"), request("c"), request("big", *"x" * 90)])
        for future in futures:
            future.result(timeout=5)
    assert engine.batches == [("a", "b"), ("c",), ("big",)]


@pytest.mark.parametrize(("item", "kind"), [("unknown-7", Refused), ("crash-7", ZeroDivisionError)])
def test_a_bad_request_in_a_batch_fails_alone(item: str, kind: type[Exception]) -> None:
    with running(ArithmeticEngine(), Limits(batch_delay_seconds=0.1)) as scheduler:
        good, bad, also_good = scheduler.submit([request("a"), request("b", item), request("c")])
        assert good.result(timeout=5).scores == (expected_score("a", "a"),)
        assert also_good.result(timeout=5).scores == (expected_score("c", "a"),)
        with pytest.raises(kind):
            bad.result(timeout=5)


def test_a_cancelled_request_is_not_scored() -> None:
    engine = ArithmeticEngine(held=True)
    with running(engine, Limits(batch_delay_seconds=0.0)) as scheduler:
        scheduler.submit([request("first")])
        assert engine.entered.wait(10)
        second, third = scheduler.submit([request("second"), request("third")])
        assert second.cancel()
        engine.go.set()
        third.result(timeout=5)
    assert engine.batches == [("first",), ("third",)]


def test_scores_pre_empt_explanations_between_two_steps() -> None:
    engine = ArithmeticEngine(held=True)
    with running(engine, Limits(batch_delay_seconds=0.0)) as scheduler:
        _, received = explain(scheduler, "abcde")
        assert engine.entered.wait(10)
        scored = scheduler.submit([request("u")])[0]
        engine.go.set()
        scored.result(timeout=5)
        collect(received)
    assert engine.work == ["begin 1", "a", "score", *"bcde"]


def test_explanations_are_written_in_one_batch_which_they_join_and_leave() -> None:
    engine = ArithmeticEngine(held=True)
    with running(engine) as scheduler:
        _, first = explain(scheduler, "p" * 6)
        assert engine.entered.wait(10)
        others = [explain(scheduler, letter * 4)[1] for letter in "qr"]
        engine.go.set()
        texts = ["".join(e.text for e in collect(s) if isinstance(e, ExplainEvent)) for s in (first, *others)]
    assert texts == ["p" * 6, "qqqq", "rrrr"]
    assert "pqr" in engine.work, engine.work
    assert engine.work[-1] == "p", "the longest goes on alone"


def test_a_cancelled_explanation_leaves_the_batch() -> None:
    engine = ArithmeticEngine(held=True)
    with running(engine) as scheduler:
        job, received = explain(scheduler, "z" * 250)
        assert engine.entered.wait(10)
        job.cancelled.set()
        engine.go.set()
        collect(received)
    assert engine.work == ["begin 1", "z"]


def test_an_explanation_beyond_its_time_ends_where_it_is() -> None:
    engine = ArithmeticEngine(held=True)
    with running(engine) as scheduler:
        received: Received = queue.Queue()
        asked = ExplainRequest(user_id="u", item_id="z" * 250, max_seconds=3.0)
        scheduler.explain(ExplainJob(asked, received.put))
        assert engine.entered.wait(10)  # it began in time, and its first letter takes until the time is over
        time.sleep(3.0)
        engine.go.set()
        first, last = collect(received)
    assert first == ExplainEvent(text="z")
    assert last == ExplainEvent(text="", done=True, finish_reason="cancelled")


def test_a_bad_explanation_fails_alone_and_a_defect_too() -> None:
    with running(ArithmeticEngine(seconds_per_step=0.01)) as scheduler:
        with scheduler._changed:  # all three are queued before the worker looks
            streams = [explain(scheduler, item)[1] for item in ("good", "unknown", "crash")]
        good, unknown, crash = (collect(stream) for stream in streams)
    assert "".join(e.text for e in good if isinstance(e, ExplainEvent)) == "good"
    assert [type(e) for e in unknown] == [Refused]
    assert [type(e) for e in crash] == [ZeroDivisionError]


def test_an_explanation_that_fails_hands_over_the_error_and_ends() -> None:
    with running(ArithmeticEngine()) as scheduler:
        _, received = explain(scheduler, "unknown")
        (error,) = collect(received)
    assert isinstance(error, Refused)
    assert error.detail.status == 404


def test_a_backlog_beyond_the_deadline_is_refused_with_the_time_to_wait() -> None:
    engine = ArithmeticEngine(held=True)
    limits = Limits(deadline_seconds=2.0, batch_delay_seconds=0.0, batch_tokens=1)
    with running(engine, limits, speed=100.0) as scheduler:  # 110 tokens take 1.1 s at this speed
        scheduler.submit([request("running")])
        assert engine.entered.wait(10)
        scheduler.submit([request(str(n)) for n in range(4)])  # 4.4 s of work
        with pytest.raises(Refused, match="more than the deadline of 2 s") as refused:
            scheduler.submit([request("late")])
        engine.go.set()
    assert refused.value.detail.status == 503
    assert refused.value.retry_after == 3  # ceil(4.4 - 2)


def test_more_explanations_than_slots_are_refused() -> None:
    engine = ArithmeticEngine(held=True)
    with running(engine, Limits(max_explanations=1)) as scheduler:
        _, received = explain(scheduler, "abcdef")
        with pytest.raises(Refused, match="1 explanations are in progress") as refused:
            explain(scheduler, "x")
        engine.go.set()
        collect(received)
    assert refused.value.retry_after is not None


def test_all_scoring_happens_in_one_thread() -> None:
    engine = ArithmeticEngine()
    with running(engine) as scheduler:
        for future in scheduler.submit([request("a"), request("b")]):
            future.result(timeout=5)
    assert engine.threads == {"torch"}


def test_closing_fails_what_is_queued_and_refuses_more() -> None:
    engine = ArithmeticEngine(seconds_per_batch=2.0)
    with running(engine, Limits(batch_delay_seconds=0.0, batch_tokens=1)) as scheduler:
        first = scheduler.submit([request("first")])[0]
        assert engine.entered.wait(10)
        queued = scheduler.submit([request("queued")])[0]
    assert first.result(timeout=5).user_id == "first"
    with pytest.raises(Refused, match="stopping"):
        queued.result(timeout=5)
    with pytest.raises(Refused, match="stopping"):
        scheduler.submit([request("after")])


def test_the_speed_follows_the_measured_one() -> None:
    engine = ArithmeticEngine(seconds_per_batch=0.05)  # 110 tokens in 0.05 s: 2200 tokens/s
    with running(engine, Limits(batch_delay_seconds=0.0), speed=1e6) as scheduler:
        for _ in range(30):
            scheduler.submit([request("u")])[0].result(timeout=5)
        speed = scheduler.tokens_per_second
    assert speed < 5000, "thirty batches leave 0.8**30 of the first guess"
