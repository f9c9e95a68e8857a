# SPDX-License-Identifier: Apache-2.0
"""Which buckets no change of weights ever moved. Pure.

A raised weight moves users, and whoever compares them anyhow compares those who came early with those who came late:
"no switchers" and "last seen" find effects of 5 to 50 % where there are none (benchmarks/experiments_bench/README.md,
"Users who change the variant"). Only users of buckets that belong to one variant under all weights are comparable,
whether they came or not, and the expected shares are those of the kept buckets.

Weights under which a variant has no share are left out: everybody had the others, so that nothing is compared, and
counting them would keep no bucket of that variant at all (a canary often begins with 100:0).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from thinkrec_crds.buckets import BUCKETS, Weights, bucket_table

Owners = npt.NDArray[np.int64]
"""(10 000,) each bucket's variant, by its place among the variants; -1 for one that was moved."""


def parsed(text: str) -> Weights | None:
    """Return `control=90,new=10` as pairs, in the text's order, which the buckets depend on; None for another text."""
    pairs = [part.rpartition("=") for part in text.split(",")]
    if any(not name or not (share.isascii() and share.isdigit()) for name, _, share in pairs):
        return None
    return tuple((name, int(share)) for name, _, share in pairs)


def comparable(text: str, variants: Sequence[str]) -> bool:
    """Return whether each of the variants has a share under these weights."""
    shares = dict(parsed(text) or ())
    return all(shares.get(name, 0) > 0 for name in variants)


def owners(uid: str, texts: Iterable[str], variants: Sequence[str]) -> Owners:
    """Return whose each bucket is, under all comparable weights among the texts; -1 everywhere without any."""
    tables = [_table(uid, text, variants) for text in sorted(set(texts)) if comparable(text, variants)]
    if not tables:
        return np.full(BUCKETS, -1)
    stacked = np.stack(tables)
    return np.where((stacked == stacked[0]).all(axis=0), stacked[0], -1)


def shares(found: Owners, variants: Sequence[str]) -> Mapping[str, float]:
    """Return each variant's share of the kept buckets; empty where none is kept."""
    counts = np.bincount(found[found >= 0], minlength=len(variants))
    return {name: float(count / counts.sum()) for name, count in zip(variants, counts, strict=True) if counts.sum()}


def _table(uid: str, text: str, variants: Sequence[str]) -> Owners:
    weights = parsed(text) or ()
    place = {name: at for at, name in enumerate(variants)}
    mine = np.array([place.get(name, -1) for name, _ in weights])
    found: Owners = mine[np.frombuffer(bucket_table(uid, weights), dtype=np.uint8)]
    return found
