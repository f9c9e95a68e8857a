# SPDX-License-Identifier: Apache-2.0
"""What is known of some users, apart from any other: adds up over parts and pods, and goes through two files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import Field

from thinkrec_crds.contract import Contract
from thinkrec_trainer.analysis.sums import Kind
from thinkrec_trainer.online.mirrored import MirrorTotal, added
from thinkrec_trainer.online.moments import Moments

COUNTS_NAME = "counts.json"
MOMENTS_NAME = "moments.parquet"
_SCHEMA = pl.Schema(
    {
        "quantity": pl.String(),
        "kind": pl.String(),
        "cells": pl.Int64(),
        "cell": pl.Int64(),
        "users": pl.Int64(),
        "mean": pl.List(pl.Float64()),
        "scatter": pl.List(pl.Float64()),
    }
)
"""One row for each cell with users; `cells` is how many there are with the empty ones."""


class Counts(Contract):
    """The numbers beside the moments."""

    weights: tuple[str, ...] = ()
    """All that were seen, as the exposures tell them."""
    requests: dict[str, int] = Field(default_factory=dict)
    """Variant -> requests, whether they count or not."""
    fallbacks: dict[str, int] = Field(default_factory=dict)
    """Variant -> those that another variant, or nobody, answered."""
    events: int = 0
    """That count for some metric or guardrail."""
    several: int = 0
    """Users left out because they were seen with several buckets."""
    people: dict[str, int] = Field(default_factory=dict)
    """Of a Mirror: variant -> users."""
    mirrored: tuple[MirrorTotal, ...] = ()

    def merged(self, other: Counts) -> Counts:
        """Return the counts of both sets of users."""
        return Counts(
            weights=tuple(sorted({*self.weights, *other.weights})),
            requests=_sum(self.requests, other.requests),
            fallbacks=_sum(self.fallbacks, other.fallbacks),
            events=self.events + other.events,
            several=self.several + other.several,
            people=_sum(self.people, other.people),
            mirrored=added([*self.mirrored, *other.mirrored]),
        )


@dataclass(frozen=True, slots=True)
class Gathered:
    """All of it."""

    counts: Counts = field(default_factory=Counts)
    moments: Mapping[str, Moments] = field(default_factory=dict)
    """Quantity -> its sums by cell; empty of no users."""

    def merged(self, other: Gathered) -> Gathered:
        """Return what is known of both sets of users."""
        names = [*self.moments, *(name for name in other.moments if name not in self.moments)]
        both = {name: [side.moments[name] for side in (self, other) if name in side.moments] for name in names}
        return Gathered(
            self.counts.merged(other.counts), {name: reduce(Moments.merged, found) for name, found in both.items()}
        )

    def save(self, folder: Path) -> None:
        """Write both files."""
        (folder / COUNTS_NAME).write_text(self.counts.to_json(indent=1), encoding="utf-8")
        tables = [_table(name, found) for name, found in self.moments.items()]
        pl.concat([pl.DataFrame(schema=_SCHEMA), *tables]).write_parquet(folder / MOMENTS_NAME)


def loaded(counts: Path, moments: Path) -> Gathered:
    """Read what was saved."""
    tables = pl.read_parquet(moments).partition_by("quantity", as_dict=True, maintain_order=True)
    return Gathered(
        Counts.from_json(counts.read_bytes()), {str(name): _moments(table) for (name,), table in tables.items()}
    )


def total(parts: Iterable[Gathered]) -> Gathered:
    """Return what all parts know."""
    return reduce(Gathered.merged, parts, Gathered())


def _table(name: str, found: Moments) -> pl.DataFrame:
    cells = np.flatnonzero(found.users)
    columns = {
        "quantity": [name] * len(cells),
        "kind": [found.kind] * len(cells),
        "cells": np.full(len(cells), len(found.users)),
        "cell": cells,
        "users": found.users[cells],
        "mean": list(found.mean[cells]),
        "scatter": list(found.scatter[cells].reshape(len(cells), -1)),
    }
    return pl.DataFrame(columns, schema=_SCHEMA)


def _moments(table: pl.DataFrame) -> Moments:
    count, cells = int(table["cells"][0]), table["cell"].to_numpy()
    columns = len(table["mean"][0])
    kind: Kind = table["kind"][0]
    users, mean = np.zeros(count, dtype=np.int64), np.zeros((count, columns))
    scatter = np.zeros((count, columns, columns))
    users[cells] = table["users"].to_numpy()
    mean[cells] = table["mean"].explode().to_numpy().reshape(-1, columns)
    scatter[cells] = table["scatter"].explode().to_numpy().reshape(-1, columns, columns)
    return Moments(kind, users, mean, scatter)


def _sum(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted((Counter(one) + Counter(other)).items()))
