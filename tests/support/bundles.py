# SPDX-License-Identifier: Apache-2.0
"""Small synthetic bundles with known structure, made from nothing but a base model folder and a seed.

    bundle = make_bundle(tmp_path / "bundle", base_dir)          # folder as an engine loads it, golden.json included
    engine = Engine.load(bundle, base_dir, ComputeOptions())

Users `u0` ... of group g have CF vectors near centroid g. The last two users have special routes: `uniform` sits
between all centroids (general branch), `mixed` between the first two (fused branch). `cold` has no group.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch
from safetensors.torch import save_file

from thinkrec_crds.bundle import GOLDEN_NAME, INDEX_NAME, BundleIndex, ExpertEntry
from thinkrec_crds.engine_api import ScoreRequest
from thinkrec_crds.prompt import PromptTemplate
from thinkrec_crds.stages import BaseModelRef, ComputeOptions, LoraParameters
from thinkrec_inference.engine.base_model import BaseModel, load_base
from thinkrec_inference.engine.collaborative import Collaborative
from thinkrec_inference.engine.engine import Engine
from thinkrec_inference.engine.projector import Projector, input_table

FLOAT32 = ComputeOptions(device="Cpu", precision="Float32")
_WORDS = ("River", "Winter", "Silent", "Empire", "Garden", "Midnight", "Letters", "Hunter", "Golden", "Storm")
_GENRES = ("drama", "war", "comedy", "film noir", "science fiction", "romance")


@dataclass(frozen=True, slots=True)
class BundleShape:
    """How large a synthetic bundle is."""

    items: int = 24
    users_per_group: int = 3
    groups: int = 3
    dimension: int = 8
    rank: int = 4
    alpha: int = 8
    history: int = 4
    adapter_strength: float = 0.05
    """Deviation of the random entries of B; larger moves scores more."""

    @property
    def users(self) -> int:
        """Users of all groups and the three special ones."""
        return self.users_per_group * self.groups + 3


def make_bundle(
    folder: Path,
    base_dir: Path,
    *,
    seed: int = 0,
    shape: BundleShape | None = None,
    golden: bool = True,
    fusion: str = "Exact",
    score: str = "YesMinusNo",
) -> Path:
    """Write a loadable bundle to `folder` and return it; the same seed gives the same files."""
    shape = shape or BundleShape()
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    base = load_base(base_dir)
    collaborative, centroids = _vectors(shape, generator)
    collaborative.save(folder / "collaborative.safetensors")
    statistics = {"mean": torch.zeros(shape.dimension), "std": torch.ones(shape.dimension)}
    save_file({"centroids": centroids, **statistics}, folder / "gate.safetensors")
    _projector(collaborative, base, generator).save(folder / "projector.safetensors")
    _adapters(folder, base, shape, generator)
    _items(shape).write_parquet(folder / "items.parquet")
    _users(shape, generator).write_parquet(folder / "users.parquet")
    (folder / INDEX_NAME).write_text(_index(shape, base, fusion=fusion, score=score).to_json(indent=2))
    if golden:
        write_golden(folder, base_dir)
    return folder


def write_golden(folder: Path, base_dir: Path) -> None:
    """Score a few users of every branch with the Float32 engine and store the answers."""
    engine = Engine.load(folder, base_dir, FLOAT32, golden=False)
    requests = [ScoreRequest(user_id=u, item_ids=("i1", "i2", "i3")) for u in ("u0", "mixed", "uniform", "cold")]
    (folder / GOLDEN_NAME).write_text(engine.make_golden(requests).to_json(indent=2))


def write_adapter(
    folder: Path,
    base: BaseModel,
    generator: torch.Generator,
    *,
    rank: int = 4,
    alpha: int = 8,
    strength: float = 0.05,
    targets: tuple[str, ...] = ("q_proj", "v_proj"),
) -> Path:
    """Write a random LoRA in PEFT's own layout."""
    folder.mkdir(parents=True)
    tensors: dict[str, torch.Tensor] = {}
    for name, module in base.model.named_modules():
        if isinstance(module, torch.nn.Linear) and name.rsplit(".", 1)[-1] in targets:
            down = torch.randn(rank, module.in_features, generator=generator) / module.in_features**0.5
            up = torch.randn(module.out_features, rank, generator=generator) * strength
            tensors[f"base_model.model.{name}.lora_A.weight"] = down
            tensors[f"base_model.model.{name}.lora_B.weight"] = up
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.05,
        "target_modules": list(targets),
        "bias": "none",
        "use_rslora": False,
        "inference_mode": True,
        "base_model_name_or_path": "",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def _vectors(shape: BundleShape, generator: torch.Generator) -> tuple[Collaborative, torch.Tensor]:
    """Return CF vectors whose users lie in groups around orthogonal centroids, and these centroids."""
    centroids = torch.eye(shape.groups, shape.dimension)
    grouped = centroids.repeat_interleave(shape.users_per_group, 0)
    grouped = grouped + 0.01 * torch.randn(grouped.shape, generator=generator)
    uniform = centroids.mean(0, keepdim=True)
    mixed = centroids[:1] + 0.95 * centroids[1:2]
    cold = torch.zeros(1, shape.dimension)
    made = Collaborative(
        user_vectors=torch.cat([grouped, mixed, uniform, cold]),
        item_vectors=torch.randn(shape.items, shape.dimension, generator=generator),
        user_bias=torch.randn(shape.users, generator=generator),
        item_bias=torch.randn(shape.items, generator=generator),
        offset=torch.zeros(1),
    )
    return made, centroids


def _projector(collaborative: Collaborative, base: BaseModel, generator: torch.Generator) -> Projector:
    embeddings = base.model.get_input_embeddings().weight
    assert isinstance(embeddings, torch.Tensor)
    return Projector.create(input_table(collaborative), hidden_size=16, embeddings=embeddings, generator=generator)


def _adapters(folder: Path, base: BaseModel, shape: BundleShape, generator: torch.Generator) -> None:
    for name in ("general", *(f"expert-{k}" for k in range(shape.groups))):
        write_adapter(
            folder / "adapters" / name,
            base,
            generator,
            rank=shape.rank,
            alpha=shape.alpha,
            strength=shape.adapter_strength,
        )


def _items(shape: BundleShape) -> pl.DataFrame:
    words, genres = len(_WORDS), len(_GENRES)
    titles = [f"The {_WORDS[i % words]} {_WORDS[(3 * i + 1) % words]} ({1950 + i})" for i in range(shape.items)]
    keywords = [[_GENRES[i % genres], _GENRES[(i + 2) % genres]][: i % 3] for i in range(shape.items)]
    return pl.DataFrame(
        {"item_id": [f"i{i}" for i in range(shape.items)], "title": titles, "keywords": keywords},
        schema_overrides={"keywords": pl.List(pl.String)},
    ).with_row_index("item_index")


def _users(shape: BundleShape, generator: torch.Generator) -> pl.DataFrame:
    grouped = shape.users_per_group * shape.groups
    ids = [*(f"u{i}" for i in range(grouped)), "mixed", "uniform", "cold"]
    groups = [*(i // shape.users_per_group for i in range(grouped)), 0, 0, None]
    histories = [torch.randperm(shape.items, generator=generator)[: shape.history].tolist() for _ in ids]
    histories[-1] = []
    return pl.DataFrame(
        {
            "user_index": range(shape.users),
            "user_id": ids,
            "group": groups,
            "history_items": histories,
            "history_likes": [[item % 2 == 0 for item in h] for h in histories],
            "seen_items": histories,
        },
        schema_overrides={"user_index": pl.Int32, "group": pl.Int32, "history_items": pl.List(pl.Int32)},
    )


def _index(shape: BundleShape, base: BaseModel, *, fusion: str, score: str) -> BundleIndex:
    experts = tuple(
        ExpertEntry(name=f"expert-{k}", path=f"adapters/expert-{k}", users=shape.users_per_group)
        for k in range(shape.groups)
    )
    body = {
        "base_model": BaseModelRef(storage_uri="file:///models/tiny"),
        "base_model_digest": base.digest,
        "tokenizer_digest": base.tokenizer_digest,
        "hidden_size": base.hidden_size,
        "collaborative_dimension": shape.dimension,
        "lora": LoraParameters(rank=shape.rank, alpha=shape.alpha),
        "experts": experts,
        "temperature": 0.3,
        "hard_route_threshold": 0.8,
        "fusion": fusion,
        "score": score,
        "history_length": shape.history,
        "prompt": PromptTemplate(),
        "users": shape.users,
        "items": shape.items,
        "inputs": {},
    }
    return BundleIndex.model_validate(body)
