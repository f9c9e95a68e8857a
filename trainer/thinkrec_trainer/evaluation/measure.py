# SPDX-License-Identifier: Apache-2.0
"""Scores -> estimates with intervals, paired differences and flat numbers for gates. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from thinkrec_crds.evaluation import FUSED, MAIN_METRIC, Difference, Estimate, EvaluationRow, EvaluationSlice, RowKind
from thinkrec_trainer.bootstrap import Draws, Interval, Sampled, draw_users, sampled_auc, sampled_mean
from thinkrec_trainer.metrics import Rows, average_precision, ndcg, per_user_auc

BEST_EXPERT = "best-expert"
FLAT_KINDS = ("Base", "Collaborative", "General", "BestExpert", "Serving")
"""Kinds of rows whose values go into the termination message beside the fused model's."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One row of the table before it is measured."""

    name: str
    title: str
    kind: RowKind
    scores: npt.NDArray[np.float64]
    """(N,)"""
    note: str = ""


def sampled_metric(name: str, rows: Rows, draws: Draws) -> dict[str, Sampled]:
    """Return the bootstrapped metric `name` (AUC, UAUC, NDCG@k, MAP@k; MAP has two readings and returns both)."""
    if name == "AUC":
        return {name: sampled_auc(rows, draws)}
    if name == "UAUC":
        return {name: sampled_mean(per_user_auc(rows), draws)}
    family, _, depth = name.partition("@")
    k = int(depth)
    if family == "NDCG":
        return {name: sampled_mean(ndcg(rows, k=k), draws)}
    capped = average_precision(rows, k=k, denominator="Capped")
    return {name: sampled_mean(average_precision(rows, k=k), draws), f"{name} capped": sampled_mean(capped, draws)}


@dataclass(frozen=True, slots=True)
class Labels:
    """What all rows of the table share."""

    owners: npt.NDArray[np.int64]
    """(N,) position of the row's user."""
    liked: npt.NDArray[np.bool_]
    """(N,)"""

    def where(self, keep: npt.NDArray[np.bool_]) -> Labels:
        """Return the rows where `keep` holds, users renumbered without gaps."""
        _, owners = np.unique(self.owners[keep], return_inverse=True)
        return Labels(owners.astype(np.int64), self.liked[keep])

    @property
    def users(self) -> int:
        """Users with at least one row."""
        return len(np.unique(self.owners))


def measure(
    labels: Labels, table: Sequence[Scored], metrics: Sequence[str], *, samples: int, seed: int
) -> tuple[tuple[EvaluationRow, ...], tuple[Difference, ...]]:
    """Return the measured rows and the paired differences fused - other, all on the same draws of users."""
    draws = draw_users(labels.users, samples=samples, seed=seed)
    found: dict[str, dict[str, Sampled]] = {}
    for row in table:
        rows = Rows.of(labels.owners, labels.liked, row.scores, user_count=labels.users)
        found[row.name] = {key: value for name in metrics for key, value in sampled_metric(name, rows, draws).items()}
    measured = [
        EvaluationRow(
            name=row.name,
            title=row.title,
            kind=row.kind,
            metrics={name: estimate(value.interval()) for name, value in found[row.name].items()},
            note=row.note,
        )
        for row in table
    ]
    return tuple(measured), _differences(found)


def _differences(found: Mapping[str, Mapping[str, Sampled]]) -> tuple[Difference, ...]:
    fused = found.get(FUSED, {})
    return tuple(
        Difference(other=name, metrics={key: estimate(fused[key].minus(value)) for key, value in values.items()})
        for name, values in found.items()
        if name != FUSED and fused
    )


def estimate(interval: Interval) -> Estimate:
    """Return the contract's form, null for NaN."""
    value, lower, upper = (None if math.isnan(x) else x for x in (interval.value, interval.lower, interval.upper))
    return Estimate(value=value, lower=lower, upper=upper, users=interval.users)


def best_expert(labels: Labels, experts: Sequence[Scored]) -> Scored | None:
    """Return the expert with the best UAUC on these very rows (the first one where it is undefined), as its own row."""
    if not experts:
        return None
    best = max(experts, key=lambda row: _quality(labels, row.scores))
    note = "Chosen on these test rows, so it is an upper bound for any single expert."
    return Scored(
        BEST_EXPERT, f"Best single expert ({best.title.removesuffix(' alone')})", "BestExpert", best.scores, note
    )


def _quality(labels: Labels, scores: npt.NDArray[np.float64]) -> float:
    values = per_user_auc(Rows.of(labels.owners, labels.liked, scores, user_count=labels.users))
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else -math.inf


def slices(
    labels: Labels,
    table: Sequence[Scored],
    warm: npt.NDArray[np.bool_],
    metrics: Sequence[str],
    *,
    samples: int,
    seed: int,
) -> tuple[EvaluationSlice, ...]:
    """Return `all`, and `warm` and `cold` apart where there are rows of both."""
    masks: dict[str, npt.NDArray[np.bool_]] = {"all": np.ones_like(warm)}
    if warm.any() and not warm.all():
        masks |= {"warm": warm, "cold": ~warm}
    made = []
    for name, keep in masks.items():
        part = labels.where(keep)
        kept = [Scored(row.name, row.title, row.kind, row.scores[keep], row.note) for row in table]
        rows, differences = measure(part, kept, metrics, samples=samples, seed=seed)
        made.append(
            EvaluationSlice.model_validate(
                {
                    "name": name,
                    "users": part.users,
                    "test_rows": len(part.liked),
                    "rows": rows,
                    "differences": differences,
                }
            )
        )
    return tuple(made)


def flat_metrics(part: EvaluationSlice) -> dict[str, float]:
    """Return the numbers that gates and status read: `uauc`, `uauc_lower`, `uauc_upper`, `collaborative_uauc`, …

    Names are lower case; the fused model has no prefix, other rows theirs (`best_expert_`). Undefined ones are absent.
    """
    flat: dict[str, float] = {}
    for row in part.rows:
        if row.kind == "Fused":
            for name, found in row.metrics.items():
                parts = {"": found.value, "_lower": found.lower, "_upper": found.upper}
                flat |= {f"{_key(name)}{suffix}": value for suffix, value in parts.items() if value is not None}
        elif row.kind in FLAT_KINDS:
            prefix = row.name.replace("-", "_")
            values = {name: found.value for name, found in row.metrics.items() if "capped" not in name}
            flat |= {f"{prefix}_{_key(name)}": value for name, value in values.items() if value is not None}
    return {name: round(value, 6) for name, value in flat.items()} | _measured_users(part)


def _key(name: str) -> str:
    return name.lower().replace(" ", "_")


def _measured_users(part: EvaluationSlice) -> dict[str, float]:
    fused = part.row(FUSED)
    found = fused.metrics.get(MAIN_METRIC) if fused else None
    return {} if found is None else {"uauc_users": float(found.users)}
