# SPDX-License-Identifier: Apache-2.0
"""The gateway's JSON: every request and answer body, with limits, meaning and an example.

Keys are camelCase; snake_case keys are accepted too, and a request written in snake_case is answered in snake_case.
Limits that an operator may change (`maxCandidates`, `maxBodyBytes` …) are checked in the routes, not here.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from thinkrec_crds.contract import Contract
from thinkrec_crds.engine_api import Branch, HistoryItem
from thinkrec_crds.fields import EventName

Id = Annotated[str, Field(min_length=1, max_length=256)]
Retrieval = Literal["Collaborative", "Popularity", "Given"]


def _example(body: dict[str, Any]) -> ConfigDict:
    """Return the model configuration that puts one example into the OpenAPI document."""
    return ConfigDict(json_schema_extra={"examples": [body]})


class RecommendRequest(Contract):
    """POST /v1/recommend: the best k items for a user."""

    model_config = _example({"userId": "42", "k": 10, "explain": True, "explainTop": 3})

    user_id: Id = Field(description="The user's own id; an unknown one is answered as a cold start.")
    k: int = Field(default=10, ge=1, le=1000, description="Items to return; at most the server's maxCandidates.")
    explain: bool = Field(default=False, description="Write a reason for the first explainTop items.")
    explain_top: int = Field(default=3, ge=1, le=50, description="How many of the best items get a reason.")
    candidates: tuple[Id, ...] | None = Field(
        default=None,
        min_length=1,
        description="Rank exactly these items instead of retrieving; those seen before are kept and flagged.",
    )
    history: tuple[HistoryItem, ...] | None = Field(
        default=None, max_length=200, description="Replaces the stored history, oldest first."
    )


class GateWeight(Contract):
    """How much one expert counts for this user."""

    expert: str = Field(description="Name of the expert, or `general`.")
    weight: float = Field(description="0 to 1; all weights of an answer sum to 1.")


class RecommendedItem(Contract):
    """One item of a ranking."""

    rank: int = Field(description="1 is best.")
    item_id: str
    title: str
    score: float = Field(description="Logit of the fused model; higher is better. Not a probability.")
    cf_rank: int | None = Field(
        default=None,
        description="1-based place among unseen items by the collaborative vectors; absent for a cold start.",
    )
    seen: bool = Field(description="The user has an interaction with it in the training data.")
    reason: str | None = Field(default=None, description="The model's own explanation, when asked for.")
    decision: Literal["Yes", "No"] | None = Field(default=None, description="What the explanation starts from.")
    finish_reason: Literal["stop", "length", "cancelled"] | None = Field(
        default=None, description="Why the reason ended; `cancelled` means the deadline cut it."
    )


class RecommendResponse(Contract):
    """The ranking and how it came about."""

    model_config = _example(
        {
            "userId": "42",
            "items": [
                {
                    "rank": 1,
                    "itemId": "50",
                    "title": "Star Wars (1977)",
                    "score": 2.41,
                    "cfRank": 3,
                    "seen": False,
                    "reason": "The user liked several space adventures.",
                    "decision": "Yes",
                    "finishReason": "stop",
                }
            ],
            "gates": [
                {"expert": "expert-0", "weight": 0.7},
                {"expert": "expert-1", "weight": 0.3},
                {"expert": "general", "weight": 0.0},
            ],
            "branch": "Fused",
            "coldStart": False,
            "generation": "sha256:…",
            "retrieval": "Collaborative",
            "candidatesScored": 50,
            "tookMilliseconds": 812.0,
        }
    )

    user_id: str
    items: tuple[RecommendedItem, ...]
    gates: tuple[GateWeight, ...] = Field(description="One entry per expert and, last, the general adapter.")
    branch: Branch = Field(description="Which rule of the gate decided.")
    cold_start: bool = Field(description="No vector is known for this user: the general adapter scored.")
    generation: str = Field(description="Digest of the bundle that answered.")
    retrieval: Retrieval = Field(description="Where the candidates came from.")
    candidates_scored: int = Field(description="Candidates that the language model scored.")
    took_milliseconds: float


class ScoreBody(Contract):
    """POST /v1/score: score given items for a user."""

    model_config = _example({"userId": "42", "itemIds": ["50", "181"]})

    user_id: Id
    item_ids: tuple[Id, ...] = Field(min_length=1, description="At most the server's maxCandidates.")
    history: tuple[HistoryItem, ...] | None = Field(default=None, max_length=200)


class ScoredItem(Contract):
    """One score, in the order of the request."""

    item_id: str
    title: str
    score: float
    seen: bool


class ScoreAnswer(Contract):
    """Scores in the order of the request."""

    user_id: str
    items: tuple[ScoredItem, ...]
    gates: tuple[GateWeight, ...]
    branch: Branch
    cold_start: bool
    generation: str
    took_milliseconds: float


class Event(Contract):
    """One piece of feedback."""

    event_id: str = Field(min_length=1, max_length=128, description="Yours; sending it again changes nothing.")
    user_id: Id
    item_id: Id
    type: EventName = Field(
        description="What the user did, in words of yours: click, purchase, watch.end. Case matters."
    )
    value: float | None = Field(
        default=None, allow_inf_nan=False, description="How much: a rating, an amount, seconds."
    )
    occurred_at: datetime | None = Field(default=None, description="RFC 3339; absent means when it was received.")
    generation: str | None = Field(default=None, max_length=128, description="From the answer that led to it.")


class EventsRequest(Contract):
    """POST /v1/events: feedback, one event or many."""

    model_config = _example(
        {"events": [{"eventId": "7f3a", "userId": "42", "itemId": "50", "type": "Like"}]},
    )

    events: tuple[Event, ...] = Field(min_length=1, max_length=1000)


class EventsAnswer(Contract):
    """Sent only after every accepted event is on disk."""

    accepted: int = Field(description="Events written now.")
    duplicates: int = Field(description="Events whose eventId had been written before with the same content.")


class FieldProblem(Contract):
    """One wrong field of a request."""

    field: str = Field(description="Path as you sent it, for example `events.3.type`.")
    error: str
    received: str | None = Field(default=None, description="What was sent, cut to 200 characters.")


class ErrorBody(Contract):
    """Every error of this API."""

    model_config = _example(
        {
            "error": "k is 5000; at most 200 items can be returned",
            "remedy": "Ask for k between 1 and 200.",
            "field": "k",
            "received": "5000",
        }
    )

    error: str = Field(description="What was wrong.")
    remedy: str = Field(description="What to do about it.")
    field: str | None = Field(default=None, description="The first wrong field.")
    received: str | None = Field(default=None, description="What was sent in it, cut to 200 characters.")
    details: tuple[FieldProblem, ...] | None = Field(
        default=None, description="All wrong fields, when there are several."
    )


class ReadyAnswer(Contract):
    """GET /readyz: the whole path gateway → Triton → engine answered."""

    ready: bool
    generation: str
    models: tuple[str, ...] = Field(description="Triton models that are ready.")
