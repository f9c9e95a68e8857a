# SPDX-License-Identifier: Apache-2.0
"""Messages between the gateway, the Triton models and the engine process. Ids of items and users are the user's own."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from thinkrec_crds.contract import Contract


class Branch(StrEnum):
    """Which rule of the gate decided (method.md, Gate and fusion)."""

    ONE_HOT = "OneHot"
    GENERAL = "General"
    FUSED = "Fused"
    COLD_START = "ColdStart"


class HistoryItem(Contract):
    """One interaction that replaces or extends the stored history."""

    item_id: str = Field(max_length=256)
    liked: bool


class ScoreRequest(Contract):
    """Score candidates for one user."""

    user_id: str = Field(max_length=256)
    item_ids: tuple[str, ...] = Field(min_length=1, max_length=10_000)
    history: tuple[HistoryItem, ...] | None = None
    """Oldest first; None takes the bundle's own."""


class ScoreResponse(Contract):
    """Scores in the order of the request."""

    user_id: str
    item_ids: tuple[str, ...]
    scores: tuple[float, ...]
    """fp32 logits."""
    gates: tuple[float, ...]
    """K expert weights and, last, the general adapter's; they sum to 1."""
    branch: Branch
    cold_start: bool
    generation: str
    """Digest of the bundle that answered."""


class ExplainRequest(Contract):
    """Explain one candidate: the engine decides and goes on writing."""

    user_id: str = Field(max_length=256)
    item_id: str = Field(max_length=256)
    history: tuple[HistoryItem, ...] | None = None
    max_tokens: int = Field(default=64, ge=1, le=4096)
    max_seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """The engine ends the text where it is after so long (`finish_reason` cancelled); None: no limit of its own."""


class ExplainEvent(Contract):
    """One part of a streamed explanation; the last one has `done`."""

    text: str
    done: bool = False
    finish_reason: Literal["stop", "length", "cancelled"] | None = None
    score: float | None = None
    decision: Literal["Yes", "No"] | None = None
    gates: tuple[float, ...] | None = None
    branch: Branch | None = None
    generation: str | None = None


class EngineError(Contract):
    """Why a request was refused; `status` is an HTTP status code."""

    status: int
    error: str
    remedy: str = ""
