# SPDX-License-Identifier: Apache-2.0
"""Everything an evaluation reads, made by the real stages from the checkerboard of `block_world` and a tiny base model.

The CF encoder learns the checkerboard; the adapters are random, so the language model knows nothing: who must win is
known.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl
import torch

from support import block_world
from support.block_world import write_block_world
from support.bundles import write_adapter
from support.llm_stages import seal, stage_context
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_crds.stages import BaseModelRef, BundleParameters, CollaborativeParameters, GateParameters
from thinkrec_inference.engine.base_model import BaseModel, load_base
from thinkrec_inference.engine.collaborative import COLLABORATIVE_NAME, Collaborative
from thinkrec_inference.engine.projector import PROJECTOR_NAME, Projector, input_table
from thinkrec_trainer import bundle, collaborative, gate
from thinkrec_trainer.context import LocalArtifact, StageContext, StageResult

GROUPS = 3
HISTORY = 5
Inputs = dict[str, LocalArtifact]


def published(context: StageContext, result: StageResult) -> LocalArtifact:
    """Seal what a stage wrote, its metrics included."""
    made = seal(context.output, context.spec.kind)
    update = {"metrics": dict(result.metrics), "counts": dict(result.counts)}
    return LocalArtifact(made.path, made.manifest.model_copy(update=update), made.digest)


def build(root: Path, base_dir: Path, *, temperature: float = 0.9) -> Inputs:
    """Run collaborative, gate and bundle; adapters and projector are random."""
    inputs: Inputs = {"dataset": write_block_world(root / "dataset"), "keywords": _keywords(root / "keywords")}
    cf = CollaborativeParameters(dimension=8, epochs=25, learning_rate=1e-2)
    context = stage_context(root / "collaborative", cf, inputs)
    inputs["collaborative"] = published(context, collaborative.run(context))
    context = stage_context(root / "gate", GateParameters(count=GROUPS), inputs)
    inputs["gate"] = published(context, gate.run(context))
    base = load_base(base_dir)
    inputs |= _random_parts(root, base)
    given = BundleParameters(
        base_model=BaseModelRef(storage_uri=str(base_dir)),
        temperature=temperature,
        history_length=HISTORY,
        golden_prompts=2,
    )
    context = stage_context(root / "bundle", given, inputs)
    inputs["bundle"] = published(context, bundle.run(context))
    return {name: one for name, one in inputs.items() if name not in ("keywords", "projector")}


def _keywords(folder: Path) -> LocalArtifact:
    folder.mkdir()
    index = range(block_world.ITEMS)
    words = [[("red", "green", "blue")[item % GROUPS]] for item in index]
    table = {"item_index": index, "digest": [str(item) for item in index], "keywords": words}
    pl.DataFrame(table).write_parquet(folder / "keywords.parquet")
    return seal(folder, StageKind.KEYWORDS)


def _random_parts(root: Path, base: BaseModel) -> Inputs:
    generator = torch.Generator().manual_seed(5)
    vectors = Collaborative.load(root / "collaborative" / COLLABORATIVE_NAME)
    embeddings = base.model.get_input_embeddings().weight.detach()
    projector = Projector.create(input_table(vectors), hidden_size=8, embeddings=embeddings, generator=generator)
    with torch.no_grad():
        projector.fc2.weight.mul_(0.1)  # or a lucky random direction would let the vectors' knowledge through
    (root / "projector").mkdir()
    projector.save(root / "projector" / PROJECTOR_NAME)
    made = {"projector": seal(root / "projector", StageKind.PROJECTOR)}
    for name in ("adapter", *(f"expert-{group}" for group in range(GROUPS))):
        write_adapter(root / name, base, generator, strength=0.3)
        (root / name / "curve.json").write_text(
            '[{"step": 1, "train_loss": 0.7, "validation_uauc": 0.5, "seconds": 1.0},'
            ' {"step": 2, "train_loss": 0.6, "validation_uauc": 0.52, "seconds": 2.0}]'
        )
        made[name] = seal(root / name, StageKind.ADAPTER if name == "adapter" else StageKind.EXPERT)
    return made
