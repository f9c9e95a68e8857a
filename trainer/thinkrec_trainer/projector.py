# SPDX-License-Identifier: Apache-2.0
"""Stage `projector` (2): the MLP that turns frozen CF vectors into soft tokens; base model and adapter stay frozen.

Inputs are standardised per dimension and carry the CF bias and a user/item flag; the last layer begins at the spread of
real token embeddings (thinkrec_inference.engine.projector).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from thinkrec_crds.stages import ProjectorParameters
from thinkrec_inference.engine.base_model import BaseModel
from thinkrec_inference.engine.collaborative import COLLABORATIVE_NAME, Collaborative
from thinkrec_inference.engine.projector import PROJECTOR_NAME, Projector, input_table
from thinkrec_trainer.context import LocalArtifact, StageContext, StageResult
from thinkrec_trainer.cursor import derived_seed
from thinkrec_trainer.forward import BlockModel
from thinkrec_trainer.loop import Task, train
from thinkrec_trainer.lora import load_lora
from thinkrec_trainer.samples import SCORE_ONLY
from thinkrec_trainer.workbench import Workbench, invalid_as_bad_input, write_curve


def run(context: StageContext) -> StageResult:
    """Train the projector under the frozen general adapter."""
    given = context.spec.parameters
    assert isinstance(given, ProjectorParameters)
    bench = Workbench.open(context, given.base_model, history_length=given.history_length, soft=True)
    collaborative = read_collaborative(context.input("collaborative"))
    model = load_lora(bench.base.model, context.input("adapter").path, trainable=False).eval()
    device = bench.device.device
    inputs = input_table(collaborative)
    projector = Projector.create(
        inputs,
        hidden_size=given.hidden_multiplier * collaborative.dimension,
        embeddings=embedding_table(bench.base),
        generator=torch.Generator().manual_seed(derived_seed(context.spec.seed, "projector")),
    ).to(device)
    index = bench.index(bench.all_users(), given.loop.history_block)
    task = Task(
        model=BlockModel(
            model.get_base_model(),
            yes=bench.base.yes_id,
            no=bench.base.no_id,
            score=given.score,
            soft=soft_rows(projector, inputs.to(device)),
        ),
        module=projector,
        parameters=dict(projector.named_parameters()),
        draw=bench.drawer(index, SCORE_ONLY, blocks_per_step=given.loop.blocks_per_step),
        epoch_blocks=len(index),
        validator=bench.validator(bench.all_users(), given.loop, blocks=len(index), seed=context.spec.seed),
    )
    trained = train(task, given.loop, context)

    with torch.no_grad():
        for name, parameter in projector.named_parameters():
            parameter.copy_(trained.weights[name])
    projector.save(context.output / PROJECTOR_NAME)
    write_curve(context.output, trained)
    return bench.result(trained, {"train_blocks": len(index)})


def embedding_table(base: BaseModel) -> Tensor:
    """Return the (V, D) token embeddings."""
    embedding: Any = base.model.get_input_embeddings()
    weight: Tensor = embedding.weight
    return weight.detach()


def soft_rows(projector: Projector, inputs: Tensor) -> Callable[[Tensor], Tensor]:
    """Return (S,) rows -> (S, D) soft tokens; only the rows of a batch pass through the projector."""

    def rows(wanted: Tensor) -> Tensor:
        out: Tensor = projector.forward(inputs[wanted])
        return out

    return rows


def read_collaborative(artifact: LocalArtifact) -> Collaborative:
    """Return the frozen CF vectors of an artifact."""
    with invalid_as_bad_input():
        return Collaborative.load(artifact.file(COLLABORATIVE_NAME))
