# SPDX-License-Identifier: Apache-2.0
"""What a simulated person is called: the name tells whose taste it is, so that a look finds the expert's group."""

from __future__ import annotations

import polars as pl

_BETWEEN = "~"


def user_id(number: int, test_user: str) -> str:
    """Return what person `number` with this test user's taste is called."""
    return f"sim-{number:06d}{_BETWEEN}{test_user}"


def owner_of(user_ids: pl.Expr) -> pl.Expr:
    """Return the test user in each name; whatever that one is called, it begins after the first mark."""
    return user_ids.str.splitn(_BETWEEN, 2).struct.field("field_1")
