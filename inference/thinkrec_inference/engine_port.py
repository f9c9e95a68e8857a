# SPDX-License-Identifier: Apache-2.0
"""Joins the engine library to the engine process: loading with a speed measurement, token costs, errors as refusals."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from thinkrec_crds.engine_api import EngineError, ExplainEvent, ExplainRequest, ScoreRequest, ScoreResponse
from thinkrec_crds.stages import ComputeOptions
from thinkrec_inference.engine.engine import Engine
from thinkrec_inference.engine.errors import BaseModelError, BundleError, RequestRefusedError
from thinkrec_inference.refusal import Refused

SUFFIX_SAMPLE = 64
"""Items whose prompt suffixes are counted for the mean length."""


class EnginePort:
    """A `ScoringEngine` over the engine library."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._suffix_tokens = _mean_suffix(engine)

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
        try:
            job = self._engine.plan(request).job
        except RequestRefusedError:
            return 0
        prefix = self._engine.scorer.encoder.prefix(job.history, user_index=job.user_index, soft=job.soft)
        return len(prefix) + round(len(job.candidates) * self._suffix_tokens)

    def score(self, requests: Sequence[ScoreRequest]) -> Sequence[ScoreResponse | EngineError]:
        """Score several users in one packed call."""
        return self._engine.score(requests)

    def explain(self, request: ExplainRequest) -> Iterator[ExplainEvent]:
        """Yield an explanation piece by piece."""
        try:
            return self._engine.explain(request)
        except RequestRefusedError as refused:
            raise Refused.of(refused.error) from refused

    def swap(self, bundle: Path) -> None:
        """Verify another bundle and switch to it."""
        try:
            self._engine.swap(bundle)
        except BundleError as error:
            raise Refused(422, f"the bundle was not taken: {error}", "The old one goes on answering.") from error
        self._suffix_tokens = _mean_suffix(self._engine)


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


def _speed(port: EnginePort, engine: Engine) -> float:
    """Return tokens per second over the golden prompts, with warm prefixes: a first guess, soon corrected."""
    golden = engine.bundle.golden
    assert golden is not None, "Engine.load refuses a bundle without golden prompts"
    requests = [ScoreRequest(user_id=p.user_id, item_ids=p.item_ids) for p in golden.prompts]
    started = time.perf_counter()
    port.score(requests)
    return max(1.0, sum(map(port.tokens, requests))) / (time.perf_counter() - started)


def _mean_suffix(engine: Engine) -> float:
    encoder = engine.scorer.encoder
    items = range(0, len(encoder.catalogue), max(1, len(encoder.catalogue) // SUFFIX_SAMPLE))
    return sum(len(encoder.suffix(item, soft=True)) for item in items) / len(items)
