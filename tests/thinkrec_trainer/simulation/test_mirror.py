# SPDX-License-Identifier: Apache-2.0
"""The stage `simulate` of a Mirror: everybody sees control's list, and copies say how the others differ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from thinkrec_crds.event_log import Mirrored
from thinkrec_trainer.events.layout import MIRROR

Run = Callable[..., Any]
Table = pl.DataFrame


@pytest.fixture
def mirror(run: Run, good: Table, bad: Table) -> Any:
    """Control is good, one variant is its twin with scores one higher, one is its opposite."""
    names = ("bad", "control", "twin")
    twin = good.with_columns(pl.col("score") + 1)
    return run(
        {"bad": bad, "control": good, "twin": twin},
        mode="Mirror",
        control="control",
        weights=tuple((name, 0) for name in names),
        revisions=tuple((name, f"{name}-1") for name in names),
    )


def test_each_visit_is_copied_to_every_variant_but_control(mirror: Any) -> None:
    assert mirror.mirrored.schema == MIRROR
    assert set(mirror.mirrored["variant"].to_list()) == {"bad", "twin"}
    bad, twin = (mirror.mirrored.filter(pl.col("variant") == name) for name in ("bad", "twin"))
    assert bad.select("user_id", "at").equals(twin.select("user_id", "at"))
    assert bad["user_id"].n_unique() == mirror.given.users
    assert mirror.mirrored["mirror_id"].n_unique() == mirror.mirrored.height
    assert mirror.mirrored["at"].min() >= mirror.given.start
    assert mirror.mirrored["at"].max() < mirror.given.end
    for record in (Mirrored(**row) for row in mirror.mirrored.iter_rows(named=True)):
        assert (record.branch, record.error, record.items) == ("simulated", False, 3)
        assert (record.experiment, record.revision) == ("uid-1", f"{record.variant}-1")


def test_copies_say_how_the_lists_differ(mirror: Any) -> None:
    bad, twin = (mirror.mirrored.filter(pl.col("variant") == name) for name in ("bad", "twin"))
    assert twin["overlap"].unique().to_list() == [1.0]
    assert twin["rank_correlation"].unique().to_list() == [1.0]
    assert twin["score_shift"].to_list() == pytest.approx([1.0] * twin.height)
    assert bad["overlap"].mean() < 0.5
    nothing = bad.filter(pl.col("overlap") == 0)
    assert nothing.height > 0
    assert nothing["score_shift"].null_count() == nothing["rank_correlation"].null_count() == nothing.height


def test_nobody_is_exposed_and_everybody_reacts_to_controls_list(mirror: Any, run: Run, good: Table) -> None:
    assert mirror.exposures.height == 0
    assert mirror.result.counts == {"users": 600, "events": mirror.events.height, "exposures": 0}
    alone = run({"old": good, "new": good})
    assert alone.events.height > 0
    assert mirror.events.equals(alone.events)
