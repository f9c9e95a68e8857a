# SPDX-License-Identifier: Apache-2.0
"""The index of a serving bundle: `index.json` inside the `bundle` artifact.

Files of a bundle, beside `index.json`:

    adapters/general/, adapters/expert-<k>/   PEFT's own layout (adapter_config.json, adapter_model.safetensors)
    projector.safetensors                     fc1.weight (h, d), fc1.bias, fc2.weight (D, h), fc2.bias; fp32
    collaborative.safetensors                 user_vectors (U, d), item_vectors (I, d); fp32
    gate.safetensors                          centroids (K, d), mean (d,), std (d,); fp32
    items.parquet                             item_index, item_id, title, keywords (list)
    users.parquet                             user_index, user_id, group, history_items (list), history_likes (list),
                                              seen_items (list); item indices, oldest first
    golden.json                               GoldenFile
"""

from __future__ import annotations

from typing import Literal

from thinkrec_crds.artifact import Digest
from thinkrec_crds.contract import Contract
from thinkrec_crds.prompt import PromptTemplate
from thinkrec_crds.stages import BaseModelRef, LoraParameters

INDEX_NAME = "index.json"
GOLDEN_NAME = "golden.json"
GENERAL = "general"


class ExpertEntry(Contract):
    """One expert of the bundle."""

    name: str
    path: str
    """Folder inside the bundle."""
    users: int
    """Users of its group."""


class BundleIndex(Contract):
    """What a bundle holds and how it is to be used."""

    schema_version: Literal[1] = 1
    base_model: BaseModelRef
    base_model_digest: str
    tokenizer_digest: str
    hidden_size: int
    """D."""
    collaborative_dimension: int
    """d."""
    lora: LoraParameters
    general: str = "adapters/general"
    experts: tuple[ExpertEntry, ...]
    temperature: float
    hard_route_threshold: float
    uniform_entropy_share: float = 0.95
    """Entropy of the gate at or above this share of ln K takes the general adapter."""
    fusion: Literal["Exact", "PeftLinear"]
    score: Literal["Yes", "YesMinusNo"]
    history_length: int
    prompt: PromptTemplate
    users: int
    items: int
    inputs: dict[str, Digest]


class GoldenPrompt(Contract):
    """One stored score that every serving pod must reproduce."""

    user_id: str
    item_ids: tuple[str, ...]
    scores: tuple[float, ...]
    """fp32 logits of the float32 engine."""
    gates: tuple[float, ...]
    """K expert weights and, last, the general adapter's."""


class GoldenFile(Contract):
    """All golden prompts of a bundle."""

    precision: Literal["Float32"] = "Float32"
    tolerance: float = 1e-3
    """Largest accepted |difference| in Float32 on another machine; other precisions are checked by rank."""
    prompts: tuple[GoldenPrompt, ...]
