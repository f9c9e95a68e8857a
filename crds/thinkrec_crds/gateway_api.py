# SPDX-License-Identifier: Apache-2.0
"""What a client reads of the gateway's answers (`POST /v1/recommend`); fields it does not know are left out.

The gateway's own bodies, with limits and examples, are in the inference package; a test holds the two together.
"""

from __future__ import annotations

from thinkrec_crds.rules import ObservedType


class GateWeightView(ObservedType):
    """How much one expert counts for this user."""

    expert: str
    weight: float
    """0 to 1."""


class RecommendedItemView(ObservedType):
    """One item of a ranking."""

    rank: int
    item_id: str
    title: str
    score: float
    """Logit of the fused model."""
    cf_rank: int | None = None
    """Place by the collaborative vectors alone."""
    seen: bool
    """The user has an interaction with it in the training data."""
    reason: str | None = None


class RecommendationView(ObservedType):
    """The ranking for one user."""

    user_id: str
    items: tuple[RecommendedItemView, ...]
    gates: tuple[GateWeightView, ...] = ()
    branch: str = ""
    cold_start: bool = False
    generation: str = ""
    took_milliseconds: float | None = None


class GatewayErrorView(ObservedType):
    """A refusal: what was wrong and what to do."""

    error: str
    remedy: str = ""
