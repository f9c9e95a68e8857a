# SPDX-License-Identifier: Apache-2.0
"""Joins the engine library to the engine process: loading with a speed measurement, token costs, batched writing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from thinkrec_crds.engine_api import EngineError, ExplainEvent, ExplainRequest, ScoreRequest, ScoreResponse
from thinkrec_crds.stages import ComputeOptions
from thinkrec_inference.engine.decoding import Writing, WritingOptions
from thinkrec_inference.engine.engine import Engine, Plan, Revision
from thinkrec_inference.engine.errors import BaseModelError, BundleError, RequestRefusedError
from thinkrec_inference.refusal import Refused

SUFFIX_SAMPLE = 64
"""Items whose prompt suffixes are counted for the mean length."""


@dataclass(slots=True, eq=False)
class WritingInBatch:
    """One explanation under way, bound to the generation it began with."""

    revision: Revision
    plan: Plan
    writing: Writing
    _sent: int = field(default=-1)
    """Characters handed out; -1 before the first event."""

    @property
    def done(self) -> bool:
        """Return whether the last event was written."""
        return self.writing.finish_reason is not None

    def take(self) -> ExplainEvent | None:
        """Return what was written since the last call, or None; the first event has the score, the last everything."""
        writing, first = self.writing, self._sent < 0
        text = writing.text[max(0, self._sent) :]
        self._sent = len(writing.text)
        if self.done:
            return ExplainEvent(
                text=text,
                done=True,
                finish_reason=writing.finish_reason,
                score=writing.score,
                decision=writing.decision,
                gates=self.plan.gates,
                branch=self.plan.branch,
                generation=self.revision.bundle.generation,
            )
        if first:
            return ExplainEvent(text=text, score=writing.score, decision=writing.decision)
        return ExplainEvent(text=text) if text else None


class EnginePort:
    """A `ScoringEngine` over the engine library."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._suffix_tokens = _mean_suffix(engine.revision)

    @property
    def generation(self) -> str:
        """Return the digest of the bundle that answers now."""
        return self._engine.generation

    @property
    def prefix_hit_ratio(self) -> float:
        """Return the share of prefixes found in the KV pool of this generation."""
        pool = self._engine.scorer.pool
        return pool.hits / max(1, pool.hits + pool.misses)

    def tokens(self, request: ScoreRequest) -> int:
        """Return the prefix's length and the candidates times the catalogue's mean suffix; 0 for a refused request."""
        revision = self._engine.revision
        try:
            job = revision.plan(request).job
        except RequestRefusedError:
            return 0
        prefix = revision.scorer.encoder.prefix(job.history, user_index=job.user_index, soft=job.soft)
        return len(prefix) + round(len(job.candidates) * self._suffix_tokens)

    def score(self, requests: Sequence[ScoreRequest]) -> Sequence[ScoreResponse | EngineError]:
        """Score several users in one packed call."""
        return self._engine.score(requests)

    def begin(self, requests: Sequence[ExplainRequest]) -> list[WritingInBatch | EngineError]:
        """Score and decide each candidate together; what is refused is refused alone."""
        revision = self._engine.revision
        plans = [_plan(revision, request) for request in requests]
        good = [(plan, request) for plan, request in zip(plans, requests, strict=True) if isinstance(plan, Plan)]
        options = [WritingOptions(max_tokens=request.max_tokens) for _, request in good]
        writings = iter(revision.writer.start([plan.job for plan, _ in good], options))
        return [WritingInBatch(revision, plan, next(writings)) if isinstance(plan, Plan) else plan for plan in plans]

    def step(self, explanations: Sequence[WritingInBatch]) -> None:
        """Write one more token of each, in one forward pass per generation (two only around a swap)."""
        for revision in dict.fromkeys(e.revision for e in explanations):
            revision.writer.step([e.writing for e in explanations if e.revision is revision])

    def swap(self, bundle: Path) -> None:
        """Verify another bundle and switch to it."""
        try:
            self._engine.swap(bundle)
        except BundleError as error:
            raise Refused(422, f"the bundle was not taken: {error}", "The old one goes on answering.") from error
        self._suffix_tokens = _mean_suffix(self._engine.revision)


def loader(
    bundle: Path, base_model: Path, *, compute: ComputeOptions, fusion: Literal["Exact", "PeftLinear"] | None
) -> Callable[[], tuple[EnginePort, float]]:
    """Return what loads the engine, reproduces its golden prompts and measures its tokens per second."""

    def load() -> tuple[EnginePort, float]:
        try:
            engine = Engine.load(bundle, base_model, compute, fusion=fusion)
        except (BaseModelError, BundleError, OSError, ValueError) as error:
            raise Refused(500, str(error)) from error
        port = EnginePort(engine)
        return port, _speed(port, engine)

    return load


def _plan(revision: Revision, request: ExplainRequest) -> Plan | EngineError:
    try:
        return revision.plan(request)
    except RequestRefusedError as refused:
        return refused.error


def _speed(port: EnginePort, engine: Engine) -> float:
    """Return tokens per second over the golden prompts, with warm prefixes: a first guess, soon corrected."""
    golden = engine.bundle.golden
    assert golden is not None, "Engine.load refuses a bundle without golden prompts"
    requests = [ScoreRequest(user_id=p.user_id, item_ids=p.item_ids) for p in golden.prompts]
    started = time.perf_counter()
    port.score(requests)
    return max(1.0, sum(map(port.tokens, requests))) / (time.perf_counter() - started)


def _mean_suffix(revision: Revision) -> float:
    encoder = revision.scorer.encoder
    items = range(0, len(encoder.catalogue), max(1, len(encoder.catalogue) // SUFFIX_SAMPLE))
    return sum(len(encoder.suffix(item, soft=True)) for item in items) / len(items)
