# SPDX-License-Identifier: Apache-2.0
"""ThinkRecExperiment: compares revisions, offline on the same rows and online on sticky traffic, up to a verdict."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from thinkrec_crds.analysis_spec import Analysis
from thinkrec_crds.experiment_spec import Offline, Traffic, Variant, weights_fit
from thinkrec_crds.experiment_status import ExperimentStatus
from thinkrec_crds.fields import BY_NAME, INT32_MAX, Flag, Int32, LabelName
from thinkrec_crds.group import API_VERSION
from thinkrec_crds.model import NAME_RULE, ObjectMeta
from thinkrec_crds.rules import ApiType, Rule, Transition, at_least_one

PromotionPolicy = Literal["None", "Manual", "Automatic"]
RollbackPolicy = Literal["None", "Automatic"]


def _mode(spec: Any) -> str:
    return "" if spec.traffic is None else str(spec.traffic.mode)


def _is_fixed(spec: Any) -> bool:
    return _mode(spec) == "ABTest" and spec.analysis is not None and spec.analysis.method == "FixedHorizon"


def _names(spec: Any) -> set[str]:
    return {variant.name for variant in spec.variants}


_VARIANTS_KEPT = Transition(
    cel="self.variants.size() == oldSelf.variants.size()"
    " && self.variants.all(v, oldSelf.variants.exists(o, o.name == v.name))",
    message="`variants` must not gain or lose a member; a new comparison is a new object",
    holds=lambda new, old: _names(new) == _names(old),
)
_CONTROL_KEPT = Transition(
    cel="self.controlVariantName == oldSelf.controlVariantName",
    message="`controlVariantName` must not change; a new comparison is a new object",
    holds=lambda new, old: bool(new.control_variant_name == old.control_variant_name),
)
_OFFLINE_KEPT = Transition(
    cel="has(self.offline) == has(oldSelf.offline)",
    message="`offline` must not be added or removed; a new comparison is a new object",
    holds=lambda new, old: (new.offline is None) == (old.offline is None),
)


class ExperimentSpec(ApiType):
    """What the user wants to find out; nothing but the user writes it."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        at_least_one("offline", "traffic"),
        Rule(
            cel="self.variants.exists(v, v.name == self.controlVariantName)",
            message="`controlVariantName` must be the name of one of `variants`",
            holds=lambda spec: spec.control_variant_name in _names(spec),
            field="control_variant_name",
        ),
        Rule(
            cel="!self.variants.exists(v, has(v.weight)) || (self.variants.all(v, has(v.weight))"
            " && self.variants.map(v, v.weight).sum() == 100)",
            message="`weight` must be set for all `variants` or for none, and all weights must add up to 100",
            holds=lambda spec: weights_fit(spec.variants),
            field="variants",
        ),
        Rule(
            cel="!has(self.traffic) || self.traffic.mode != 'Canary' || self.variants.size() == 2",
            message="`variants` must have two members when `traffic.mode` is Canary",
            holds=lambda spec: _mode(spec) != "Canary" or len(spec.variants) == 2,
            field="variants",
        ),
        Rule(
            cel="!has(self.traffic) || self.traffic.mode == 'Mirror' || has(self.analysis)",
            message="`analysis` must be set when `traffic.mode` is ABTest or Canary",
            holds=lambda spec: _mode(spec) in ("", "Mirror") or spec.analysis is not None,
            field="analysis",
        ),
        Rule(
            cel="!has(self.analysis) || self.analysis.method != 'FixedHorizon' || !has(self.traffic)"
            " || self.traffic.mode != 'ABTest' || has(self.traffic.durationSeconds)",
            message="`traffic.durationSeconds` must be set when `analysis.method` is FixedHorizon and `traffic.mode` is"
            " ABTest: the test is made once, at the planned end",
            holds=lambda spec: not _is_fixed(spec) or spec.traffic.duration_seconds is not None,
            field="traffic",
        ),
    )
    TRANSITIONS: ClassVar[tuple[Transition, ...]] = (_VARIANTS_KEPT, _CONTROL_KEPT, _OFFLINE_KEPT)

    variants: Annotated[tuple[Variant, ...], BY_NAME] = Field(
        min_length=2, max_length=8, description="The contenders, control among them."
    )
    control_variant_name: LabelName = Field(description="Name of the variant that the others are compared with.")
    offline: Offline | None = Field(
        default=None,
        description="Comparison on the same test rows, before any traffic.",
        # Were its members merged one by one, a second server-side apply of `offline: {}` would take it for removed:
        # the apiserver trips over the empty list that it filled in for `gates`.
        json_schema_extra={"x-kubernetes-map-type": "atomic"},
    )
    traffic: Traffic | None = Field(default=None, description="Comparison on real users.")
    analysis: Analysis | None = Field(default=None, description="How the verdict on real users is reached.")
    promotion_policy: PromotionPolicy = Field(
        default="None", description="What follows from a winner: nothing, a proposal, or promotion in status."
    )
    rollback_policy: RollbackPolicy = Field(
        default="Automatic", description="Automatic gives control all traffic when a guardrail is violated."
    )
    progress_deadline_seconds: Int32 = Field(
        default=3600, ge=60, le=INT32_MAX, description="Seconds the variants may take to become ready."
    )
    active_deadline_seconds: Int32 | None = Field(
        default=None, ge=60, le=INT32_MAX, description="Seconds after which the experiment ends without a winner."
    )
    suspend: Flag = Field(default=False, description="Send all users to control and start nothing.")


class ThinkRecExperiment(ApiType):
    """A comparison of revisions with a statistical verdict."""

    RULES: ClassVar[tuple[Rule, ...]] = (NAME_RULE,)

    api_version: Literal["thinkrec.io/v1alpha1"] = API_VERSION
    kind: Literal["ThinkRecExperiment"] = "ThinkRecExperiment"
    metadata: ObjectMeta
    spec: ExperimentSpec = Field(description="What the user wants to find out.")
    status: ExperimentStatus = Field(default=ExperimentStatus(), description="What the operator observed.")
