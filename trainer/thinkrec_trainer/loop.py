# SPDX-License-Identifier: Apache-2.0
"""The one training loop, top to bottom: adapter, projector and experts differ only in the `Task` they hand in.

Every number of a step is a function of (seed, step, weights, optimiser state), so a run that was stopped and resumed
ends with the same bytes as one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from thinkrec_crds.stages import LoopParameters
from thinkrec_trainer.batches import collate
from thinkrec_trainer.blocks import PackedBlock
from thinkrec_trainer.context import StageContext
from thinkrec_trainer.cursor import Cursor
from thinkrec_trainer.distributed import ALONE, World
from thinkrec_trainer.errors import BadInput
from thinkrec_trainer.forward import BlockModel
from thinkrec_trainer.lora import seeded
from thinkrec_trainer.run_state import RunState, restore, save
from thinkrec_trainer.validation import Validator

WEIGHT_DECAY = 0.01
"""AdamW's usual value; adapters and projector are small beside the frozen base, so it hardly matters."""
LARGEST_GRADIENT = 1.0
"""Gradient norm beyond which a step is scaled down: one odd block must not undo the run."""
CURVE_POINTS = 40
"""Training-loss points of a whole run's curve."""


@dataclass(frozen=True, slots=True)
class Task:
    """What one stage trains, on what."""

    model: BlockModel
    module: nn.Module
    """What is put into training mode (dropout on) during steps; frozen parts outside it stay in evaluation mode."""
    parameters: Mapping[str, nn.Parameter]
    """What is trained, by stable name."""
    draw: Callable[[Cursor], Sequence[PackedBlock]]
    """The blocks of the cursor's step."""
    epoch_blocks: int
    """Blocks of one pass over the training rows; 0: there is nothing to train on."""
    validator: Validator
    measure_start: bool = False
    """Whether the untrained state competes for the best weights (it is a trained model already)."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a run ends with."""

    weights: Mapping[str, Tensor]
    """The best weights by validation (the last ones where nothing could be measured), on the CPU."""
    curve: Sequence[Mapping[str, float]]
    metrics: Mapping[str, float]
    steps: int
    samples: int


def train(task: Task, settings: LoopParameters, context: StageContext) -> Trained:
    """Run AdamW with warm-up, cosine, clipping and early stopping on validation UAUC; raise Interrupted on SIGTERM."""
    # 1. Begin, or go on where the newest checkpoint stands.
    world = context.world or ALONE
    _require_work(world, settings)
    total = optimiser_steps(settings, task.epoch_blocks)
    optimizer = torch.optim.AdamW(task.parameters.values(), lr=settings.learning_rate, weight_decay=WEIGHT_DECAY)
    checkpoint = context.checkpoint.load()
    run = RunState(Cursor(context.spec.seed)) if checkpoint is None else restore(checkpoint, task.parameters, optimizer)
    world.copy_first(task.parameters.values())
    clock = _Clock(run.seconds)
    task.module.train()
    if task.measure_start and not run.curve:
        _assess(task, run, clock, world)

    while run.cursor.step < total and run.stale < settings.patience:
        # 2. The gradient of this step's blocks.
        rate = settings.learning_rate * rate_factor(run.cursor.step, total=total, warmup=settings.warmup_steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        blocks = task.draw(run.cursor)
        targets = sum(len(block.labels) for block in blocks)
        run.add(world.total(_backward(task.model, blocks, run.cursor, targets, world)), targets)
        world.add_up(_gradients(task.parameters, world))

        # 3. The update.
        torch.nn.utils.clip_grad_norm_(task.parameters.values(), LARGEST_GRADIENT)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        run.cursor.step += 1

        # 4. How good is it now?
        last = run.cursor.step == total
        if last or run.cursor.step % settings.evaluate_every_steps == 0:
            _assess(task, run, clock, world)
        elif run.cursor.step % max(1, total // CURVE_POINTS) == 0:
            run.point(clock.seconds())

        # 5. Say so, and keep the state.
        context.progress.update(run.cursor.step, total, metrics=run.latest())
        if context.checkpoint.due() or context.checkpoint.interrupted:
            run.seconds = clock.seconds()
            context.checkpoint.save(lambda folder: save(folder, run, task.parameters, optimizer))
            context.checkpoint.raise_if_interrupted()

    # 6. Hand back the best weights seen.
    weights = run.best or {name: value.detach().cpu().clone() for name, value in task.parameters.items()}
    return Trained(weights, run.curve, run.best_metrics, run.cursor.step, run.samples)


def optimiser_steps(settings: LoopParameters, epoch_blocks: int) -> int:
    """Return the run's length; neither steps nor epochs means one epoch, and without blocks there is no step.

    Raise BadInput when both are given.
    """
    if settings.steps is not None and settings.epochs is not None:
        raise BadInput(f"give steps or epochs, not both: got steps={settings.steps} and epochs={settings.epochs}")
    if epoch_blocks == 0:
        return 0
    if settings.steps is not None:
        return settings.steps
    return math.ceil((settings.epochs or 1) * epoch_blocks / settings.blocks_per_step)


def rate_factor(step: int, *, total: int, warmup: int) -> float:
    """Return the share of the peak learning rate at 0-based `step`: linear warm-up, then cosine to zero.

    The warm-up is cut to a tenth of a run that is shorter than ten times it.
    """
    warm = min(warmup, total // 10)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


def _backward(model: BlockModel, blocks: Sequence[PackedBlock], cursor: Cursor, targets: int, world: World) -> float:
    """Accumulate this process's part of the gradient of the mean loss over the step's `targets`; return its summed BCE.

    A CPU gains nothing from padding blocks to one length, so there each one is a pass of its own, whose dropout depends
    on its place in the step alone: so it does not matter which process has it.
    """
    places = world.places(len(blocks))
    groups = [places] if model.device.type == "cuda" else [[place] for place in places]
    score = 0.0
    for group in groups:
        with seeded(cursor.step_seed(_dropout(group[0]))):
            losses = model.losses(collate([blocks[place] for place in group]).to(model.device))
            torch.autograd.backward(losses.total / targets)
        score += losses.score
    return score


def _dropout(place: int) -> str:
    """Name the randomness of a block; the first one's is that of the step."""
    return f"dropout/{place}" if place else "dropout"


def _gradients(parameters: Mapping[str, nn.Parameter], world: World) -> list[Tensor]:
    """Return the gradients to be summed, zero where this process had no block for a parameter; none for one alone."""
    if world.size == 1:
        return []
    for parameter in parameters.values():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    return [parameter.grad for parameter in parameters.values() if parameter.grad is not None]


def _require_work(world: World, settings: LoopParameters) -> None:
    if settings.blocks_per_step < world.size:
        raise BadInput(
            f"{world.size} processes train together, but a step has {settings.blocks_per_step} block(s): "
            f"{world.size - settings.blocks_per_step} would have nothing to do. Raise blocksPerStep to at least "
            f"{world.size}, or lower the stage's nodes or GPUs"
        )


def _assess(task: Task, run: RunState, clock: _Clock, world: World) -> None:
    """Validate, and keep the weights if they are the best so far."""
    task.module.eval()
    found = task.validator(task.model, world)
    task.module.train()
    run.judge(found, task.parameters)
    run.point(clock.seconds(), found)


@dataclass(slots=True)
class _Clock:
    """Seconds of training over all attempts."""

    before: float
    started: float = 0.0

    def __post_init__(self) -> None:
        self.started = time.perf_counter()

    def seconds(self) -> float:
        return self.before + time.perf_counter() - self.started
