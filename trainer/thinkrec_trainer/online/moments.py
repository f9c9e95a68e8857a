# SPDX-License-Identifier: Apache-2.0
"""Sums over users kept apart by cell: the bucket, or another small number that later decides where a user belongs.

Which buckets count depends on every weight that was ever in force, and a pod sees only its own users' exposures: some
short step may have met none of them. So a pod keeps a sum for each of the 10 000 buckets, and whoever sees all pods'
weights adds up those that count. The other way, to have every pod read the weights of all parts, would make each of N
pods fetch the exposures of all: nothing would be shared out. Ten thousand cells of a metric are half a megabyte,
whatever the number of users.

Arithmetic as in `analysis.sums`: centred, by Chan, Golub and LeVeque; values that are all alike have no variance, to
the bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from thinkrec_trainer.analysis.sums import Floats, Kind, Sums

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Centred moments of one quantity in each of B cells; columns as in `Sums`."""

    kind: Kind
    users: Ints
    """(B,)"""
    mean: Floats
    """(B, C), 0 in cells without users."""
    scatter: Floats
    """(B, C, C)"""

    def merged(self, other: Moments) -> Moments:
        """Return the moments over both sets of users, which must not overlap."""
        users = self.users + other.users
        part = other.users / np.maximum(users, 1)
        apart = other.mean - self.mean
        weight = self.users * part
        return Moments(
            kind=self.kind,
            users=users,
            mean=self.mean + apart * part[:, None],
            scatter=self.scatter + other.scatter + weight[:, None, None] * apart[:, :, None] * apart[:, None, :],
        )

    def pooled(self, cells: Bools) -> Sums:
        """Return the sums over the users of these cells."""
        taken = cells & (self.users > 0)
        columns = self.mean.shape[1]
        if not taken.any():
            return Sums(self.kind, 0, np.zeros(columns), np.zeros((columns, columns)))
        users, mean = self.users[taken], self.mean[taken]
        apart = mean - mean[0]  # exactly 0 where all means are alike
        shift = users @ apart / users.sum()
        rest = apart - shift
        scatter = self.scatter[taken].sum(axis=0) + (rest.T * users) @ rest
        return Sums(self.kind, int(users.sum()), mean[0] + shift, scatter)


def moments_of(kind: Kind, columns: Floats, cells: Ints, count: int) -> Moments:
    """Return the moments of (U, C) users' columns in their cells, of which there are `count`."""
    users, width = np.bincount(cells, minlength=count), columns.shape[1]
    some = np.zeros((count, width))
    some[cells[::-1]] = columns[::-1]  # any user's values would do: differences to them are small, or exactly 0
    shifted = columns - some[cells]
    shift = _totals(shifted, cells, count) / np.maximum(users, 1)[:, None]
    rest = shifted - shift[cells]
    products = (rest[:, :, None] * rest[:, None, :]).reshape(-1, width * width)
    return Moments(kind, users, some + shift, _totals(products, cells, count).reshape(count, width, width))


def _totals(values: Floats, cells: Ints, count: int) -> Floats:
    """Return (count, C) sums of (U, C) values by cell."""
    return np.stack([np.bincount(cells, weights=column, minlength=count) for column in values.T], axis=1)
