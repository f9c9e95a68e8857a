# SPDX-License-Identifier: Apache-2.0
"""Prometheus names of the gateway, defined once."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class GatewayMetrics:
    """The gateway's counters on a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.requests = Counter(
            "thinkrec_gateway_requests", "Requests by route and status.", ["route", "status"], registry=r
        )
        self.seconds = Histogram(
            "thinkrec_gateway_request_seconds", "Duration of requests.", ["route"], buckets=SECONDS, registry=r
        )
        self.pending = Gauge("thinkrec_gateway_pending_requests", "Requests in hand or waiting.", registry=r)
        self.branches = Counter("thinkrec_gateway_gate_branch", "Answers by gate branch.", ["branch"], registry=r)
        self.retrievals = Counter("thinkrec_gateway_retrievals", "Rankings by source.", ["source"], registry=r)
        self.events = Counter("thinkrec_gateway_events", "Feedback events by outcome.", ["outcome"], registry=r)
        self.exposures = Counter(
            "thinkrec_gateway_exposures", "Exposures, recorded or dropped for want of room.", ["outcome"], registry=r
        )
        self.fallbacks = Counter(
            "thinkrec_gateway_fallbacks",
            "Requests that control answered for another variant.",
            ["variant", "reason"],
            registry=r,
        )
        self.mirrored = Counter(
            "thinkrec_gateway_mirrored", "Copies of requests: compared, failed, or skipped.", ["outcome"], registry=r
        )
        self.traffic_valid = Gauge(
            "thinkrec_gateway_traffic_valid", "0 when the traffic file is broken and an older one is used.", registry=r
        )
        self.event_log_bytes = Gauge(
            "thinkrec_gateway_event_log_bytes", "Size of the events folder, shipped segments until counted.", registry=r
        )
        self.explanations = Counter("thinkrec_gateway_explanations", "Reasons by how they ended.", ["end"], registry=r)
