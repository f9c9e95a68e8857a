# SPDX-License-Identifier: Apache-2.0
"""Stage `adapter` (1, thinking activation): one LoRA on text-only prompts, part of the steps on reasoning traces.

Loss a*BCE + b*LM with (a, b) = (.1, .9) on trace samples and (.9, .1) on plain ones (ThinkRec, arXiv 2505.15091).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

import polars as pl

from thinkrec_crds.stages import AdapterParameters
from thinkrec_trainer.blocks import Block, PackedBlock, Target, make_block
from thinkrec_trainer.context import LocalArtifact, StageContext, StageResult
from thinkrec_trainer.cursor import Cursor
from thinkrec_trainer.forward import BlockModel
from thinkrec_trainer.loop import Task, train
from thinkrec_trainer.lora import add_lora, save_adapter, trained_parameters
from thinkrec_trainer.samples import Weights
from thinkrec_trainer.timelines import Timelines
from thinkrec_trainer.workbench import Workbench, write_curve

Draw = Callable[[Cursor], Sequence[PackedBlock]]


def run(context: StageContext) -> StageResult:
    """Train the general adapter."""
    given = context.spec.parameters
    assert isinstance(given, AdapterParameters)
    bench = Workbench.open(context, given.base_model, history_length=given.history_length, soft=False)
    traces = trace_blocks(bench.timelines, context.input("traces"), history_length=given.history_length)
    index = bench.index(bench.all_users(), given.loop.history_block)
    plain = bench.drawer(index, Weights(*given.plain_weights), blocks_per_step=given.loop.blocks_per_step)

    model = add_lora(bench.base.model, given.lora, seed=context.spec.seed)
    task = Task(
        model=BlockModel(model.get_base_model(), yes=bench.base.yes_id, no=bench.base.no_id, score=given.score),
        module=model,
        parameters=trained_parameters(model),
        draw=with_traces(plain, bench, traces, given) if traces else plain,
        epoch_blocks=len(index),
        validator=bench.validator(bench.all_users(), given.loop, blocks=len(index), seed=context.spec.seed),
    )
    trained = train(task, given.loop, context)

    save_adapter(context.output, model, trained.weights, base_model=given.base_model.storage_uri)
    write_curve(context.output, trained)
    return bench.result(trained, {"traces": sum(len(block.targets) for block in traces), "train_blocks": len(index)})


def with_traces(plain: Draw, bench: Workbench, traces: Sequence[Block], given: AdapterParameters) -> Draw:
    """Return a drawer that takes traces in `trace_share` of the steps, plain blocks in the others."""
    weights = Weights(*given.trace_weights)

    def draw(cursor: Cursor) -> Sequence[PackedBlock]:
        if cursor.chance("trace") >= given.trace_share:
            return plain(cursor)
        numbers = cursor.deck("traces", len(traces)).draw(given.loop.blocks_per_step)
        return [bench.packer.pack(traces[number], weights) for number in numbers]

    return draw


def trace_blocks(timelines: Timelines, artifact: LocalArtifact, *, history_length: int) -> list[Block]:
    """Return the traces as blocks: those of one user that were written for the same history share it."""
    table = pl.read_parquet(artifact.file("traces.parquet")).sort("user_index", "history_end", "position")
    columns = table.select("user_index", "history_end", "position", "reason").iter_rows()
    blocks = []
    for (user, start), members in groupby(columns, key=lambda row: (row[0], row[1])):
        rows = timelines.rows(user)
        targets = [Target(position, rows[position], text=reason) for _, _, position, reason in members]
        blocks.append(make_block(rows, targets, user_index=user, start=start, history_length=history_length))
    return blocks
