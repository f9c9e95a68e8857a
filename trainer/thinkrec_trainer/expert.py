# SPDX-License-Identifier: Apache-2.0
"""Stage `expert-k` (3): continue the general adapter on one group's users, soft tokens in, projector frozen.

A group too small for the asked steps gets as many as its blocks allow for one epoch; a group without any block
publishes the general adapter unchanged, which the counts say (`steps` 0).
"""

from __future__ import annotations

import numpy as np
import polars as pl

from thinkrec_crds.stages import ExpertParameters, LoopParameters
from thinkrec_inference.engine.projector import PROJECTOR_NAME, Projector, soft_table
from thinkrec_trainer.context import LocalArtifact, StageContext, StageResult
from thinkrec_trainer.errors import BadInput
from thinkrec_trainer.forward import BlockModel
from thinkrec_trainer.loop import Task, optimiser_steps, train
from thinkrec_trainer.lora import load_lora, save_adapter, trained_parameters
from thinkrec_trainer.projector import read_collaborative
from thinkrec_trainer.samples import SCORE_ONLY
from thinkrec_trainer.timelines import Ints
from thinkrec_trainer.workbench import Workbench, invalid_as_bad_input, write_curve


def run(context: StageContext) -> StageResult:
    """Train one group's expert."""
    given = context.spec.parameters
    assert isinstance(given, ExpertParameters)
    bench = Workbench.open(context, given.base_model, history_length=given.history_length, soft=True)
    users = group_users(context.input("gate"), given.group)
    with invalid_as_bad_input():
        projector = Projector.load(context.input("projector").file(PROJECTOR_NAME))
    # Frozen, so every soft token is computed once and looked up afterwards.
    table = soft_table(projector, read_collaborative(context.input("collaborative"))).to(bench.device.device)
    model = load_lora(bench.base.model, context.input("adapter").path, trainable=True)
    index = bench.index(users, given.loop.history_block)
    settings = fitted(given.loop, len(index))
    task = Task(
        model=BlockModel(
            model.get_base_model(),
            yes=bench.base.yes_id,
            no=bench.base.no_id,
            score=given.score,
            soft=table.__getitem__,
        ),
        module=model,
        parameters=trained_parameters(model),
        draw=bench.drawer(index, SCORE_ONLY, blocks_per_step=settings.blocks_per_step),
        epoch_blocks=len(index),
        validator=bench.validator(users, settings, blocks=len(index), seed=context.spec.seed),
        measure_start=True,
    )
    trained = train(task, settings, context)

    save_adapter(context.output, model, trained.weights, base_model=given.base_model.storage_uri)
    write_curve(context.output, trained)
    return bench.result(trained, {"users": len(users), "train_blocks": len(index)})


def group_users(gate: LocalArtifact, group: int) -> Ints:
    """Return the user indices of a group, ascending; raise BadInput for a group that the gate does not have."""
    table = pl.read_parquet(gate.file("assignment.parquet"))
    groups = table["group"].unique().sort().to_list()
    if group not in groups:
        raise BadInput(f"expert group {group} is not in gate {gate.manifest.key}, which has groups {groups}")
    users: Ints = table.filter(pl.col("group") == group)["user_index"].sort().to_numpy().astype(np.int64)
    return users


def fitted(settings: LoopParameters, blocks: int) -> LoopParameters:
    """Return the settings with `steps` cut to one epoch of a small group: more would only repeat few rows."""
    epoch = optimiser_steps(settings.model_copy(update={"steps": None, "epochs": 1}), blocks)
    if settings.steps is None or settings.steps <= epoch:
        return settings
    return settings.model_copy(update={"steps": epoch})
