# SPDX-License-Identifier: Apache-2.0
"""The loop's own decisions: how long, how fast, which weights are kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from support.llm_stages import MemoryCheckpoints, ProgressList, stage_context
from thinkrec_crds.stages import BaseModelRef, LoopParameters, ProjectorParameters
from thinkrec_trainer.blocks import PackedBlock
from thinkrec_trainer.cursor import Cursor
from thinkrec_trainer.errors import BadInput
from thinkrec_trainer.forward import Losses
from thinkrec_trainer.loop import Task, Trained, optimiser_steps, rate_factor, train
from thinkrec_trainer.validation import Validation, measure
from thinkrec_trainer.workbench import validation_count

BLOCK = PackedBlock((0,), (0,), (0,), (), (), (0,), (True,), (1.0,), (), (), ())


@dataclass
class Quadratic:
    """A "model" whose loss is (w - 3)^2 and whose device is the CPU: the loop's numbers can be followed by hand."""

    weight: nn.Parameter = field(default_factory=lambda: nn.Parameter(torch.zeros(1)))
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def losses(self, batch: Any) -> Losses:
        """One target per block."""
        loss = (self.weight - 3).square().sum()
        return Losses(total=loss, score=float(loss.detach()), targets=batch.targets)


@dataclass
class Scripted:
    """Validation by script; remembers the weights it saw."""

    model: Quadratic
    script: Sequence[float]
    seen: list[float] = field(default_factory=list)

    def __call__(self, model: Any, world: Any) -> Validation:
        """The script's next UAUC."""
        self.seen.append(float(self.model.weight.detach()))
        value = self.script[len(self.seen) - 1]
        return Validation(auc=value, uauc=value, users=1, rows=2)


def run(
    tmp_path: Path, script: Sequence[float], *, start: bool = False, **settings: Any
) -> tuple[Trained, Scripted, Any]:
    """Train the quadratic."""
    model = Quadratic()
    validator = Scripted(model, script)

    def draw(cursor: Cursor) -> list[PackedBlock]:
        cursor.deck("plain", 10).draw(1)
        return [BLOCK]

    task = Task(
        model=model,  # type: ignore[arg-type]
        module=nn.Dropout(),
        parameters={"weight": model.weight},
        draw=draw,
        epoch_blocks=10,
        validator=validator,  # type: ignore[arg-type]
        measure_start=start,
    )
    loop = LoopParameters(
        **{"steps": 12, "learning_rate": 0.1, "warmup_steps": 0, "evaluate_every_steps": 2, **settings}
    )
    parameters = ProjectorParameters(base_model=BaseModelRef(storage_uri="x"), loop=loop)
    checkpoint = MemoryCheckpoints(tmp_path / "checkpoints")
    context = stage_context(tmp_path / "out", parameters, {}, checkpoint=checkpoint)
    return train(task, loop, context), validator, context


def test_the_best_weights_are_kept_and_patience_ends_the_run(tmp_path: Path) -> None:
    """UAUC .6 .7 .65 .7 with patience 2: a tie is not better, so step 8 is the last one and step 4 the best."""
    trained, validator, _ = run(tmp_path, [0.6, 0.7, 0.65, 0.7], patience=2)
    assert trained.steps == 8
    assert float(trained.weights["weight"]) == validator.seen[1]
    assert trained.metrics == {"validation_auc": 0.7, "validation_uauc": 0.7}
    assert [point["step"] for point in trained.curve if "validation_uauc" in point] == [2, 4, 6, 8]


def test_a_trained_start_competes_for_the_best(tmp_path: Path) -> None:
    """Training that only makes it worse hands back what it began with."""
    trained, _, _ = run(tmp_path, [0.9, 0.8, 0.8, 0.8], start=True, patience=3)
    assert float(trained.weights["weight"]) == 0.0
    assert trained.metrics["validation_uauc"] == 0.9


def test_without_a_measurable_user_the_last_weights_are_kept(tmp_path: Path) -> None:
    """NaN is no quality: no early stop, no metric, the newest weights."""
    trained, validator, _ = run(tmp_path, [math.nan] * 6, patience=1)
    assert trained.steps == 12
    assert float(trained.weights["weight"]) == validator.seen[-1]
    assert trained.metrics == {}


def test_the_last_step_is_always_measured_and_progress_reaches_its_end(tmp_path: Path) -> None:
    """Although twelve is no multiple of seven."""
    trained, _, context = run(tmp_path, [0.5, 0.6], evaluate_every_steps=7)
    assert [point["step"] for point in trained.curve if "validation_uauc" in point] == [7, 12]
    assert isinstance(context.progress, ProgressList)
    step, total, metrics = context.progress.updates[-1]
    assert (step, total) == (12, 12)
    assert metrics["validation_uauc"] == 0.6
    assert metrics["train_loss"] < 9


def test_a_step_moves_as_adamw_does(tmp_path: Path) -> None:
    """Adam's first step has the length of the learning rate, whatever the (clipped) gradient."""
    trained, _, _ = run(tmp_path, [0.5], steps=1, learning_rate=0.25)
    assert float(trained.weights["weight"]) == pytest.approx(0.25, abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "blocks", "steps"),
    [
        ({"steps": 7}, 10, 7),
        ({"epochs": 2}, 10, 20),
        ({"epochs": 2, "blocks_per_step": 3}, 10, 7),
        ({}, 10, 10),
        ({"steps": 7}, 0, 0),
    ],
)
def test_how_long_a_run_is(settings: dict[str, int], blocks: int, steps: int) -> None:
    """Steps, epochs, neither (one epoch), and nothing to train on."""
    assert optimiser_steps(LoopParameters(**settings), blocks) == steps


def test_steps_and_epochs_exclude_each_other() -> None:
    """Even where there is nothing to train on."""
    with pytest.raises(BadInput, match="not both: got steps=1 and epochs=2"):
        optimiser_steps(LoopParameters(steps=1, epochs=2), 0)


def test_warm_up_then_cosine_to_zero() -> None:
    """Ten steps up, then half-way at the middle of the rest, and next to nothing at the end."""
    factors = [rate_factor(step, total=110, warmup=10) for step in range(110)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[10] == 1.0
    assert factors[60] == pytest.approx(0.5)
    assert 0 < factors[-1] < 0.001
    assert factors[10:] == sorted(factors[10:], reverse=True)


def test_the_warm_up_of_a_short_run_is_a_tenth_of_it() -> None:
    """Two hundred steps of warm-up would leave a run of forty steps at a fifth of its rate."""
    assert [rate_factor(step, total=40, warmup=200) for step in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1, 1])
    assert rate_factor(0, total=3, warmup=200) == 1.0


def test_short_runs_validate_on_fewer_users() -> None:
    """At most half as many users as blocks between two evaluations, but never fewer than four."""
    assert validation_count(LoopParameters(steps=1000), 5000) == 25
    assert validation_count(LoopParameters(steps=1000, blocks_per_step=8), 5000) == 40
    assert validation_count(LoopParameters(steps=12), 5000) == 6
    assert validation_count(LoopParameters(steps=2), 5000) == 4
    assert validation_count(LoopParameters(steps=2, validation_users=1), 5000) == 1


def test_metrics_of_two_users_by_hand() -> None:
    """User 0 is perfect, user 1 half right (a tie), user 2 has one class and does not count."""
    found = measure([0, 0, 1, 1, 2], [True, False, True, False, True], [2.0, 1.0, 5.0, 5.0, 0.0])
    assert found.uauc == 0.75
    assert found.users == 2
    assert found.auc == pytest.approx((1 + 1.5 + 0) / 6)
    assert found.quality == found.uauc


def test_quality_falls_back_to_auc_and_then_to_nothing() -> None:
    """One user with one class each: UAUC is undefined, AUC is not; one class alone has neither."""
    assert measure([0, 1], [True, False], [2.0, 1.0]).quality == 1.0
    assert measure([0, 1], [True, True], [2.0, 1.0]).quality is None
    assert measure([], [], []).quality is None
