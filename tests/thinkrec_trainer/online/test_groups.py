# SPDX-License-Identifier: Apache-2.0
"""The deciding metric within each expert's group, as control's bundle has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from support.llm_stages import seal
from support.small_bundle import write_small_bundle
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_inference.engine import bundle as engine
from thinkrec_trainer.context import LocalArtifact
from thinkrec_trainer.online import groups
from thinkrec_trainer.simulation.names import user_id

Log = Any
GIVEN = {"metrics": [{"name": "likes", "event": {"name": "Like"}}], "minSampleSize": 90, "varianceReduction": "None"}


def bundle(folder: Path, members: dict[str, int | None]) -> LocalArtifact:
    """Return a bundle of two experts with these users in its table."""
    write_small_bundle(folder)
    table = pl.DataFrame(
        {"user_id": list(members), "group": list(members.values())}, schema_overrides={"group": pl.Int32}
    )
    table.write_parquet(folder / "users.parquet")
    return seal(folder, StageKind.BUNDLE)


def test_effects_within_groups_are_those_of_their_users(log: Log, tmp_path: Path) -> None:
    """Of each variant 60 users in expert-0's group, 60 in expert-1's, 5 in none and 5 unknown; only expert-1's like."""
    members: dict[str, int | None] = {}
    for number in range(130):
        for side, variant, first in (("c", "control", 5000), ("n", "new", 0)):
            log.see(f"{side}{number}", variant, bucket=first + number)
            if number < 125:
                members[f"{side}{number}"] = 0 if number < 60 else 1 if number < 120 else None
            if 60 <= number < 120 and (side == "n" or number % 6 == 0):
                log.act(f"{side}{number}")
    members["unseen"] = 1
    found = log.look(GIVEN, inputs={"bundle": bundle(tmp_path / "bundle", members)})
    told = {each.group: each for each in found.report.groups}
    assert list(told) == ["expert-0", "expert-1", groups.NO_GROUP]
    assert [each.users for each in told.values()] == [120, 120, 20]
    assert told["expert-0"].effect == 0
    assert told["expert-1"].effect == pytest.approx(1 - 1 / 6)
    assert told["expert-1"].lower is not None
    assert told["expert-1"].lower > 0
    assert told[groups.NO_GROUP].lower is None, "ten users a variant say nothing"
    assert all(each.variant == "new" for each in found.report.groups)
    assert "not corrected for their number" in found.page
    assert sum(each.users for each in told.values()) == sum(found.report.newest.users.values())


def test_a_simulated_person_is_in_the_group_of_the_user_whose_taste_it_is(log: Log, tmp_path: Path) -> None:
    """A real user of such a name is nobody of the bundle, however it is called."""
    members = {"ann": 0, "a~b": 1, "": None}
    for number, owner in enumerate((*["ann"] * 3, *["a~b"] * 2, "stranger", "")):
        log.see(user_id(number, owner), bucket=number)
    inputs = {"events-1": log.artifact("one"), "bundle": bundle(tmp_path / "bundle", members)}
    found = log.look(GIVEN, inputs=inputs, events_uri=None)
    assert [(each.group, each.users) for each in found.report.groups] == [
        ("expert-0", 3),
        ("expert-1", 2),
        (groups.NO_GROUP, 2),
    ]
    log.see(user_id(0, "ann"))
    real = log.look(GIVEN, inputs={"bundle": inputs["bundle"]}, name="real")
    assert [each.users for each in real.report.groups] == [0, 0, 1]


def test_without_a_bundle_there_are_no_groups(log: Log) -> None:
    log.see("n1")
    found = log.look(GIVEN)
    assert found.report.groups == ()
    assert "By group of users" not in found.page


def test_the_table_has_the_engines_name() -> None:
    assert groups.USERS_NAME == engine.USERS_NAME
