# SPDX-License-Identifier: Apache-2.0
"""What is learnt: the collaborative encoder, the shared adapter, the projector, the experts and their gate."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from thinkrec_crds.fields import (
    BY_NAME,
    SET,
    DataUri,
    Fraction,
    Int32,
    LabelName,
    PositiveDecimal,
    ShortText,
)
from thinkrec_crds.rules import ApiType, Rule, exactly_one, not_above, not_both

Encoder = Literal["MF", "LightGCN", "SASRec"]
GroupingMethod = Literal["Auto", "Ward", "MiniBatchKMeans"]
GateType = Literal["CentroidSoftmax"]

DEFAULT_DIMENSION: Final[dict[str, int]] = {"MF": 256, "LightGCN": 64, "SASRec": 64}
"""Width of the collaborative vectors when the manifest leaves it open (the paper's values)."""

_MAX_STEPS: Final = 10_000_000
_MAX_EXPERTS: Final = 64


class Collaborative(ApiType):
    """The collaborative-filtering encoder whose frozen vectors enter the prompt as soft tokens."""

    encoder: Encoder = Field(default="MF", description="Matrix factorisation, LightGCN or SASRec.")
    dimension: Int32 | None = Field(
        default=None, ge=4, le=1024, description="Width of the vectors; unset means 256 for MF, 64 for the others."
    )
    epochs: Int32 = Field(default=50, ge=1, le=10_000, description="Passes over the training split, at most.")
    checkpoint_uri: DataUri | None = Field(
        default=None,
        description="Your own vectors of any encoder, safetensors in the dataset's row order; then none is trained.",
    )

    @property
    def effective_dimension(self) -> int:
        """Return the width in force: the manifest's, or the encoder's own default."""
        return self.dimension if self.dimension is not None else DEFAULT_DIMENSION[self.encoder]


class Lora(ApiType):
    """Shape of the low-rank adapters, general and expert."""

    rank: Int32 = Field(default=8, ge=1, le=256, description="Rank r of the update.")
    alpha: Int32 = Field(
        default=16, ge=1, le=1024, description="Scale numerator: the update is scaled by alpha / rank."
    )
    dropout: Fraction = Field(default="0.05", description="Share of adapter inputs dropped while training, 0 to 1.")
    target_modules: Annotated[tuple[ShortText, ...], SET] = Field(
        default=("q_proj", "v_proj"),
        min_length=1,
        max_length=16,
        description="Names of the projections that get an adapter.",
    )


class Adapter(ApiType):
    """Stage 1, thinking activation: one general adapter on text and reasoning."""

    RULES: ClassVar[tuple[Rule, ...]] = (not_both("steps", "epochs"),)

    lora: Lora = Field(default=Lora(), description="Shape of the adapters, here and in the experts.")
    steps: Int32 | None = Field(
        default=None, ge=1, le=_MAX_STEPS, description="Optimizer steps; excludes `epochs`. Neither means one epoch."
    )
    epochs: Int32 | None = Field(
        default=None, ge=1, le=1000, description="Passes over the training rows; excludes `steps`."
    )
    learning_rate: PositiveDecimal = Field(default="0.0001", description="Peak learning rate of AdamW.")
    warmup_steps: Int32 = Field(
        default=200, ge=0, le=_MAX_STEPS, description="Optimizer steps of linear warm-up before the cosine."
    )
    trace_share: Fraction = Field(
        default="0.2", description="Share of optimizer steps that train on reasoning traces, 0 to 1."
    )
    history_block: Int32 = Field(
        default=16,
        ge=1,
        le=128,
        description="Consecutive targets of one user trained in one sequence; 1 is the plain way.",
    )


class Projector(ApiType):
    """Stage 2: the network that turns collaborative vectors into soft tokens."""

    steps: Int32 | None = Field(
        default=None, ge=1, le=_MAX_STEPS, description="Optimizer steps; unset means one epoch."
    )
    learning_rate: PositiveDecimal = Field(default="0.001", description="Peak learning rate of AdamW.")
    hidden_multiplier: Int32 = Field(
        default=10, ge=1, le=64, description="Width of the hidden layer as a multiple of the vectors' width."
    )


class ExpertItem(ApiType):
    """One named expert."""

    name: LabelName = Field(description="Name of the expert; part of the names of its Job and its artifact.")


class ExpertRange(ApiType):
    """Lets the data choose the number of experts by silhouette."""

    RULES: ClassVar[tuple[Rule, ...]] = (not_above("min", "max"),)

    min: Int32 = Field(default=2, ge=2, le=_MAX_EXPERTS, description="Least number of experts tried.")
    max: Int32 = Field(default=10, ge=2, le=_MAX_EXPERTS, description="Greatest number of experts tried.")


class Grouping(ApiType):
    """How users are put into groups, one for each expert."""

    method: GroupingMethod = Field(
        default="Auto", description="Ward, MiniBatchKMeans for many users, or Auto by the number of users."
    )


class Experts(ApiType):
    """Stage 3: one adapter for each group of users, continued from the general one."""

    RULES: ClassVar[tuple[Rule, ...]] = (exactly_one("count", "items", "auto"),)

    count: Int32 | None = Field(default=None, ge=1, le=_MAX_EXPERTS, description="Fixed number of experts.")
    items: Annotated[tuple[ExpertItem, ...], Field(min_length=1, max_length=_MAX_EXPERTS), BY_NAME] | None = Field(
        default=None, description="Experts with names of your own, one group each."
    )
    auto: ExpertRange | None = Field(default=None, description="Choose the number from the data.")
    steps: Int32 | None = Field(
        default=None,
        ge=1,
        le=_MAX_STEPS,
        description="Optimizer steps of each expert; unset means one epoch of its group.",
    )
    learning_rate: PositiveDecimal = Field(default="0.00001", description="Peak learning rate of AdamW.")
    grouping: Grouping = Field(default=Grouping(), description="How users are put into groups.")


class Gate(ApiType):
    """How the experts' updates are weighted for one user."""

    type: GateType = Field(
        default="CentroidSoftmax", description="Softmax over the cosine of the user's vector with each group's mean."
    )
    temperature: PositiveDecimal = Field(default="0.1", description="Temperature of the softmax; small is sharp.")
    hard_route_threshold: Fraction | None = Field(
        default=None,
        description="A weight above this takes one expert alone, 0 to 1; unset means 0.5 + 0.6 / number of experts.",
    )
