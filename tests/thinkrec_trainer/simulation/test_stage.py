# SPDX-License-Identifier: Apache-2.0
"""The stage `simulate`: a log like a gateway's, in which the better variant is ahead and nothing else counts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from support.shares import same_files
from thinkrec_crds.analysis_spec import EventMetric
from thinkrec_crds.buckets import BUCKETS, bucket_counts, bucket_of
from thinkrec_crds.event_log import Exposure, StoredEvent
from thinkrec_trainer.events.layout import EXPOSURE, FEEDBACK, hour_of, user_part
from thinkrec_trainer.simulation.names import owner_of

Run = Callable[..., Any]
Table = pl.DataFrame


def test_the_same_parameters_give_the_same_bytes_and_another_seed_other_people(
    run: Run, good: Table, bad: Table
) -> None:
    one, again, other = (run({"old": bad, "new": good}, seed=seed) for seed in (3, 3, 4))
    same_files(one.output, again.output)
    assert one.result == again.result
    assert not other.events.equals(one.events)
    assert other.persons() == one.persons()
    assert other.users() != one.users(), "they have other tastes"


def test_everybody_comes_between_start_and_end_and_acts_after_being_shown_something(
    run: Run, good: Table, bad: Table
) -> None:
    log = run({"old": bad, "new": good})
    assert log.exposures["at"].min() >= log.given.start
    assert log.events["received_at"].max() < log.given.end
    first = log.exposures.group_by("user_id").agg(pl.col("at").min(), pl.len())
    assert first.height == log.given.users
    assert set(first["len"].to_list()) == {1, 2, 3}
    arrivals = np.array([(at - log.given.start).total_seconds() / 3600 for at in first["at"]])
    assert np.abs(np.histogram(arrivals, bins=[0, 1, 2, 3])[0] - 200).max() < 60  # five standard deviations
    shown = log.exposures.select("user_id", "at", event_id="exposure_id")
    acts = log.events.with_columns(pl.col("event_id").str.extract(r"^(.*)-\w+$")).join(
        shown, on=["user_id", "event_id"]
    )
    assert acts.height == log.events.height
    assert (acts["received_at"] > acts["at"]).all()


def test_tables_lie_where_a_shipper_puts_them(run: Run, good: Table, bad: Table) -> None:
    log = run({"old": bad, "new": good})
    paths = sorted(log.output.rglob("*.parquet"))
    assert {path.relative_to(log.output).parts[:2] for path in paths} == {("events", "movies")}
    for path in paths:
        kind, hour, part = (name.partition("=")[2] for name in path.relative_to(log.output).parts[2:5])
        table = pl.read_parquet(path, hive_partitioning=False)
        assert table.schema == {"exposure": EXPOSURE, "feedback": FEEDBACK}[kind]
        assert {f"{user_part(user):02d}" for user in table["user_id"]} == {part}
        assert {hour_of(at) for at in table["at" if kind == "exposure" else "received_at"]} == {hour}
    assert len({path.parts[-3] for path in paths}) == 4, "half past ten to half past one are parts of four hours"


def test_records_are_what_a_gateway_could_have_written(run: Run, good: Table, bad: Table) -> None:
    log = run({"old": bad, "new": good}, events=(EventMetric(type="Mean", name="Like"), EventMetric(name="Buy")))
    for row in log.exposures.iter_rows(named=True):
        exposure = Exposure(**row)
        assert exposure.bucket == bucket_of("uid-1", exposure.user_id)
        assert exposure.served_by == exposure.variant
        assert exposure.revision == {"old": "old-1", "new": "new-7"}[exposure.variant]
    assert log.exposures["weights"].unique().to_list() == ["old=50,new=50"]
    assert log.exposures.select(pl.any_horizontal("fallback", "degraded", "error", "empty").any()).item() is False
    assert log.exposures["latency_milliseconds"].min() >= 20
    assert {
        (event.type, event.value) for event in (StoredEvent(**row) for row in log.events.iter_rows(named=True))
    } == {
        ("Like", 1.0),
        ("Buy", None),
    }
    assert set(log.events["item_id"].to_list()) <= set(good["item_id"].to_list())


def test_counts_are_those_of_the_log(run: Run, good: Table, bad: Table) -> None:
    log = run({"old": bad, "new": good})
    assert log.result.counts == {"users": 600, "events": log.events.height, "exposures": log.exposures.height}
    assert log.events["event_id"].n_unique() == log.events.height
    assert log.exposures["exposure_id"].n_unique() == log.exposures.height
    assert log.mirrored.height == 0
    views = log.events.filter(pl.col("type") == "View")
    assert views.height == log.exposures.height, "the denominator happens at every visit"


def test_shares_are_those_of_the_buckets(run: Run, good: Table, bad: Table) -> None:
    weights = (("old", 60), ("new", 10), ("third", 30))
    log = run(
        {"old": bad, "new": good, "third": bad},
        users=4000,
        weights=weights,
        revisions=tuple((name, f"{name}-1") for name, _ in weights),
        events=(),
    )
    assert log.events.height == 0, "nothing is measured"
    found = pl.Series(list(log.variants().values())).value_counts()
    for name, buckets in bucket_counts("uid-1", weights).items():
        share = buckets / BUCKETS
        users = found.filter(pl.col("") == name)["count"].item()
        assert users == pytest.approx(4000 * share, abs=4.5 * (4000 * share * (1 - share)) ** 0.5)


def test_a_person_is_the_same_under_other_weights_unless_the_variant_differs(run: Run, good: Table, bad: Table) -> None:
    scores = {"old": bad, "new": good}
    few = run(scores, mode="Canary", weights=(("old", 90), ("new", 10)))
    many = run(scores, mode="Canary", weights=(("old", 50), ("new", 50)))
    stayed = [user for user, variant in few.variants().items() if many.variants()[user] == variant]
    moved = sorted(set(few.users()) - set(stayed))
    assert len(stayed) > 300
    assert len(moved) > 150
    assert few.reactions(stayed).equals(many.reactions(stayed))
    assert not few.reactions(moved).equals(many.reactions(moved))
    columns = ["exposure_id", "user_id", "bucket", "at", "latency_milliseconds"]
    assert few.exposures.select(columns).equals(many.exposures.select(columns)), "they come as they would have come"


def test_a_person_does_not_depend_on_who_else_comes(run: Run, good: Table, bad: Table) -> None:
    scores = {"old": bad, "new": good}
    all_of_them, later = run(scores), run(scores, first_user=400, users=200)
    assert later.persons()[0] == "sim-000400"
    assert later.users() == all_of_them.users()[400:]
    assert later.reactions(later.users()).equals(all_of_them.reactions(later.users()))


def test_a_persons_name_tells_whose_taste_it_is(run: Run, good: Table, bad: Table) -> None:
    """Nobody can see, or do anything about, an item outside that test user's rows."""
    log = run({"old": bad, "new": good})
    rows = {user: set(table["item_id"]) for (user,), table in good.group_by("user_id")}
    told = log.events.select(owner_of(pl.col("user_id")).alias("owner"), "item_id")
    assert told["owner"].n_unique() == len(rows), "every test user is somebody's"
    assert all(item in rows[owner] for owner, item in told.iter_rows())


def test_what_was_before_is_taken_over(run: Run, good: Table, bad: Table) -> None:
    """The hour in which one ends and the other begins has tables of both."""
    scores = {"old": bad, "new": good}
    first = run(scores)
    second = run(scores, earlier=first, start=first.given.end, end=first.given.end + timedelta(hours=1), first_user=600)
    alone = run(scores, start=first.given.end, end=first.given.end + timedelta(hours=1), first_user=600)
    for kind in ("exposures", "events"):
        both = pl.concat([getattr(first, kind), getattr(alone, kind)]).sort(pl.first())
        assert getattr(second, kind).equals(both)
    assert second.persons() == [f"sim-{number:06d}" for number in range(1200)]
    assert second.result == alone.result, "counted is what is new"


def test_the_better_variant_gets_more_of_what_is_measured(run: Run, good: Table, bad: Table) -> None:
    log = run({"old": bad, "new": good}, users=2000)
    assert log.share("new") > log.share("old") + 0.2
    assert log.share("new", "Buy") > log.share("old", "Buy") + 0.2
    swapped = run({"old": good, "new": bad}, users=2000)
    assert swapped.share("old") > swapped.share("new") + 0.2


def test_an_identical_variant_gets_the_same_reactions_from_the_same_persons(run: Run, good: Table, bad: Table) -> None:
    everybody_old = run({"old": good, "new": bad}, weights=(("old", 100), ("new", 0)))
    everybody_new = run({"old": bad, "new": good}, weights=(("old", 0), ("new", 100)))
    assert set(everybody_old.variants().values()) == {"old"}
    assert set(everybody_new.variants().values()) == {"new"}
    assert everybody_old.events.height > 0
    assert everybody_old.events.equals(everybody_new.events)


def test_rows_that_a_variant_learned_from_are_never_shown(run: Run, good: Table) -> None:
    """The new one learned from each user's first eight rows, and finds them best of all."""
    learned = pl.col("position") < 8
    named = pl.when(learned).then(pl.lit("learned-") + pl.col("item_id")).otherwise("item_id").alias("item_id")
    table = good.with_columns(named, score=pl.col("score") + 10 * learned)
    log = run({"old": table, "new": table.with_columns(trained_on=learned)})
    assert log.events.height > 0
    assert not log.events["item_id"].str.starts_with("learned-").any()
    assert run({"old": table, "new": table}).events["item_id"].str.starts_with("learned-").any()


def test_two_experiments_share_persons_but_not_ids_or_groups(run: Run, good: Table, bad: Table) -> None:
    one, other = run({"old": bad, "new": good}), run({"old": bad, "new": good}, experiment="uid-2")
    assert one.users() == other.users()
    assert set(one.exposures["exposure_id"]).isdisjoint(other.exposures["exposure_id"].to_list())
    assert set(one.events["event_id"]).isdisjoint(other.events["event_id"].to_list())
    same = np.mean([other.variants()[user] == variant for user, variant in one.variants().items()])
    assert same == pytest.approx(0.5, abs=0.1)


def test_a_second_is_time_enough(run: Run, good: Table, bad: Table) -> None:
    start = run({"old": bad, "new": good}).given.start
    log = run({"old": bad, "new": good}, end=start + timedelta(seconds=1))
    assert log.exposures["at"].min() >= start
    assert log.events["received_at"].max() < start + timedelta(seconds=1)
    assert log.share("new") > log.share("old")
