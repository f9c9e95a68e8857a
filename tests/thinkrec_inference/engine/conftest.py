# SPDX-License-Identifier: Apache-2.0
"""What the engine's tests share: the tiny base model, a catalogue, adapters with visible effect."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from support.bundles import make_bundle, write_adapter
from thinkrec_crds.prompt import ItemText
from thinkrec_inference.engine.base_model import BaseModel, load_base
from thinkrec_inference.engine.collaborative import Collaborative
from thinkrec_inference.engine.projector import Projector, input_table
from thinkrec_inference.engine.scorer import ScoreJob


@pytest.fixture(scope="session")
def base(tiny_llama_dir: Path) -> BaseModel:
    return load_base(tiny_llama_dir)


@pytest.fixture(scope="session")
def catalogue() -> tuple[ItemText, ...]:
    genres = ("drama", "film noir", "children's")
    return tuple(ItemText(i, f"{'The Long ' * (i % 3)}Story {i} ({1950 + i})", genres[: i % 4]) for i in range(16))


@pytest.fixture(scope="session")
def adapter_dirs(base: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Three experts and, last, the general adapter; strong enough to move the tiny model's scores by tenths."""
    root, generator = tmp_path_factory.mktemp("adapters"), torch.Generator().manual_seed(5)
    names = ("expert-0", "expert-1", "expert-2", "general")
    return tuple(write_adapter(root / name, base, generator, strength=0.5) for name in names)


@pytest.fixture(scope="session")
def collaborative() -> Collaborative:
    generator = torch.Generator().manual_seed(9)
    shapes = {"user_vectors": (6, 8), "item_vectors": (16, 8), "user_bias": (6,), "item_bias": (16,), "offset": (1,)}
    return Collaborative(**{name: torch.randn(shape, generator=generator) for name, shape in shapes.items()})


@pytest.fixture(scope="session")
def projector(collaborative: Collaborative, base: BaseModel) -> Projector:
    embeddings = base.model.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(11)
    return Projector.create(input_table(collaborative), hidden_size=16, embeddings=embeddings, generator=generator)


@pytest.fixture
def job() -> ScoreJob:
    history = tuple((index, index % 2 == 0) for index in range(5))
    return ScoreJob(history=history, candidates=(6, 15, 7, 9), user_index=3, gates=torch.tensor([0.5, 0.2, 0.3, 0.0]))


@pytest.fixture(scope="session")
def bundle_dir(tiny_llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "bundle", tiny_llama_dir)
