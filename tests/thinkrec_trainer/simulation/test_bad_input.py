# SPDX-License-Identifier: Apache-2.0
"""Parameters and inputs of which no log can be made are refused by name, all at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

from thinkrec_trainer.errors import BadInput

Run = Callable[..., Any]
EARLY = datetime(2020, 1, 1, tzinfo=UTC)


def test_a_variant_without_scores(run: Run, good: pl.DataFrame) -> None:
    with pytest.raises(BadInput, match=r"needs an input named 'variant-new'; it was given \['variant-old'\]"):
        run({"old": good})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"users": 0}, "users is 0: at least one must come"),
        ({"users": -3}, "users is -3"),
        ({"first_user": -1}, "firstUser is -1"),
        ({"end": EARLY}, "end 2020-01-01 00:00:00.* must be a second or more after start 2026-11-28"),
        ({"control": "older"}, r"control 'older' is none of the weights' variants \['old', 'new'\]"),
        ({"revisions": (("old", "old-1"),)}, r"revisions lack \['new'\]"),
        ({"weights": (("old", 0), ("new", 0))}, "no variant has a weight above 0"),
        ({"weights": (("old", 50), ("old", 50))}, r"name a variant twice: \['old', 'old'\]"),
        ({"mode": "Mirror", "weights": (("old", 0),)}, "a Mirror needs a variant beside control 'old'"),
        ({"model": "../movies"}, "'../movies' is no name of a model"),
        ({"users": 0, "control": "older"}, "users is 0.*; control 'older'"),
    ],
)
def test_parameters_without_sense(run: Run, good: pl.DataFrame, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        run({"old": good, "new": good}, **changes)


def test_variants_that_scored_other_rows(run: Run, good: pl.DataFrame) -> None:
    with pytest.raises(BadInput, match="'old' and 'new' did not score the same rows"):
        run({"old": good, "new": good.head(100)})


def test_nothing_is_left_that_no_variant_learned_from(run: Run, good: pl.DataFrame) -> None:
    with pytest.raises(BadInput, match="each of the 480 test rows is in the training data"):
        run({"old": good.with_columns(trained_on=pl.lit(value=True)), "new": good})
