# SPDX-License-Identifier: Apache-2.0
"""Where events lie in the store, and their columns.

    events/<model>/kind=feedback/hour=2026-11-28T13/part=05/<segment>-<digest>.parquet
    events/<model>/kind=exposure/hour=…/part=…/…   and kind=mirror
    events/<model>/kind=…/hour=…/part=…/compacted-<digest of the names>.parquet      many of them as one
    events/<model>/unreadable/<segment>-<digest>.jsonl

The hour (UTC) is the gateway's clock at reception: what a caller says about the time may be wrong by years, and would
scatter a segment over as many folders. The part is a hash of the user, so that one reader sees all of a user, and
readers that share the parts among them need to see nothing else. The digest is that of the segment's bytes: the same
segment gets the same names, however often it is shipped.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Literal

import polars as pl

from thinkrec_trainer.errors import BadInput

Kind = Literal["feedback", "exposure", "mirror"]

PARTS = 16
"""Of the users of one hour. A constant: readers and writers of all versions must agree."""
HOUR = "%Y-%m-%dT%H"
MOMENT = pl.Datetime("us", "UTC")

FEEDBACK = pl.Schema(
    {
        "event_id": pl.String(),
        "user_id": pl.String(),
        "item_id": pl.String(),
        "type": pl.String(),
        "value": pl.Float64(),
        "occurred_at": MOMENT,
        "generation": pl.String(),
        "received_at": MOMENT,
    }
)
"""`occurred_at` is null where the caller did not say; `generation` is the digest of the bundle that recommended."""
EXPOSURE = pl.Schema(
    {
        "exposure_id": pl.String(),
        "experiment": pl.String(),
        "variant": pl.String(),
        "user_id": pl.String(),
        "bucket": pl.UInt16(),
        "weights": pl.String(),
        "served_by": pl.String(),
        "revision": pl.String(),
        "fallback": pl.Boolean(),
        "fallback_reason": pl.String(),
        "degraded": pl.Boolean(),
        "at": MOMENT,
        "latency_milliseconds": pl.Float64(),
        "error": pl.Boolean(),
        "empty": pl.Boolean(),
    }
)
"""Meanings: `thinkrec_crds.event_log.Exposure`."""
MIRROR = pl.Schema(
    {
        "mirror_id": pl.String(),
        "experiment": pl.String(),
        "variant": pl.String(),
        "revision": pl.String(),
        "user_id": pl.String(),
        "at": MOMENT,
        "branch": pl.String(),
        "error": pl.Boolean(),
        "latency_milliseconds": pl.Float64(),
        "items": pl.UInt16(),
        "overlap": pl.Float64(),
        "rank_correlation": pl.Float64(),
        "score_shift": pl.Float64(),
    }
)
"""Meanings: `thinkrec_crds.event_log.Mirrored`."""
SCHEMAS: dict[Kind, pl.Schema] = {"feedback": FEEDBACK, "exposure": EXPOSURE, "mirror": MIRROR}
"""A column's name is that of the record's field."""
IDENTITY: dict[Kind, str] = {"feedback": "event_id", "exposure": "exposure_id", "mirror": "mirror_id"}
"""With the user: nobody can make another user's events vanish by reusing their ids."""
TIME: dict[Kind, str] = {"feedback": "received_at", "exposure": "at", "mirror": "at"}


def require_model(model: str) -> str:
    """Return the name; raise BadInput when it is none of a model, and so might lead to another folder."""
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", model):
        raise BadInput(f"model {model!r} is no name of a model: lower-case letters, digits and dashes, at most 63")
    return model


def user_part(user_id: str) -> int:
    """Return the part, 0 to 15, that holds everything of a user."""
    digest = hashlib.blake2b(user_id.encode("utf-8", "surrogatepass"), digest_size=8, person=b"user-part").digest()
    return int.from_bytes(digest, "big") % PARTS


def hour_of(moment: datetime) -> str:
    """Return the hour's name; they sort as the hours do."""
    return moment.astimezone(UTC).strftime(HOUR)


def kind_folder(model: str, kind: Kind) -> str:
    """Return the folder of a kind, with a slash at its end."""
    return f"events/{model}/kind={kind}/"


def table_name(model: str, kind: Kind, hour: str, part: int, segment: str) -> str:
    """Return the name of the table that holds a segment's lines of one kind, hour and part."""
    return f"{kind_folder(model, kind)}hour={hour}/part={part:02d}/{segment}.parquet"


def compacted_segment(names: Iterable[str]) -> str:
    """Return what stands for the segment in the name of a table that was made of these; the same for the same ones."""
    digest = hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()
    return f"compacted-{digest[:32]}"


def unreadable_name(model: str, segment: str) -> str:
    """Return the name of the file for a segment's lines that are neither events nor exposures."""
    return f"events/{model}/unreadable/{segment}.jsonl"
