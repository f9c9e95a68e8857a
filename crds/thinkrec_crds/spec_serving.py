# SPDX-License-Identifier: Apache-2.0
"""Where results are kept, what they must reach, and how the model is served."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from thinkrec_crds.fields import (
    ATOMIC,
    BY_METRIC,
    BY_NAME,
    INT32_MAX,
    SET,
    DataUri,
    DecimalText,
    Fraction,
    HttpUrl,
    ImageName,
    Int32,
    LabelMap,
    LabelName,
    MetricName,
    ObjectName,
    PodTemplate,
    Resources,
    SecretReference,
    ShortText,
    Toleration,
)
from thinkrec_crds.rules import ApiType, Rule, at_least_one, not_above, not_both

DeletionPolicy = Literal["Retain", "Delete"]
FusionMethod = Literal["Exact", "PeftLinear"]
Precision = Literal["Auto", "Float32", "BFloat16", "Float16"]
ScoreMethod = Literal["Yes", "YesMinusNo"]
UpdatePolicy = Literal["Automatic", "OnExperiment", "Manual"]
AutoscalingMetricName = Literal["PendingRequests", "CPUUtilization"]


class Artifacts(ApiType):
    """The store: every stage publishes what it made under a name derived from its content."""

    storage_uri: DataUri = Field(
        description="Root of the store: s3://bucket/key, file:///absolute or file:relative (laptop only)."
    )
    endpoint: HttpUrl | None = Field(default=None, description="Address of an S3-compatible service; unset means AWS.")
    region: ShortText | None = Field(default=None, description="S3 region; unset lets the client decide.")
    secret_ref: SecretReference | None = Field(
        default=None,
        description="Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; unset uses the pod's identity.",
    )
    deletion_policy: DeletionPolicy = Field(
        default="Retain", description="What happens to the artifacts of this model when this object is deleted."
    )


class EvaluationGate(ApiType):
    """A metric that a new revision must reach before it may serve."""

    RULES: ClassVar[tuple[Rule, ...]] = (at_least_one("minimum", "max_regression"),)

    metric: MetricName = Field(description="AUC, UAUC, NDCG@k or MAP@k.")
    minimum: DecimalText | None = Field(default=None, description="Least value of the metric.")
    max_regression: Fraction | None = Field(
        default=None, description="Most that the metric may lose against the revision now serving, in points of 0 to 1."
    )


class Evaluation(ApiType):
    """Offline evaluation on the test split."""

    max_users: Int32 | None = Field(
        default=None,
        ge=1,
        le=INT32_MAX,
        description="Number of test users, drawn by a hash of the user; unset takes all.",
    )
    max_rows_per_user: Int32 = Field(
        default=40, ge=1, le=10_000, description="Test rows of one user, at most; the first in time."
    )
    metrics: Annotated[tuple[MetricName, ...], SET] = Field(
        default=("AUC", "UAUC", "NDCG@5", "MAP@5"),
        min_length=1,
        max_length=16,
        description="Metrics computed and kept in status: AUC, UAUC, NDCG@k or MAP@k.",
    )
    gates: Annotated[tuple[EvaluationGate, ...], BY_METRIC] = Field(
        default=(), max_length=16, description="What a new revision must reach before it may serve."
    )
    sampled_explanations: Int32 = Field(
        default=5, ge=0, le=10_000, description="Explanations generated and checked for the report."
    )


class AutoscalingMetric(ApiType):
    """One signal that the number of replicas follows."""

    name: AutoscalingMetricName = Field(
        description="PendingRequests waiting in each replica, or CPUUtilization of its request."
    )
    target: Int32 = Field(
        ge=1, le=1_000_000, description="Average for each replica: requests, or percent of the request."
    )


class Autoscaling(ApiType):
    """Lets load choose the number of replicas."""

    RULES: ClassVar[tuple[Rule, ...]] = (not_above("min_replicas", "max_replicas"),)

    min_replicas: Int32 = Field(default=1, ge=1, le=1000, description="Least number of replicas.")
    max_replicas: Int32 = Field(ge=1, le=1000, description="Greatest number of replicas.")
    metrics: Annotated[tuple[AutoscalingMetric, ...], BY_NAME] = Field(
        default=(AutoscalingMetric(name="PendingRequests", target=8),),
        min_length=1,
        max_length=4,
        description="Signals that are followed; the one that asks for most replicas wins.",
    )


class ServingLimits(ApiType):
    """What one request may ask for."""

    max_candidates: Int32 = Field(
        default=200, ge=1, le=10_000, description="Candidates scored for one request, at most."
    )
    deadline_milliseconds: Int32 = Field(
        default=10_000, ge=10, le=600_000, description="Milliseconds after which a request is given up."
    )
    max_body_bytes: Int32 = Field(
        default=1_048_576, ge=1024, le=67_108_864, description="Size of a request body in bytes, at most."
    )
    max_explanation_tokens: Int32 = Field(default=96, ge=1, le=4096, description="Tokens of one explanation, at most.")


class Serving(ApiType):
    """The Triton deployment and the gateway in front of it."""

    RULES: ClassVar[tuple[Rule, ...]] = (not_both("replicas", "autoscaling"),)

    image: ImageName | None = Field(default=None, description="Triton image; unset uses the operator's own.")
    gateway_image: ImageName | None = Field(
        default=None,
        description="Image of a gateway of your own, a container beside Triton; unset uses the one within `image`.",
    )
    replicas: Int32 | None = Field(
        default=None, ge=0, le=1000, description="Fixed number of replicas; excludes `autoscaling`. Neither means one."
    )
    autoscaling: Autoscaling | None = Field(default=None, description="Let load choose the number of replicas.")
    resources: Resources = Field(default=Resources(), description="Compute resources of each Triton pod.")
    service_account_name: ObjectName | None = Field(
        default=None,
        description="ServiceAccount of the pods, with which bundle and base model are fetched;"
        " unset takes `training.serviceAccountName`.",
    )
    node_selector: LabelMap = Field(default={}, description="Labels a node must have.")
    tolerations: Annotated[tuple[Toleration, ...], ATOMIC] = Field(
        default=(), max_length=16, description="Taints the pods tolerate."
    )
    pod_template: PodTemplate | None = Field(
        default=None, description="Anything else of the pods, merged over ours; Triton's container is `triton`."
    )
    fusion: FusionMethod = Field(
        default="Exact",
        description="Exact is the weighted sum of the experts' updates; PeftLinear reproduces published numbers only.",
    )
    precision: Precision = Field(
        default="Auto", description="Number format of the base model; Auto takes BFloat16 where the hardware has it."
    )
    score: ScoreMethod = Field(
        default="YesMinusNo",
        description="Logit of Yes minus logit of No, or of Yes alone (quote it: YAML reads a bare Yes as true).",
    )
    limits: ServingLimits = Field(default=ServingLimits(), description="What one request may ask for.")
    update_policy: UpdatePolicy = Field(
        default="Automatic",
        description="When a new revision that passed its gates serves: at once, after an experiment, or pinned.",
    )
    revision: LabelName | None = Field(
        default=None, description="Serve exactly this revision (see status.latestRevision); a rollback from Git."
    )

    @property
    def effective_replicas(self) -> int:
        """Return the number of replicas to start with."""
        if self.autoscaling is not None:
            return self.autoscaling.min_replicas
        return self.replicas if self.replicas is not None else 1
