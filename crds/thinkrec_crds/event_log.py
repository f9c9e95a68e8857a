# SPDX-License-Identifier: Apache-2.0
"""The event log: what a gateway writes into segments, and `python -m thinkrec_trainer ship-events` takes from there.

A segment is a file of JSON lines. While its gateway writes it is called `events-….open.jsonl`, and the gateway holds an
exclusive flock on it; when it is full or old it is renamed to `events-….jsonl` and never changes again. An open segment
that nobody holds was left by a gateway that died: it may be taken as it is, and a line without an end, which can only
be its last, was never acknowledged. Whoever has stored a closed segment elsewhere removes it.

A gateway also holds a shared flock on `WRITERS_LOCK` as long as it lives: while somebody does, more may come.

Feedback has no `record` member, for it is what callers sent; what gateways write of their own says what it is.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import AwareDatetime, Field

from thinkrec_crds.buckets import BUCKETS
from thinkrec_crds.contract import Contract
from thinkrec_crds.rules import ObservedType

SEGMENT_PATTERN = "events-*.jsonl"
"""Of a glob: closed and open segments. Sorted by name they are in the order in which they were begun."""
OPEN_SUFFIX = ".open.jsonl"
CLOSED_SUFFIX = ".jsonl"
WRITERS_LOCK = ".writers.lock"
"""An empty file in the same folder."""

FallbackReason = Literal["NotReady", "Failed", "OtherExperiment"]


class StoredEvent(ObservedType):
    """One line of feedback as it was stored; the gateway has checked it, so a newer one's fields are left out here."""

    event_id: str = Field(min_length=1)
    user_id: str = Field(min_length=1)
    item_id: str
    type: str
    value: float | None = None
    occurred_at: datetime | None = None
    """When it happened, says the caller, in UTC where it names no zone; None: when it was received."""
    generation: str | None = None
    received_at: AwareDatetime
    """By the gateway's clock."""


class Exposure(ObservedType):
    """One request that an experiment had a say in."""

    record: Literal["Exposure"] = "Exposure"
    exposure_id: str = Field(min_length=1)
    experiment: str
    """metadata.uid."""
    variant: str
    """Whose user it is."""
    user_id: str = Field(min_length=1)
    bucket: int = Field(ge=0, lt=BUCKETS)
    weights: str
    """Shares in force, as `control=90,new=10`: a sample-ratio check is made per value of it."""
    served_by: str
    """The variant that answered."""
    revision: str
    """Of the model that answered."""
    fallback: bool = False
    """Another variant answered than the one assigned, or another experiment had a hand in it: not to be analysed."""
    fallback_reason: FallbackReason | None = None
    degraded: bool = False
    """Some variant was not ready at that moment; without these, the groups are compared over the same times."""
    at: AwareDatetime
    latency_milliseconds: float
    error: bool = False
    """The caller got an error."""
    empty: bool = False
    """The caller got no items."""


class Mirrored(ObservedType):
    """One request of which another variant got a copy, and how the two answers differ. The caller saw control's."""

    record: Literal["Mirror"] = "Mirror"
    mirror_id: str = Field(min_length=1)
    experiment: str
    """metadata.uid."""
    variant: str
    """Which got the copy."""
    revision: str
    user_id: str = Field(min_length=1)
    at: AwareDatetime
    branch: str
    """Rule of the gate by which control's answer came about."""
    error: bool = False
    """The variant did not answer, or with an error: nothing below is known but the latency."""
    latency_milliseconds: float
    """Of the variant; control's own is not known to be comparable, since it may write reasons."""
    items: int = Field(default=0, ge=0, le=65_535)
    """In control's answer."""
    overlap: float | None = None
    """Share of control's items that the variant answered too, 0 to 1."""
    rank_correlation: float | None = None
    """Spearman's, over the items that both answered; None for fewer than two."""
    score_shift: float | None = None
    """Mean of the variant's score less control's, over the items that both answered."""


class ShipProgress(Contract):
    """One JSON line on standard output after a round in which something happened, or failed."""

    event: Literal["progress"] = "progress"
    stage: Literal["ship-events"] = "ship-events"
    segments: int
    """Shipped since the start, as are the counts that follow."""
    events: int
    exposures: int
    mirrored: int
    unreadable: int
    """Lines that are none of these; they lie beside the others, as they were."""
    waiting_segments: int
    """Now in the folder, open ones included."""
    waiting_bytes: int
    oldest_seconds: float
    """Age of the oldest of them."""
    retry_seconds: float | None = None
    """Until the next attempt, where the last one failed."""
    message: str = ""


def is_open(name: str) -> bool:
    """Return whether the name is that of a segment which its gateway may still write."""
    return name.endswith(OPEN_SUFFIX)


def closed_name(name: str) -> str:
    """Return the name that an open segment gets when it is closed."""
    return name.removesuffix(OPEN_SUFFIX) + CLOSED_SUFFIX
