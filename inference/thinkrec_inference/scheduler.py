# SPDX-License-Identifier: Apache-2.0
"""One worker thread that owns torch: merges concurrent score requests and gives explanations the time between.

Scores come before explanations. A score batch is closed by its token budget or by a short delay after its first
request. Explanations of all callers are written in one running batch, a token of each per step, which they join and
leave between steps (iteration-level scheduling: Orca, OSDI 2022); a score never waits for more than one such step.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from thinkrec_crds.engine_api import EngineError, ExplainEvent, ExplainRequest, ScoreRequest, ScoreResponse
from thinkrec_inference.engine_metrics import EngineMetrics
from thinkrec_inference.refusal import Refused


class Explanation(Protocol):
    """One explanation under way; its content is the engine's own."""

    @property
    def done(self) -> bool:
        """Return whether nothing more will be written."""

    def take(self) -> ExplainEvent | None:
        """Return what was written since the last call, or None."""


class ScoringEngine(Protocol):
    """What the scheduler needs of the engine; score, begin and step come from the one worker thread only."""

    @property
    def generation(self) -> str:
        """Return the digest of the bundle that answers now."""

    @property
    def prefix_hit_ratio(self) -> float:
        """Return the share of user prefixes that were found in the KV pool."""

    def score(self, requests: Sequence[ScoreRequest]) -> Sequence[ScoreResponse | EngineError]:
        """Score several users in one packed call, answers in order; a refused request does not touch the others."""

    def begin(self, requests: Sequence[ExplainRequest]) -> Sequence[Explanation | EngineError]:
        """Score and decide each candidate in one packed call; a refused request does not touch the others."""

    def step(self, explanations: Sequence[Any]) -> None:
        """Write one more token of each, in one forward pass. They are what `begin` returned."""

    def tokens(self, request: ScoreRequest) -> int:
        """Return how many tokens the request costs without any cached prefix; called from any thread."""

    def swap(self, bundle: Path) -> None:
        """Load and check another bundle over the same base model, then serve it; on any error keep the old one.

        Called from a thread of its own while the worker goes on scoring with the old bundle.
        """


@dataclass(frozen=True, slots=True)
class Limits:
    """When batches close and when requests are turned away."""

    batch_tokens: int = 4096
    """Tokens of one score batch (prefixes and suffixes), as many as the engine takes into one forward pass; one request
    alone may exceed it."""
    batch_delay_seconds: float = 0.001
    """How long the first request of a batch waits for company; Triton has let it wait already."""
    deadline_seconds: float = 10.0
    """A backlog beyond this is refused at once: the answer would come too late for its caller."""
    max_explanations: int = 32
    """Explanations in progress; each holds the KV rows of its prompt."""
    begin_at_once: int = 8
    """Prompts computed in one step: whole prompts, so a score may have to wait for so many."""


@dataclass(slots=True)
class _ScoreJob:
    request: ScoreRequest
    tokens: int
    arrived: float
    """Seconds of the monotonic clock."""
    future: Future[ScoreResponse] = field(default_factory=Future)


@dataclass(slots=True)
class ExplainJob:
    """One explanation in progress; `emit` is called from the worker thread with events, then once with None."""

    request: ExplainRequest
    emit: Callable[[ExplainEvent | Exception | None], None]
    cancelled: threading.Event = field(default_factory=threading.Event)
    arrived: float = field(default_factory=time.monotonic)
    explanation: Explanation | None = None
    """None until it has begun."""


class Scheduler:
    """Queues in front of the engine, and the thread that empties them."""

    def __init__(
        self, engine: ScoringEngine, limits: Limits, metrics: EngineMetrics, *, tokens_per_second: float
    ) -> None:
        self.engine = engine
        self.limits = limits
        self.metrics = metrics
        self.tokens_per_second = tokens_per_second
        """Measured; starts with the speed of the golden prompts."""
        self._changed = threading.Condition()
        self._scores: deque[_ScoreJob] = deque()
        self._explanations: deque[ExplainJob] = deque()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="torch", daemon=True)

    def start(self) -> None:
        """Start the worker thread."""
        self._thread.start()

    def close(self) -> None:
        """Finish the step in hand, fail what is queued, end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()
        for job in self._scores:
            job.future.set_exception(_stopping())
        for explanation in self._explanations:
            explanation.emit(_stopping())
            explanation.emit(None)

    # -- what callers do, from any thread ------------------------------------------------------------------------

    def submit(self, requests: Sequence[ScoreRequest]) -> list[Future[ScoreResponse]]:
        """Queue the requests and return their futures; raise Refused (503) when the backlog exceeds the deadline."""
        now = time.monotonic()
        jobs = [_ScoreJob(request, self.engine.tokens(request), now) for request in requests]
        with self._changed:
            self._admit()
            self._scores.extend(jobs)
            self.metrics.queued_tokens.set(self._queued_tokens())
            self._changed.notify()
        return [job.future for job in jobs]

    def explain(self, job: ExplainJob) -> None:
        """Queue an explanation; raise Refused (503) when too many are in progress."""
        with self._changed:
            if len(self._explanations) >= self.limits.max_explanations:
                raise Refused(
                    503,
                    f"{self.limits.max_explanations} explanations are in progress already",
                    "Ask again in a few seconds, or ask without an explanation.",
                    retry_after=5,
                )
            self._admit()
            self._explanations.append(job)
            self.metrics.decode_slots_used.set(len(self._explanations))
            self._changed.notify()

    def backlog_seconds(self) -> float:
        """Return how long the queued score requests will take at the measured speed."""
        return self._queued_tokens() / self.tokens_per_second

    def _queued_tokens(self) -> int:
        return sum(job.tokens for job in self._scores)

    def _admit(self) -> None:
        if self._stopping:
            raise _stopping()
        backlog = self.backlog_seconds()
        if backlog > self.limits.deadline_seconds:
            raise Refused(
                503,
                f"the engine has {backlog:.1f} s of work queued, more than the deadline of "
                f"{self.limits.deadline_seconds:g} s",
                "Ask again after the time in Retry-After, or add replicas.",
                retry_after=max(1, math.ceil(backlog - self.limits.deadline_seconds)),
            )

    # -- the worker thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        while self._wait():
            if batch := self._pop_batch():
                self._score(batch)
            else:
                self._write()

    def _wait(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._scores or self._explanations)
            return not self._stopping

    def _pop_batch(self) -> list[_ScoreJob]:
        with self._changed:
            if not self._scores:
                return []
            closes = self._scores[0].arrived + self.limits.batch_delay_seconds
            self._changed.wait_for(self._full, timeout=max(0.0, closes - time.monotonic()))
            batch: list[_ScoreJob] = []
            room = self.limits.batch_tokens
            while self._scores and (not batch or self._scores[0].tokens <= room):
                job = self._scores.popleft()
                room -= job.tokens
                if job.future.set_running_or_notify_cancel():
                    batch.append(job)
            self.metrics.queued_tokens.set(self._queued_tokens())
            return batch

    def _full(self) -> bool:
        return self._stopping or self._queued_tokens() >= self.limits.batch_tokens

    def _score(self, batch: list[_ScoreJob]) -> None:
        tokens = sum(job.tokens for job in batch)
        self.metrics.inflight_tokens.set(tokens)
        started = time.monotonic()
        try:
            answers = self.engine.score([job.request for job in batch])
        except Exception as error:  # any failure of a merged batch: only the guilty request may suffer
            self._score_apart(batch, error)
        else:
            self._learn_speed(tokens, time.monotonic() - started)
            self.metrics.observe_batch(tokens, answers)
            self.metrics.prefix_hit_ratio.set(self.engine.prefix_hit_ratio)
            for job, answer in zip(batch, answers, strict=True):
                _answer(job.future, answer)
        finally:
            self.metrics.inflight_tokens.set(0)

    def _score_apart(self, batch: list[_ScoreJob], error: Exception) -> None:
        if len(batch) == 1:
            batch[0].future.set_exception(error)
            return
        for job in batch:
            self._score([job])

    def _learn_speed(self, tokens: int, seconds: float) -> None:
        if tokens == 0:  # nothing but refusals
            return
        measured = tokens / max(seconds, 1e-6)
        self.tokens_per_second += 0.2 * (measured - self.tokens_per_second)
        self.metrics.tokens_per_second.set(self.tokens_per_second)

    def _write(self) -> None:
        """Begin new explanations, or write one more token of all that are under way."""
        with self._changed:
            jobs = list(self._explanations)
        going = [job for job in jobs if not self._over(job)]
        fresh = [job for job in going if job.explanation is None][: self.limits.begin_at_once]
        if fresh:
            self._begin(fresh)
        elif going:
            self._step(going)

    def _over(self, job: ExplainJob) -> bool:
        """End the job if its caller is gone or its time is up; return whether it was ended."""
        limit = job.request.max_seconds
        late = limit is not None and time.monotonic() - job.arrived > limit
        if late:
            job.emit(ExplainEvent(text="", done=True, finish_reason="cancelled"))
        if late or job.cancelled.is_set():
            self._end(job)
            return True
        return False

    def _begin(self, jobs: list[ExplainJob]) -> None:
        try:
            begun = self.engine.begin([job.request for job in jobs])
        except Exception as error:  # handed to the callers, who wait on their streams; if many, to the guilty one only
            if len(jobs) == 1:
                self._end(jobs[0], error)
            for job in jobs if len(jobs) > 1 else ():
                self._begin([job])
            return
        for job, explanation in zip(jobs, begun, strict=True):
            if isinstance(explanation, EngineError):
                self._end(job, Refused.of(explanation))
            else:
                job.explanation = explanation
                self._deliver(job)

    def _step(self, jobs: list[ExplainJob]) -> None:
        try:
            self.engine.step([job.explanation for job in jobs if job.explanation is not None])
        except Exception as error:  # handed to the callers; a failed forward pass concerns every row of it
            for job in jobs:
                self._end(job, error)
            return
        for job in jobs:
            self._deliver(job)

    def _deliver(self, job: ExplainJob) -> None:
        assert job.explanation is not None
        event = job.explanation.take()
        if event is not None:
            job.emit(event)
        if job.explanation.done:
            self._end(job)

    def _end(self, job: ExplainJob, error: Exception | None = None) -> None:
        with self._changed:
            self._explanations.remove(job)
            self.metrics.decode_slots_used.set(len(self._explanations))
        if error is not None:
            job.emit(error)
        job.emit(None)


def _answer(future: Future[ScoreResponse], answer: ScoreResponse | EngineError) -> None:
    if isinstance(answer, EngineError):
        future.set_exception(Refused.of(answer))
    else:
        future.set_result(answer)


def _stopping() -> Refused:
    return Refused(503, "the engine is stopping", "Ask another replica.", retry_after=1)
