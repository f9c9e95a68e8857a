# SPDX-License-Identifier: Apache-2.0
"""The users of one part of the event log, one row each: what they were shown, did, and did before.

Who counts

    requests    of this experiment, at times when every variant was ready (`degraded`: else one variant's users would be
                compared over other hours than another's), under weights that give every variant a share. One that the
                variant failed to answer, so that control did (`fallback`, reason Failed), is the variant's, and an
                error: left out, a variant that fails would look as sound as control. Other fallbacks are nobody's:
                the variant was not asked
    users       with such a request, and seen with ONE bucket by any request of the experiment. The bucket decides where
                a user belongs, and which bucket it is (a hash, or a draw) does not depend on what a variant does.
                Whoever was seen with several was treated by several variants, or might have been: a user who came with
                two devices, or any second request under a Random assignment. "Several buckets of one variant" must not
                count either: at 90:10 nearly all such users are control's, and they come often.
    events      from the first such request on, until the user was first answered under weights that are no comparison
                (all traffic to control after a rollback, all to the new one at a canary's end)

Only this table is ever whole in memory, and it is one of 16 parts of the users; events and exposures stream by.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import polars as pl

from thinkrec_trainer.online.quantities import BEFORE, KNOWN, REQUESTS, Tally

BUCKET, GROUP = "bucket", "group"
_FIRST, _UNTIL, _EVENTS = "first", "until", "events"


def census(exposures: pl.LazyFrame) -> pl.DataFrame:
    """Return (weights, variant, requests, fallbacks), one row for each pair of weights and variant."""
    counted = exposures.group_by("weights", "variant").agg(
        pl.len().alias(REQUESTS), pl.col("fallback").fill_null(value=False).sum().alias("fallbacks")
    )
    return counted.collect(engine="streaming")


def exposed(exposures: pl.LazyFrame, comparable: Sequence[str]) -> tuple[pl.DataFrame, int]:
    """Return the users that count, by id, and how many do not because they had several buckets."""
    fair = pl.col("weights").is_in(comparable)
    failed = pl.col("fallback").fill_null(value=False) & (pl.col("fallback_reason") == "Failed").fill_null(value=False)
    away = pl.col("fallback").fill_null(value=False) & ~failed
    sound = ~(away | pl.col("degraded").fill_null(value=False))
    rows = exposures.with_columns(counted=fair & sound, error=pl.col("error").fill_null(value=False) | failed)
    latency = pl.col("latency_milliseconds").fill_nan(None).fill_null(0.0)
    users = rows.group_by("user_id").agg(
        pl.col(BUCKET).min(),
        pl.col(BUCKET).max().alias("last_bucket"),
        pl.when("counted").then("at").min().alias(_FIRST),
        pl.col("counted").sum().alias(REQUESTS),
        pl.when("counted").then(latency).otherwise(0.0).sum().alias("latency"),
        (pl.col("counted") & pl.col("error")).sum().alias("errors"),
        (pl.col("counted") & pl.col("empty")).sum().alias("empties"),
    )
    table = users.filter(pl.col(REQUESTS) > 0).collect(engine="streaming").sort("user_id")
    alone = table.filter(pl.col(BUCKET) == pl.col("last_bucket")).drop("last_bucket")
    return _until(alone, exposures.filter(~fair)), table.height - alone.height


def with_events(
    users: pl.DataFrame, events: pl.LazyFrame, tallies: Sequence[Tally], start: datetime
) -> tuple[pl.DataFrame, int]:
    """Return the users with a column for each tally, now and before `start`, and the number of events counted."""
    before, after = pl.col("received_at") < start, pl.col("received_at") >= pl.col(_FIRST)
    after &= (pl.col("received_at") < pl.col(_UNTIL)).fill_null(value=True)
    wanted = pl.col("type").is_in(sorted({tally.event for tally in tallies}))
    rows = (
        events.filter(wanted | before)
        .select("user_id", "type", "value", "received_at")
        .join(users.lazy().select("user_id", _FIRST, _UNTIL), on="user_id")
        .group_by("user_id")
        .agg(
            before.any().alias(KNOWN),
            (wanted & after).sum().alias(_EVENTS),
            *(_sum(tally, after).alias(tally.column) for tally in tallies),
            *(_sum(tally, before).alias(BEFORE + tally.column) for tally in tallies),
        )
        .collect(engine="streaming")
    )
    joined = users.join(rows, on="user_id", how="left", maintain_order="left")
    filled = joined.with_columns(pl.col(KNOWN).fill_null(value=False), pl.col(rows.columns[2:]).fill_null(0))
    return filled, int(filled[_EVENTS].sum())


def _sum(tally: Tally, when: pl.Expr) -> pl.Expr:
    """Return the sum over a user's events; one without a value counts 1."""
    each = pl.col("value").fill_nan(None).fill_null(1.0) if tally.what == "sum" else pl.lit(1.0)
    return pl.when((pl.col("type") == tally.event) & when).then(each).otherwise(0.0).sum()


def _until(users: pl.DataFrame, others: pl.LazyFrame) -> pl.DataFrame:
    """Return the users with the moment from which their events no longer count, null where there is none."""
    ends = (
        others.select("user_id", "at")
        .join(users.lazy().select("user_id", _FIRST), on="user_id")
        .filter(pl.col("at") > pl.col(_FIRST))
        .group_by("user_id")
        .agg(pl.col("at").min().alias(_UNTIL))
        .collect(engine="streaming")
    )
    return users.join(ends, on="user_id", how="left", maintain_order="left")
