# SPDX-License-Identifier: Apache-2.0
"""What Prometheus is told about experiments (docs/operator.md), made out of their status at every scrape."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from thinkrec_crds.conditions import ConditionType
from thinkrec_crds.experiment_status import AnalysisStatus, ExperimentStatus

_NAME = ("namespace", "name")


class ExperimentSeries(Collector):
    """Series of all experiments, by (namespace, name)."""

    def __init__(self) -> None:
        """Know none yet."""
        self.found: dict[tuple[str, str], ExperimentStatus] = {}

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        info = _family("thinkrec_experiment_info", "Constant 1; the reason is that of Succeeded.", "reason", "winner")
        condition = _family("thinkrec_experiment_condition", "1 for the status it has now.", "type", "status")
        weight = _family("thinkrec_experiment_weight", "Share of users in percent.", "variant")
        users = _family("thinkrec_experiment_users", "Users that the newest analysis counted.", "variant")
        exposures = CounterMetricFamily(
            "thinkrec_experiment_exposures", "Requests of the variants' users.", labels=(*_NAME, "variant")
        )
        effect = _family(
            "thinkrec_experiment_effect", "Variant minus control; bound is value, lower or upper.", *_EFFECT
        )
        violated = _family("thinkrec_experiment_guardrail_violated", "1 where it is.", "variant", "guardrail")
        for key, status in tuple(self.found.items()):
            told, ended = status.condition(ConditionType.SUCCEEDED), status.conclusion
            info.add_metric((*key, told.reason if told else "", (ended.winner if ended else None) or ""), 1)
            for item in status.conditions:
                condition.add_metric((*key, item.type, item.status), 1)
            for row in status.variants:
                weight.add_metric((*key, row.name), row.weight or 0)
                users.add_metric((*key, row.name), row.users or 0)
                exposures.add_metric((*key, row.name), row.exposures or 0)
            _looked_at(key, status.analysis or AnalysisStatus(), effect, violated)
        yield from (info, condition, weight, users, exposures, effect, violated)


_EFFECT = ("variant", "metric", "bound")


def _family(name: str, about: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, about, labels=(*_NAME, *labels))


def _looked_at(
    key: tuple[str, str], told: AnalysisStatus, effect: GaugeMetricFamily, violated: GaugeMetricFamily
) -> None:
    for found in told.effects:
        for bound, value in (("value", found.effect), ("lower", found.lower), ("upper", found.upper)):
            if value is not None:
                effect.add_metric((*key, found.variant, found.metric, bound), float(value))
    for rail in told.guardrails:
        violated.add_metric((*key, rail.variant, rail.name), int(rail.violated))
