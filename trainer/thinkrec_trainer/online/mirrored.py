# SPDX-License-Identifier: Apache-2.0
"""A Mirror's records: how a variant's answers differ from control's, and each user's requests. Nobody saw the answers.

What users do cannot differ between variants here, so nothing is compared but the answers themselves; latency and errors
of the copies are all that a guardrail can be held against.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import polars as pl

from thinkrec_crds.contract import Contract
from thinkrec_crds.findings import MirrorSummary
from thinkrec_trainer.online.quantities import REQUESTS

_COMPARED = ("overlap", "rank_correlation", "score_shift")
VARIANT = "variant"
ALL_BRANCHES = ""


class Mean(Contract):
    """A mean that goes on: a sum over so many values that were there."""

    sum: float = 0.0
    values: int = 0

    @property
    def value(self) -> float | None:
        """The mean so far; None of no values."""
        return self.sum / self.values if self.values else None

    def merged(self, other: Mean) -> Mean:
        """Return the mean of both."""
        return Mean(sum=self.sum + other.sum, values=self.values + other.values)


class MirrorTotal(Contract):
    """Copies that one variant got of requests whose answer came about by one branch of the gate."""

    variant: str
    branch: str
    requests: int
    errors: int
    means: dict[str, Mean]

    def merged(self, other: MirrorTotal, *, branch: str | None = None) -> MirrorTotal:
        """Return the totals of both, as of the other's branch or of the one given."""
        return MirrorTotal(
            variant=other.variant,
            branch=other.branch if branch is None else branch,
            requests=self.requests + other.requests,
            errors=self.errors + other.errors,
            means={name: mean.merged(other.means[name]) for name, mean in self.means.items()},
        )

    def summary(self) -> MirrorSummary:
        """Return what is told of it."""
        told = {name: mean.value for name, mean in self.means.items()}
        return MirrorSummary(
            variant=self.variant, branch=self.branch, requests=self.requests, errors=self.errors, **told
        )


def totals(mirrored: pl.LazyFrame) -> tuple[MirrorTotal, ...]:
    """Return the totals of each variant and branch."""
    names = (*_COMPARED, "latency_milliseconds")
    rows = (
        mirrored.group_by(VARIANT, "branch")
        .agg(
            pl.len().alias(REQUESTS),
            pl.col("error").sum().alias("errors"),
            *(pl.col(name).fill_nan(None).sum().alias(f"{name}/sum") for name in names),
            *(pl.col(name).fill_nan(None).count().alias(f"{name}/values") for name in names),
        )
        .sort(VARIANT, "branch")
        .collect(engine="streaming")
    )
    return tuple(
        MirrorTotal(
            variant=row[VARIANT],
            branch=row["branch"],
            requests=row[REQUESTS],
            errors=row["errors"],
            means={name: Mean(sum=row[f"{name}/sum"], values=row[f"{name}/values"]) for name in names},
        )
        for row in rows.iter_rows(named=True)
    )


def added(parts: Iterable[MirrorTotal]) -> tuple[MirrorTotal, ...]:
    """Return one total for each variant and branch, by name."""
    found: dict[tuple[str, str], MirrorTotal] = {}
    for part in parts:
        place = part.variant, part.branch
        found[place] = found[place].merged(part) if place in found else part
    return tuple(found[place] for place in sorted(found))


def summaries(found: Sequence[MirrorTotal], variants: Sequence[str]) -> tuple[MirrorSummary, ...]:
    """Return each variant's total over all branches, and then by branch, in the order of the variants."""
    told = []
    for name in variants:
        mine = [total for total in found if total.variant == name]
        if mine:
            whole = mine[0].model_copy(update={"branch": ALL_BRANCHES})
            for total in mine[1:]:
                whole = whole.merged(total, branch=ALL_BRANCHES)
            told += [total.summary() for total in (whole, *mine)]
    return tuple(told)


def copied(mirrored: pl.LazyFrame, variants: Sequence[str]) -> pl.DataFrame:
    """Return users with the requests that each variant got a copy of; `variant` is its place among the variants."""
    place: Mapping[str, int] = {name: at for at, name in enumerate(variants)}
    rows = (
        mirrored.filter(pl.col(VARIANT).is_in(list(variants)))
        .group_by("user_id", VARIANT)
        .agg(
            pl.len().alias(REQUESTS),
            pl.col("latency_milliseconds").fill_nan(None).sum().alias("latency"),
            pl.col("error").sum().alias("errors"),
        )
        .collect(engine="streaming")
    )
    return rows.sort("user_id", VARIANT).with_columns(pl.col(VARIANT).replace_strict(place, return_dtype=pl.Int64))
