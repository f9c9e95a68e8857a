# SPDX-License-Identifier: Apache-2.0
"""The stage protocol: what `python -m thinkrec_trainer run stage.json` is told.

`parameters` hold only what changes the output; they and the input keys make the stage's key. Everything else (where to
write, on what device, how often to checkpoint) may change without a retraining.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from thinkrec_crds.analysis_spec import Analysis, EventMetric
from thinkrec_crds.artifact import Digest, Key
from thinkrec_crds.contract import Contract
from thinkrec_crds.experiment_spec import TrafficMode
from thinkrec_crds.stage_kinds import SEMANTICS_VERSION, StageKind


class Columns(Contract):
    """Names of the ratings file's columns."""

    user: str = "user_id"
    item: str = "item_id"
    rating: str = "rating"
    timestamp: str = "timestamp"


class ItemColumns(Contract):
    """Names of the item file's columns."""

    item: str = "item_id"
    title: str = "title"
    attributes: tuple[str, ...] = ()
    """Columns whose values become keywords with `source: Attributes`.

    A cell may hold several, split on , or |, or on spaces for RecBole's token_seq.
    """


class ItemSource(Contract):
    """Where item metadata comes from."""

    storage_uri: str
    format: Literal["Parquet", "CSV", "JSONLines", "RecBole"]
    columns: ItemColumns = ItemColumns()


class BaseModelRef(Contract):
    """The pinned base language model."""

    storage_uri: str
    revision: str = ""


class DatasetParameters(Contract):
    """Stage `dataset`: read, validate, split in time."""

    stage: Literal[StageKind.DATASET] = StageKind.DATASET
    storage_uri: str
    revision: str
    format: Literal["Parquet", "CSV", "JSONLines", "RecBole"]
    columns: Columns = Columns()
    items: ItemSource
    label_threshold: float = 4.0
    split: Literal["PerUserTemporal", "GlobalTemporal"] = "PerUserTemporal"
    max_users: int | None = None
    """Keep only this many users (deterministic sample); None keeps all."""
    retrain: str | None = None
    """Token of a training that was asked for although nothing in spec changed: the data gets a new key."""


class KeywordsParameters(Contract):
    """Stage `keywords`: at most `max_keywords` words per item."""

    stage: Literal[StageKind.KEYWORDS] = StageKind.KEYWORDS
    source: Literal["Attributes", "LLM", "None"] = "Attributes"
    max_keywords: int = 10
    teacher: TeacherParameters | None = None
    """Set with `source: LLM`: who summarises (Self = the base model)."""
    base_model: BaseModelRef | None = None


class CollaborativeParameters(Contract):
    """Stage `collaborative`: the frozen CF encoder."""

    stage: Literal[StageKind.COLLABORATIVE] = StageKind.COLLABORATIVE
    encoder: Literal["MF", "LightGCN", "SASRec"] = "MF"
    dimension: int = 256
    epochs: int = 30
    learning_rate: float = 1e-3
    checkpoint_uri: str | None = None
    """The user's own safetensors with `user_vectors` and `item_vectors`; then nothing is trained.

    Rows are in the dataset's order of users and of items.
    """


class TeacherParameters(Contract):
    """Who writes reasoning: `Self` is the base model, `OpenAI` any compatible endpoint."""

    type: Literal["Self", "OpenAI"] = "Self"
    base_url: str | None = None
    model: str | None = None
    max_concurrency: int = 4
    max_rounds: int = 3
    max_tokens: int = 96
    """New tokens per answer."""


class TracesParameters(Contract):
    """Stage `traces`: thinking activation data (method.md, stage 4)."""

    stage: Literal[StageKind.TRACES] = StageKind.TRACES
    base_model: BaseModelRef
    teacher: TeacherParameters = TeacherParameters()
    pool_size: int = 256
    """Training samples scored by the base model to find the wrong ones."""
    max_samples: int = 64
    """Traces kept at most."""
    history_length: int = 10


class LoraParameters(Contract):
    """Low-rank adaptation: W + (alpha / rank) B A on the target modules."""

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.05
    target_modules: tuple[str, ...] = ("q_proj", "v_proj")


class LoopParameters(Contract):
    """One optimisation run: AdamW, linear warm-up, cosine to zero."""

    steps: int | None = None
    """Optimiser steps; exactly one of steps and epochs."""
    epochs: int | None = None
    learning_rate: float = 1e-4
    warmup_steps: int = 200
    """Optimiser steps; cut to a tenth of the run when the run is shorter than ten times this."""
    history_block: int = 16
    """Consecutive targets of one user that share one history (one sequence = one block)."""
    blocks_per_step: int = 1
    """History blocks per optimiser step (gradient accumulation)."""
    evaluate_every_steps: int = 50
    """Validation interval for early stopping on UAUC."""
    patience: int = 5
    """Evaluations without a better UAUC before the run stops."""
    validation_users: int = 40
    """At most; a short run validates on fewer, so that validation stays a small part of it."""


class AdapterParameters(Contract):
    """Stage `adapter` (1, thinking activation): one LoRA on text-only prompts."""

    stage: Literal[StageKind.ADAPTER] = StageKind.ADAPTER
    base_model: BaseModelRef
    lora: LoraParameters = LoraParameters()
    loop: LoopParameters = LoopParameters()
    trace_share: float = 0.2
    """Share of optimiser steps that take trace samples."""
    trace_weights: tuple[float, float] = (0.1, 0.9)
    """(a, b) of a*BCE + b*LM on trace samples."""
    plain_weights: tuple[float, float] = (0.9, 0.1)
    """(a, b) on plain samples; their text is the bare answer."""
    history_length: int = 10
    score: Literal["Yes", "YesMinusNo"] = "YesMinusNo"


class ProjectorParameters(Contract):
    """Stage `projector` (2): MLP d -> h*d -> D with ReLU; LoRA frozen."""

    stage: Literal[StageKind.PROJECTOR] = StageKind.PROJECTOR
    base_model: BaseModelRef
    hidden_multiplier: int = 10
    loop: LoopParameters = LoopParameters(learning_rate=1e-3)
    history_length: int = 10
    score: Literal["Yes", "YesMinusNo"] = "YesMinusNo"


class GateParameters(Contract):
    """Stage `gate`: user groups on standardised CF vectors and their means."""

    stage: Literal[StageKind.GATE] = StageKind.GATE
    method: Literal["Auto", "Ward", "MiniBatchKMeans"] = "Auto"
    """Auto: Ward up to 20 000 users, MiniBatchKMeans beyond."""
    count: int | None = None
    """Fixed number of groups K; None chooses min_count..max_count by silhouette."""
    min_count: int = 2
    max_count: int = 10


class ExpertParameters(Contract):
    """Stage `expert` (3): continue the general adapter on one group's users."""

    stage: Literal[StageKind.EXPERT] = StageKind.EXPERT
    base_model: BaseModelRef
    group: int
    """0-based group index."""
    name: str
    loop: LoopParameters = LoopParameters(learning_rate=1e-5)
    history_length: int = 10
    score: Literal["Yes", "YesMinusNo"] = "YesMinusNo"


class BundleParameters(Contract):
    """Stage `bundle`: everything one serving revision needs, in one immutable artifact."""

    stage: Literal[StageKind.BUNDLE] = StageKind.BUNDLE
    base_model: BaseModelRef
    temperature: float = 0.1
    hard_route_threshold: float | None = None
    """None: the method's 0.5 + 0.6 / K."""
    fusion: Literal["Exact", "PeftLinear"] = "Exact"
    score: Literal["Yes", "YesMinusNo"] = "YesMinusNo"
    history_length: int = 10
    golden_prompts: int = 8
    expert_names: tuple[str, ...] | None = None
    """The user's own names of the experts, by group; None names them by their roles, `expert-<k>`."""


class EvaluateParameters(Contract):
    """Stage `evaluate`: the fused model against its baselines on the test split, and the report page."""

    stage: Literal[StageKind.EVALUATE] = StageKind.EVALUATE
    max_users: int | None = None
    """Users drawn from the test split; None takes all."""
    max_rows_per_user: int = 40
    bootstrap_samples: int = 1000
    sampled_explanations: int = 5
    ablations: tuple[str, ...] = ("OneHot", "PeftLinear", "NoCollaborative")
    """Rows that need no further training."""
    metrics: tuple[str, ...] = ("AUC", "UAUC", "NDCG@5", "MAP@5")
    """AUC, UAUC, NDCG@k or MAP@k, as in `spec.evaluation.metrics`."""


class ScoreParameters(Contract):
    """Stage `score`: one variant of an experiment on the test rows of a dataset; its own scores, nothing measured."""

    stage: Literal[StageKind.SCORE] = StageKind.SCORE
    max_users: int | None = None
    """Users drawn from the test split; None takes all."""
    max_rows_per_user: int = 40


class CompareParameters(Contract):
    """Stage `compare`: the variants' scores on the same rows, measured and set against control's."""

    stage: Literal[StageKind.COMPARE] = StageKind.COMPARE
    variants: tuple[str, ...]
    """Control among them; the input of each is called `variant-<name>`."""
    control: str
    metrics: tuple[str, ...] = ("UAUC",)
    """AUC, UAUC, NDCG@k or MAP@k; the first one decides."""
    minimize: tuple[str, ...] = ()
    """Metrics of which less is better."""
    bootstrap_samples: int = 2000


class SimulateParameters(Contract):
    """Stage `simulate`: what users would have done from `start` to `end`, had they the taste that the test rows show.

    The scores of each variant are the inputs `variant-<name>`; the output has the layout of an event log.
    """

    stage: Literal[StageKind.SIMULATE] = StageKind.SIMULATE
    experiment: str
    """metadata.uid."""
    model: str
    """Name of the model whose gateway it would have been."""
    mode: TrafficMode
    control: str
    weights: tuple[tuple[str, int], ...]
    """(variant, percent), as in `thinkrec_crds.traffic.TrafficExperiment.weights`."""
    revisions: tuple[tuple[str, str], ...]
    """(variant, revision)."""
    start: AwareDatetime
    end: AwareDatetime
    users: int
    """Users who come in this time; those of an earlier time are others."""
    first_user: int = 0
    """Number of the first of them."""
    events: tuple[EventMetric, ...] = ()
    """The events that are measured: they happen when a user is shown something that he or she likes."""


class AnalyseParameters(Contract):
    """Stage `analyse`: one look at an experiment's users, from `start` up to, not including, `end`."""

    stage: Literal[StageKind.ANALYSE] = StageKind.ANALYSE
    experiment: str
    """metadata.uid."""
    model: str
    """Name of the model whose gateway shared out the users; its events lie below `events/<model>/`."""
    events_uri: str | None = None
    """Root of the store with the events; None: the inputs `events-<n>` hold them."""
    mode: TrafficMode
    control: str
    variants: tuple[str, ...]
    """In the manifest's order, control among them."""
    start: AwareDatetime
    end: AwareDatetime
    number: int
    """Counts the looks from 1."""
    analysis: Analysis | None = None
    """As in the manifest; None: of a Mirror, which has nothing to decide."""
    at_end: bool = False
    """Whether the planned time is over: a FixedHorizon decides only then."""


Parameters = Annotated[
    DatasetParameters
    | KeywordsParameters
    | CollaborativeParameters
    | TracesParameters
    | AdapterParameters
    | ProjectorParameters
    | GateParameters
    | ExpertParameters
    | BundleParameters
    | EvaluateParameters
    | ScoreParameters
    | CompareParameters
    | SimulateParameters
    | AnalyseParameters,
    Field(discriminator="stage"),
]


class InputRef(Contract):
    """A published artifact that a stage reads."""

    name: str
    """Role in the stage: the kind's name, or `expert-<k>` (0-based) for experts."""
    kind: StageKind
    key: Key
    uri: str
    digest: Digest
    """Digest of its manifest; a mismatch is bad input."""


SOURCE_PREFIX = "SOURCE_"
"""Prefix of the variables with an outside source's credentials (SOURCE_AWS_ACCESS_KEY_ID, SOURCE_HF_TOKEN, …) where the
store's own credentials use the plain names. A reader of sources tries these first."""


class StoreOptions(Contract):
    """How to reach the artifact store; credentials come from the environment only."""

    endpoint: str | None = None
    region: str | None = None


class CheckpointOptions(Contract):
    """Where unfinished work is kept."""

    storage_uri: str | None = None
    """None: beside the artifact, under `.checkpoints/<key>`."""
    period_seconds: int = 300
    resume_policy: Literal["Latest", "Never"] = "Latest"


class ComputeOptions(Contract):
    """Run-time choices that do not enter the key."""

    device: Literal["Auto", "Cpu", "Cuda"] = "Auto"
    precision: Literal["Auto", "Float32", "BFloat16", "Float16"] = "Auto"
    """Base-model weights; Auto is BFloat16 where the device computes it natively, else Float32."""
    threads: int | None = None
    """Torch threads; None takes the CPU limit of the container or the machine."""


class StageSpec(Contract):
    """The content of /etc/thinkrec/stage.json."""

    schema_version: Literal[1] = 1
    kind: StageKind
    name: str
    """Unique in its model: the kind, or `expert-<k>`."""
    key: Key
    semantics_version: int
    seed: int = 0
    parameters: Parameters
    inputs: tuple[InputRef, ...] = ()
    output_uri: str
    """Folder of the artifact: `<artifacts.storageUri>/<kind>/<key>`."""
    store: StoreOptions = StoreOptions()
    checkpoint: CheckpointOptions = CheckpointOptions()
    compute: ComputeOptions = ComputeOptions()

    def input(self, name: str) -> InputRef:
        """Return the input of that role; raise KeyError naming the roles there are."""
        for ref in self.inputs:
            if ref.name == name:
                return ref
        raise KeyError(f"stage {self.name} has no input {name!r}; it has {[ref.name for ref in self.inputs]}")


def stage_key(parameters: Contract, kind: StageKind, seed: int, input_keys: tuple[tuple[str, str], ...]) -> str:
    """Return the content key (40 hex digits) of a stage.

    The key covers kind, semantics version, seed, every parameter and the keys of the inputs (name, key); it leaves out
    image, resources, device, store and checkpoint options. Same key: the same work, never run again.
    """
    body = {
        "kind": kind.value,
        "semanticsVersion": SEMANTICS_VERSION[kind],
        "seed": seed,
        "parameters": parameters.model_dump(mode="json", by_alias=True, exclude_none=True),
        "inputs": sorted(input_keys),
    }
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:40]


KeywordsParameters.model_rebuild()
