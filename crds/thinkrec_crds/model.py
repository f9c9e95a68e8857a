# SPDX-License-Identifier: Apache-2.0
"""ThinkRecModel: from ratings to served, explained recommendations, in one object."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from thinkrec_crds.fields import INT32_MAX, Flag, Int32, LabelName, ResourceName
from thinkrec_crds.group import API_VERSION
from thinkrec_crds.model_status import ModelStatus
from thinkrec_crds.rules import ApiType, Rule
from thinkrec_crds.spec_data import BaseModelSource, Dataset, Keywords, Teacher, Traces
from thinkrec_crds.spec_learning import Adapter, Collaborative, ExpertRange, Experts, Gate, Projector
from thinkrec_crds.spec_serving import Artifacts, Evaluation, Serving
from thinkrec_crds.spec_training import Schedule, Training


class ObjectMeta(ApiType):
    """The part of Kubernetes object metadata that the project reads; the rest is kept as it came."""

    model_config = ConfigDict(extra="allow")

    name: ResourceName
    namespace: LabelName = "default"
    uid: Annotated[str, Field(max_length=128)] = ""
    generation: int = 0
    resource_version: Annotated[str, Field(max_length=128)] = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    finalizers: tuple[str, ...] = ()
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None


NAME_RULE = Rule(
    cel="self.metadata.name.size() <= 52 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
    message="`metadata.name` must start with a letter, use only lower-case letters, digits and dashes,"
    " and have at most 52 characters, because names of children are built from it",
    holds=lambda owner: True,  # ObjectMeta.name already refuses it, with the path of the name itself
)


def _attributes_are_named(spec: ModelSpec) -> bool:
    return spec.keywords.source != "Attributes" or len(spec.dataset.items.columns.attributes) > 0


class ModelSpec(ApiType):
    """What the user wants; nothing but the user writes it."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.keywords.source != 'Attributes' || self.dataset.items.columns.attributes.size() > 0",
            message="`dataset.items.columns.attributes` must name a column when `keywords.source` is Attributes",
            holds=_attributes_are_named,
            field="keywords",
        ),
    )

    base_model: BaseModelSource = Field(description="The language model that is adapted.")
    dataset: Dataset = Field(description="Ratings and items to learn from.")
    keywords: Keywords = Field(default=Keywords(), description="How an item's metadata is summarised for the prompt.")
    teacher: Teacher = Field(default=Teacher(), description="Who writes the reasoning traces.")
    traces: Traces = Field(default=Traces(), description="How much reasoning is collected.")
    collaborative: Collaborative = Field(
        default=Collaborative(), description="The collaborative-filtering encoder and baseline."
    )
    adapter: Adapter = Field(default=Adapter(), description="Stage 1: the general adapter.")
    projector: Projector = Field(default=Projector(), description="Stage 2: vectors into soft tokens.")
    experts: Experts = Field(
        default=Experts(auto=ExpertRange()), description="Stage 3: one adapter for each group of users."
    )
    gate: Gate = Field(default=Gate(), description="How the experts are weighted for one user.")
    training: Training = Field(default=Training(), description="How stages run on the cluster.")
    schedule: Schedule | None = Field(default=None, description="When to train again; unset trains on changes only.")
    artifacts: Artifacts = Field(description="Where results are kept.")
    evaluation: Evaluation = Field(default=Evaluation(), description="Offline metrics, and the gates on them.")
    serving: Serving = Field(default=Serving(), description="How the model is served.")
    suspend: Flag = Field(default=False, description="Start no new training; serving stays as it is.")
    revision_history_limit: Int32 = Field(
        default=10, ge=1, le=INT32_MAX, description="Number of old revisions kept for a rollback."
    )


class ThinkRecModel(ApiType):
    """A recommender that reasons: trained, gated, served and kept up to date from this one object."""

    RULES: ClassVar[tuple[Rule, ...]] = (NAME_RULE,)

    api_version: Literal["thinkrec.io/v1alpha1"] = API_VERSION
    kind: Literal["ThinkRecModel"] = "ThinkRecModel"
    metadata: ObjectMeta
    spec: ModelSpec = Field(description="What the user wants.")
    status: ModelStatus = Field(default=ModelStatus(), description="What the operator observed.")
