# SPDX-License-Identifier: Apache-2.0
"""Who gets which variant: hash(experiment uid, user) -> one of 10 000 buckets -> variant. No state, the same anywhere.

The gateway assigns by it; the analysis expects its shares (`bucket_counts`), not the weights: with three variants and
more they differ a little, and a sample-ratio check against the wrong shares would condemn a sound experiment.

Two variants: one threshold. Of the 10 000 buckets the first 100 per percent are the second variant's, so that shares
are exact, and a weight that rises from a to b moves the users of the buckets between, nobody else.

Three and more: weighted rendezvous hashing, one exponential clock per bucket and variant (Moulton and Jiang,
"Maximally consistent sampling and the Jaccard index of probability distributions", ICDMW 2018, section 2). Bucket b
has E(b, v) = -ln U(b, v), with U from a hash of uid, b and v, and belongs to the variant with the least E(b, v) / w(v).

1. Under weights p it is v's with probability p(v), for the least of independent exponential clocks is v's with the
   share of its rate. The buckets are 10 000 draws of this, hence the small difference.
2. No bucket goes from i to j unless w(j) / w(i) grows. It was i's: E(i) / p(i) < E(j) / p(j). With
   q(j) / q(i) <= p(j) / p(i), also E(i) / q(i) < E(j) / q(j), so it is not j's under q. In particular nobody moves
   between two variants whose ratio stays. This holds for every bucket, not only on average: clocks are whole numbers
   and are compared without rounding.
3. From p to q a bucket moves with probability at most 2 TV / (1 + TV), TV being the total variation distance. It is i's
   under both if E(j) >= E(i) max(p(j)/p(i), q(j)/q(i)) for all j, which has probability
   1 / sum_j max(p(j)/p(i), q(j)/q(i)) >= min(p(i), q(i)) / sum_j max(p(j), q(j)). The sum over i of the right side is
   (1 - TV) / (1 + TV), since the minima add up to 1 - TV and the maxima to 1 + TV.

Moving only TV, the least for one known step, cannot be had for all pairs of weights without remembering: take shares of
one half on {1, 2}, on {2, 3} and on {1, 3}. Of any bucket's three choices at most two agree (if the first two do, they
are 2, which the third is never), so of the three agreements one third come true on average; TV = 1/2 for each pair
would need one half. The third is (1 - TV) / (1 + TV): rule 3 cannot be bettered. In general: Bavarian, Ghazi, Haramaty,
Kamath, Rivest and Sudan, "Optimality of correlated sampling strategies", Theory of Computing 16 (2020), which shows the
strategy of Holenstein ("Parallel repetition: simplification and the no-signaling case", STOC 2007) to be optimal.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections import Counter
from collections.abc import Mapping

BUCKETS = 10_000
PER_PERCENT = BUCKETS // 100
CLOCK_UNITS = 2**40
"""Clocks are kept as whole numbers of this fraction, far finer than 10 000 draws can tell apart, and exact to compare:
a logarithm whose last bit differs between two processors gives the same clock."""

Weights = tuple[tuple[str, int], ...]
"""(variant, percent), control first: `TrafficExperiment.weights`."""


def bucket_of(uid: str, unit: str) -> int:
    """Return the bucket, 0 to 9999, of a user (or whatever identifies them) in the experiment with this uid.

    The uid is the key of the hash, so that two experiments on the same users are independent.
    """
    return _hash(b"bucket", uid, unit) % BUCKETS


@functools.lru_cache(maxsize=64)
def bucket_table(uid: str, weights: Weights) -> bytes:
    """Return, for each of the 10 000 buckets, the index in `weights` of its variant; at most 256 variants.

    About 0.1 s for eight variants, remembered per process. ValueError when no variant has a weight above 0.
    """
    if not any(weight > 0 for _, weight in weights):
        raise ValueError("no variant has a weight above 0")
    if len(weights) == 2:
        second = weights[1][1] * BUCKETS // sum(weight for _, weight in weights)
        return bytes([1]) * second + bytes([0]) * (BUCKETS - second)
    return bytes(_winner(uid, weights, bucket) for bucket in range(BUCKETS))


def bucket_counts(uid: str, weights: Weights) -> Mapping[str, int]:
    """Return how many of the 10 000 buckets each variant has: its share of users, as a sample-ratio check needs it."""
    found = Counter(bucket_table(uid, weights))
    return {name: found[index] for index, (name, _) in enumerate(weights)}


def _winner(uid: str, weights: Weights, bucket: int) -> int:
    """Return the index of the least clock / weight; a tie is the earlier one's, whatever the weights are."""
    best, best_clock, best_weight = -1, 1, 0
    for index, (name, weight) in enumerate(weights):
        clock = _clock(uid, name, bucket)
        if clock * best_weight < best_clock * weight:
            best, best_clock, best_weight = index, clock, weight
    return best


@functools.lru_cache(maxsize=16 * BUCKETS)
def _clock(uid: str, name: str, bucket: int) -> int:
    """Return -ln U in units of CLOCK_UNITS, at least 1; U is uniform on (0, 1]."""
    uniform = (_hash(b"clock", uid, f"{bucket}/{name}") + 1) / 2**64
    return round(-math.log(uniform) * CLOCK_UNITS) + 1


def _hash(purpose: bytes, uid: str, text: str) -> int:
    """Return 64 bits of BLAKE2b; experiment and purpose go into its key and `person`, so no two inputs run together."""
    key = hashlib.blake2b(uid.encode(), digest_size=32).digest()
    found = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, key=key, person=purpose)
    return int.from_bytes(found.digest(), "big")
