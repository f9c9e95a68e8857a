# SPDX-License-Identifier: Apache-2.0
"""What a training run knows beside its weights, and how both lie in a checkpoint (safetensors and JSON only)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from thinkrec_trainer.cursor import Cursor
from thinkrec_trainer.errors import BadInput
from thinkrec_trainer.validation import Validation

TENSORS_NAME = "run.safetensors"
STATE_NAME = "run.json"
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(slots=True)
class RunState:
    """Progress of one run."""

    cursor: Cursor
    samples: int = 0
    """Targets trained on."""
    best: dict[str, Tensor] = field(default_factory=dict)
    best_metrics: dict[str, float] = field(default_factory=dict)
    best_quality: float | None = None
    stale: int = 0
    """Evaluations since the best one."""
    curve: list[dict[str, float]] = field(default_factory=list)
    loss_sum: float = 0.0
    """BCE summed over the targets since the curve's last point."""
    loss_targets: int = 0
    seconds: float = 0.0

    def add(self, loss: float, targets: int) -> None:
        """Count one step's loss."""
        self.loss_sum += loss
        self.loss_targets += targets
        self.samples += targets

    def judge(self, found: Validation, parameters: Mapping[str, nn.Parameter]) -> None:
        """Keep the weights if `found` beats the best so far; without anything measurable the newest ones are kept."""
        quality = found.quality
        if quality is not None and self.best_quality is not None and quality <= self.best_quality:
            self.stale += 1
            return
        self.stale = 0
        self.best = {name: value.detach().cpu().clone() for name, value in parameters.items()}
        self.best_quality, self.best_metrics = quality, found.metrics()

    def point(self, seconds: float, found: Validation | None = None) -> None:
        """Add a point to the curve."""
        entry: dict[str, float] = {"step": self.cursor.step, "seconds": round(seconds, 3)}
        if self.loss_targets:
            entry["train_loss"] = self.loss_sum / self.loss_targets
        self.curve.append(entry | (found.metrics() if found else {}))
        self.loss_sum, self.loss_targets = 0.0, 0

    def latest(self) -> dict[str, float]:
        """Return the newest loss and UAUC for the progress line."""
        running = {"train_loss": self.loss_sum / self.loss_targets} if self.loss_targets else {}
        names = ("train_loss", "validation_uauc")
        seen = {name: entry[name] for entry in self.curve for name in names if name in entry}
        return seen | running


def save(folder: Path, run: RunState, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.AdamW) -> None:
    """Write a checkpoint into an empty folder."""
    tensors = {f"weight/{name}": value.detach() for name, value in parameters.items()}
    tensors |= {f"best/{name}": value for name, value in run.best.items()}
    for name, parameter in parameters.items():
        for moment in _MOMENTS:
            if moment in optimizer.state[parameter]:
                tensors[f"{moment}/{name}"] = optimizer.state[parameter][moment]
    save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, folder / TENSORS_NAME)
    names = ("samples", "best_metrics", "best_quality", "stale", "curve", "loss_sum", "loss_targets", "seconds")
    state = {name: getattr(run, name) for name in names}
    (folder / STATE_NAME).write_text(json.dumps({"cursor": run.cursor.state(), **state}))


def restore(folder: Path, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.AdamW) -> RunState:
    """Put a checkpoint's weights and optimiser state back, return the run; raise BadInput if it is of another run."""
    tensors = load_file(folder / TENSORS_NAME)
    state: dict[str, Any] = json.loads((folder / STATE_NAME).read_text())
    missing = [name for name in parameters if f"weight/{name}" not in tensors]
    if missing:
        raise BadInput(
            f"the checkpoint lacks {missing[:3]}: it is of another run; set checkpoint.resumePolicy to Never"
        )
    run = RunState(Cursor.restore(**state.pop("cursor")), **state)
    for name, parameter in parameters.items():
        parameter.data.copy_(tensors[f"weight/{name}"])
        if f"exp_avg/{name}" in tensors:
            moments = {moment: tensors[f"{moment}/{name}"].to(parameter.device) for moment in _MOMENTS}
            optimizer.state[parameter] = {"step": torch.tensor(float(run.cursor.step)), **moments}
    run.best = {name.removeprefix("best/"): value for name, value in tensors.items() if name.startswith("best/")}
    return run
