# SPDX-License-Identifier: Apache-2.0
"""The queue's promises: once in it, once at work, back-off, the earlier visit wins."""

from __future__ import annotations

import asyncio

import pytest

from thinkrec_operator.cluster.workqueue import MAX_SECONDS, WorkQueue

A, B, C = ("default", "a"), ("default", "b"), ("default", "c")


def run(scenario: object) -> None:
    asyncio.run(scenario)  # type: ignore[arg-type]


def test_a_key_added_twice_comes_once_and_in_order() -> None:
    async def scenario() -> None:
        queue = WorkQueue()
        for key in (A, B, A):
            queue.add(key)
        assert len(queue) == 2
        assert [await queue.get(), await queue.get()] == [A, B]

    run(scenario())


def test_a_key_added_while_at_work_comes_again_afterwards_and_never_beside_itself() -> None:
    async def scenario() -> None:
        queue = WorkQueue()
        queue.add(A)
        assert await queue.get() == A
        queue.add(A)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(queue.get(), 0.02)
        queue.done(A)
        assert await asyncio.wait_for(queue.get(), 1) == A
        queue.done(A)
        assert queue.idle

    run(scenario())


def test_the_earlier_of_two_visits_wins() -> None:
    async def scenario() -> None:
        queue = WorkQueue()
        queue.add_after(A, 60)
        queue.add_after(A, 0.02)
        queue.add_after(A, 30)
        assert await asyncio.wait_for(queue.get(), 1) == A

    run(scenario())


def test_failures_wait_longer_and_longer_until_one_goes_well() -> None:
    async def scenario() -> None:
        queue = WorkQueue(jitter=lambda: 1.0)
        waits = [queue.retry(A) for _ in range(5)]
        assert waits == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2])
        for _ in range(40):
            last = queue.retry(A)
        assert last == MAX_SECONDS
        queue.forget(A)
        assert queue.retry(A) == pytest.approx(0.2)
        assert queue.retry(B, after=7) == 7
        queue.drop(A)
        queue.drop(B)

    run(scenario())


def test_an_event_does_not_shorten_what_the_apiserver_asked_for() -> None:
    async def scenario() -> None:
        queue = WorkQueue()
        queue.retry(A, after=0.3)
        queue.add(A)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(queue.get(), 0.1)
        assert await asyncio.wait_for(queue.get(), 1) == A

    run(scenario())


def test_what_is_only_looked_at_after_a_start_waits_behind_what_happens() -> None:
    async def scenario() -> None:
        queue = WorkQueue()
        for key in (A, B, C):
            queue.add(key, last=True)
        queue.add(C)  # something happened to it
        queue.add(C, last=True)  # which this does not take back
        assert len(queue) == 3
        assert [await queue.get() for _ in range(3)] == [C, A, B]
        assert len(queue) == 0

    run(scenario())
