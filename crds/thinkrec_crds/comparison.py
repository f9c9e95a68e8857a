# SPDX-License-Identifier: Apache-2.0
"""What the stages `score` and `compare` leave: every variant's scores on the same rows, and how they differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from thinkrec_crds.contract import Contract
from thinkrec_crds.evaluation import Estimate
from thinkrec_crds.flat_numbers import MOST_BYTES, Measured, packed, read

SCORES_NAME = "scores.parquet"
COMPARISON_NAME = "comparison.json"
VARIANT_PREFIX = "variant-"
"""Of the roles under which `compare` reads each variant's scores."""
TRAINING_ROLE = "training"
"""Role of the data that a variant was trained on, where it is not the data that is compared on."""


class VariantResult(Contract):
    """One variant on the compared rows."""

    name: str
    metrics: dict[str, Estimate]
    unknown_rows: int = 0
    """Rows with an item that the variant does not know; it gave them its median score for that user."""


class Difference(Contract):
    """Variant minus control on one metric, paired over users."""

    variant: str
    metric: str
    effect: Estimate
    p_value: float | None = None
    """Two-sided, by the paired bootstrap; null where the metric is undefined."""
    adjusted_p_value: float | None = None
    """The same after Holm's correction over the variants."""


class ComparisonReport(Contract):
    """The content of comparison.json."""

    schema_version: int = 1
    control: str
    variants: tuple[VariantResult, ...]
    """Control among them, in the experiment's order."""
    differences: tuple[Difference, ...]
    users: int
    rows: int
    trained_on_rows: int = 0
    """Rows left out because some variant had them in its own training data."""
    seed: int
    bootstrap_samples: int

    def difference(self, variant: str, metric: str) -> Difference | None:
        """Return how a variant differs from control on a metric, or None."""
        return next((d for d in self.differences if (d.variant, d.metric) == (variant, metric)), None)

    def numbers(self, *, most_bytes: int = MOST_BYTES) -> dict[str, float]:
        """Return what a status and a verdict need as flat numbers, the most important ones first.

        All of it goes through a termination message, which is small: what does not fit into `most_bytes` of JSON is
        left out, beginning with the intervals of metrics that decide nothing. Undefined numbers are absent.
        """
        return packed(self._by_importance(), most_bytes=most_bytes)

    def _by_importance(self) -> Iterator[dict[str, float | None]]:
        places = {result.name: place for place, result in enumerate(self.variants)}
        metrics = list(self.variants[0].metrics)
        for difference in (d for d in self.differences if d.metric == metrics[0]):
            yield _effect(places[difference.variant], difference)
        for metric in metrics:
            yield {_name(places[r.name], metric): r.metrics[metric].value for r in self.variants}
        for metric in metrics:
            for result in self.variants:
                yield _interval(_name(places[result.name], metric), result.metrics[metric])
            for difference in (d for d in self.differences if d.metric == metric):
                yield _effect(places[difference.variant], difference)


def measured(numbers: Mapping[str, float], place: int, metric: str) -> Measured | None:
    """Return a metric of the variant at this place of the experiment, or None where the numbers have none."""
    return read(numbers, _name(place, metric))


def effect(numbers: Mapping[str, float], place: int, metric: str) -> Measured | None:
    """Return variant minus control on a metric, or None where the numbers have none."""
    return read(numbers, f"{_name(place, metric)}/effect")


def _name(place: int, metric: str) -> str:
    return f"{place}/{metric.lower()}"


def _interval(name: str, value: Estimate) -> dict[str, float | None]:
    return {f"{name}/lower": value.lower, f"{name}/upper": value.upper}


def _effect(place: int, difference: Difference) -> dict[str, float | None]:
    name = f"{_name(place, difference.metric)}/effect"
    value = difference.effect
    return {name: value.value, **_interval(name, value), f"{name}/p": difference.adjusted_p_value}
