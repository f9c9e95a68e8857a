# SPDX-License-Identifier: Apache-2.0
"""What the operator tells Prometheus about itself and about the models (docs/operator.md).

Series of models are made when they are asked for, out of one small record per model: with ten thousand models, gauges
that are kept would need more memory than everything else.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from sys import intern

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from thinkrec_crds.experiment_status import ExperimentStatus
from thinkrec_crds.model_status import ModelStatus
from thinkrec_operator.cluster.experiment_series import ExperimentSeries

_STAGE_BUCKETS = (10, 30, 60, 300, 900, 1800, 3600, 2 * 3600, 4 * 3600, 8 * 3600, 24 * 3600)
_RECONCILE_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)


@dataclass(frozen=True, slots=True)
class _Summary:
    serving: str
    latest: str
    conditions: tuple[tuple[str, str], ...]
    trained: float | None


class _Models(Collector):
    """Series of models, made at every scrape."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], _Summary] = {}

    def collect(self) -> Iterator[Metric]:
        """Yield the three families."""
        labels = ("namespace", "name")
        info = GaugeMetricFamily(
            "thinkrec_model_info", "Constant 1.", labels=(*labels, "serving_revision", "latest_revision")
        )
        condition = GaugeMetricFamily(
            "thinkrec_model_condition", "1 for the status that a condition has now.", labels=(*labels, "type", "status")
        )
        age = GaugeMetricFamily("thinkrec_model_age_seconds", "Time since the latest training ended.", labels=labels)
        now = time.time()
        for key, summary in tuple(self.found.items()):
            info.add_metric((*key, summary.serving, summary.latest), 1)
            for type_, status in summary.conditions:
                condition.add_metric((*key, type_, status), 1)
            if summary.trained is not None:
                age.add_metric(key, max(0.0, now - summary.trained))
        yield from (info, condition, age)


class Metrics:
    """Every metric of one operator process, in a registry of its own."""

    def __init__(self) -> None:
        """Register them all; those with labels appear with their first value."""
        self.registry = registry = CollectorRegistry()
        self.queue_depth = Gauge("thinkrec_queue_depth", "Models that wait to be reconciled.", registry=registry)
        self.reconcile_duration = Histogram(
            "thinkrec_reconcile_duration_seconds",
            "Time of one reconciliation.",
            buckets=_RECONCILE_BUCKETS,
            registry=registry,
        )
        self.reconciles = Counter(
            "thinkrec_reconcile", "Reconciliations by how they ended.", ("result",), registry=registry
        )
        self.api_requests = Counter(
            "thinkrec_api_requests",
            "Calls to the apiserver; code 0 got no answer.",
            ("verb", "kind", "code"),
            registry=registry,
        )
        self.watch_age = Gauge(
            "thinkrec_watch_age_seconds", "Time since a watch last spoke.", ("kind",), registry=registry
        )
        self.watch_overdue = Gauge(
            "thinkrec_watch_overdue_seconds",
            "Time for which a watch has owed us a change that we know of.",
            ("kind",),
            registry=registry,
        )
        self.loop_lag = Gauge("thinkrec_event_loop_lag_seconds", "Latest lag of the event loop.", registry=registry)
        self.stage_duration = Histogram(
            "thinkrec_stage_duration_seconds",
            "Time of a finished stage.",
            ("kind",),
            buckets=_STAGE_BUCKETS,
            registry=registry,
        )
        self._models = _Models()
        self._experiments = ExperimentSeries()
        registry.register(self._models)
        registry.register(self._experiments)

    def model(self, namespace: str, name: str, status: ModelStatus) -> None:
        """Tell a model's newest status."""
        trained = status.last_training_time
        self._models.found[namespace, name] = _Summary(
            serving=status.serving_revision or "",
            latest=status.latest_revision or "",
            conditions=tuple((intern(c.type), intern(c.status)) for c in status.conditions),
            trained=trained.timestamp() if trained is not None else None,
        )

    def experiment(self, namespace: str, name: str, status: ExperimentStatus) -> None:
        """Tell an experiment's newest status."""
        self._experiments.found[namespace, name] = status

    def forget_experiment(self, namespace: str, name: str) -> None:
        """Drop the series of an experiment that is gone."""
        self._experiments.found.pop((namespace, name), None)

    def unreadable(self, namespace: str, name: str) -> None:
        """Tell that a model cannot be read: nothing is known of it but that."""
        self._models.found[namespace, name] = _Summary("", "", (("Ready", "False"), ("Stalled", "True")), None)

    def forget(self, namespace: str, name: str) -> None:
        """Drop the series of a model that is gone."""
        self._models.found.pop((namespace, name), None)

    def stages(self, before: ModelStatus, after: ModelStatus) -> None:
        """Tell how long the stages took that ended between two statuses."""
        old = {(row.name, row.key): row.state for row in (*before.stages, *before.experts)}
        for row in (*after.stages, *after.experts):
            ended = row.state == "Succeeded" and old.get((row.name, row.key)) != "Succeeded"
            if ended and row.start_time is not None and row.completion_time is not None:
                seconds = (row.completion_time - row.start_time).total_seconds()
                self.stage_duration.labels(row.kind).observe(max(0.0, seconds))
