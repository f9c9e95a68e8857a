# SPDX-License-Identifier: Apache-2.0
"""Prometheus names of the engine process, defined once.

Requests are a poor unit here (one request is one user and N candidates): scale on
`thinkrec_engine_queued_tokens / thinkrec_engine_tokens_per_second`, the seconds of backlog.
"""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from thinkrec_crds.engine_api import EngineError, ScoreResponse

TOKEN_BUCKETS = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768)


class EngineMetrics:
    """The engine's counters, on a registry of their own so that two engines in one process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.queued_tokens = Gauge("thinkrec_engine_queued_tokens", "Tokens of queued score requests.", registry=r)
        self.inflight_tokens = Gauge("thinkrec_engine_inflight_tokens", "Tokens of the batch in hand.", registry=r)
        self.tokens_per_second = Gauge("thinkrec_engine_tokens_per_second", "Measured scoring speed.", registry=r)
        self.candidates_scored = Counter("thinkrec_engine_candidates_scored", "Candidates scored.", registry=r)
        self.batch_tokens = Histogram(
            "thinkrec_engine_batch_tokens", "Tokens of each score batch.", buckets=TOKEN_BUCKETS, registry=r
        )
        self.batch_requests = Histogram(
            "thinkrec_engine_batch_requests", "Requests of each score batch.", buckets=(1, 2, 4, 8, 16, 32), registry=r
        )
        self.gate_branch = Counter("thinkrec_engine_gate_branch", "Users by gate branch.", ["branch"], registry=r)
        self.refused = Counter("thinkrec_engine_refused", "Requests refused by the engine.", registry=r)
        self.prefix_hit_ratio = Gauge(
            "thinkrec_engine_prefix_hit_ratio",
            "Share of user prefixes found in the KV pool of this bundle.",
            registry=r,
        )
        self.decode_slots_used = Gauge("thinkrec_engine_decode_slots_used", "Explanations in progress.", registry=r)
        self.adapter_generation = Gauge(
            "thinkrec_engine_adapter_generation", "1 for the bundle that answers now.", ["generation"], registry=r
        )

    def listen(self, port: int) -> None:
        """Serve the metrics on all addresses of this TCP port too: Prometheus cannot scrape a Unix socket."""
        start_http_server(port, registry=self.registry)

    def observe_batch(self, tokens: int, answers: Sequence[ScoreResponse | EngineError]) -> None:
        """Count one finished score batch."""
        self.batch_tokens.observe(tokens)
        self.batch_requests.observe(len(answers))
        for answer in answers:
            if isinstance(answer, EngineError):
                self.refused.inc()
                continue
            self.candidates_scored.inc(len(answer.scores))
            self.gate_branch.labels(answer.branch.value).inc()

    def serves(self, generation: str) -> None:
        """Say which bundle answers from now on."""
        self.adapter_generation.clear()
        self.adapter_generation.labels(generation).set(1)
