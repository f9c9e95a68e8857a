# SPDX-License-Identifier: Apache-2.0
"""The training loop of all encoders: AdamW on shuffled minibatches, early stopping on validation UAUC, checkpoints."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from thinkrec_inference.engine.collaborative import Collaborative
from thinkrec_trainer.context import CheckpointStore, ProgressSink
from thinkrec_trainer.encoders.scores import pair_scores
from thinkrec_trainer.interactions import Interactions
from thinkrec_trainer.metrics import Rows, auc, mean_over_users, per_user_auc

WEIGHTS = "encoder.safetensors"
STATE = "encoder.json"


class Encoder(Protocol):
    """What the loop needs of an encoder."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return name -> learnt leaf tensor; the loop updates them in place."""

    def units(self) -> int:
        """Return how many training units (rows or windows) one epoch shuffles."""

    def loss(self, index: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return the mean loss of the units at `index`; `generator` feeds dropout."""

    def vectors(self) -> Collaborative:
        """Return the artifact of the present tensors, cold rows included as they are."""


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How the loop runs."""

    epochs: int
    learning_rate: float
    batch: int
    """Units per optimiser step."""
    weight_decay: float
    """AdamW's decoupled decay per unit of learning rate."""
    patience: int = 4
    """Epochs without a better validation UAUC before the loop stops."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Quality:
    """Validation metrics of one state."""

    auc: float
    uauc: float

    def selection(self) -> float:
        """Return what early stopping maximises: UAUC, or AUC where no user has both classes; -inf without either."""
        for value in (self.uauc, self.auc):
            if not np.isnan(value):
                return value
        return float("-inf")


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One epoch of `curve.json`."""

    step: int
    train_loss: float
    validation_auc: float | None
    validation_uauc: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class FitState:
    """Everything of a run that is not a tensor."""

    epoch: int = 0
    """Finished epochs."""
    best_epoch: int = 0
    best_score: float = float("-inf")
    seconds: float = 0.0
    curve: tuple[CurvePoint, ...] = ()


@dataclass(slots=True)
class Run:
    """The mutable part of a run."""

    optimizer: torch.optim.AdamW
    generator: torch.Generator
    best: dict[str, torch.Tensor]
    """Tensors of the best epoch so far."""
    state: FitState = field(default_factory=FitState)


def quality(vectors: Collaborative, rows: Interactions) -> Quality:
    """Return AUC and UAUC of the vectors' scores on `rows`."""
    judged = Rows.of(rows.users, rows.liked, pair_scores(vectors, rows.users, rows.items), user_count=rows.user_count)
    return Quality(auc(judged), mean_over_users(per_user_auc(judged)).value)


def fit(
    encoder: Encoder,
    validation: Interactions,
    options: FitOptions,
    *,
    progress: ProgressSink,
    checkpoint: CheckpointStore,
    label: str = "",
) -> FitState:
    """Train until `epochs` or until patience ends, leave the best epoch's tensors in the encoder, return the history.

    Epoch 0 (untrained) never wins unless no epoch is run. Deterministic for one seed, device and thread count. A
    checkpoint of another `label` is ignored (it belongs to an earlier trial of the same stage).
    """
    run = _start(encoder, options)
    _restore(encoder, run, checkpoint.load(), label)
    while run.state.epoch < options.epochs and run.state.epoch - run.state.best_epoch < options.patience:
        started = time.perf_counter()
        loss = _epoch(encoder, run, options.batch)
        _judge(encoder, run, validation, loss=loss, started=started)
        last = run.state.curve[-1]
        progress.update(run.state.epoch, options.epochs, label, _numbers(last))
        if checkpoint.due() or checkpoint.interrupted:
            checkpoint.save(_writer(encoder, run, label))
            checkpoint.raise_if_interrupted()
    _assign(encoder, run.best)
    return run.state


def _start(encoder: Encoder, options: FitOptions) -> Run:
    parameters = list(encoder.tensors().values())
    optimizer = torch.optim.AdamW(parameters, lr=options.learning_rate, weight_decay=options.weight_decay)
    generator = torch.Generator().manual_seed(options.seed)
    return Run(optimizer, generator, _copy(encoder))


def _epoch(encoder: Encoder, run: Run, batch: int) -> float:
    """Run one pass over shuffled units; return the mean loss per unit."""
    device = next(iter(encoder.tensors().values())).device
    order = torch.randperm(encoder.units(), generator=run.generator).to(device)
    total = torch.zeros((), device=device)
    for index in torch.split(order, batch):
        run.optimizer.zero_grad(set_to_none=True)
        loss = encoder.loss(index, run.generator)
        loss.backward()  # type: ignore[no-untyped-call]
        run.optimizer.step()
        total += loss.detach() * len(index)
    return float(total) / max(1, encoder.units())


def _judge(encoder: Encoder, run: Run, validation: Interactions, *, loss: float, started: float) -> None:
    found = quality(encoder.vectors(), validation)
    epoch, seconds = run.state.epoch + 1, run.state.seconds + time.perf_counter() - started
    point = CurvePoint(epoch, loss, _or_none(found.auc), _or_none(found.uauc), round(seconds, 3))
    state = replace(run.state, epoch=epoch, seconds=seconds, curve=(*run.state.curve, point))
    # Without any judgeable validation row every epoch ties at -inf; then the latest one is kept.
    if found.selection() > state.best_score or state.best_score == float("-inf"):
        state = replace(state, best_epoch=epoch, best_score=found.selection())
        run.best = _copy(encoder)
    run.state = state


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value


def _numbers(point: CurvePoint) -> dict[str, float]:
    named = {"loss": point.train_loss, "auc": point.validation_auc, "uauc": point.validation_uauc}
    return {name: value for name, value in named.items() if value is not None}


def _copy(encoder: Encoder) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in encoder.tensors().items()}


def _assign(encoder: Encoder, values: Mapping[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in encoder.tensors().items():
            tensor.copy_(values[name])


def _writer(encoder: Encoder, run: Run, label: str) -> Callable[[Path], None]:
    """Return what writes the run into a checkpoint folder: safetensors for tensors, JSON for the rest."""

    def write(folder: Path) -> None:
        tensors = {f"now.{name}": tensor for name, tensor in _copy(encoder).items()}
        tensors |= {f"best.{name}": tensor for name, tensor in run.best.items()}
        for index, moments in run.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value.clone() for name, value in moments.items()}
        tensors["generator"] = run.generator.get_state()
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS)
        (folder / STATE).write_text(json.dumps({"label": label, "state": asdict(run.state)}), encoding="utf-8")

    return write


def _restore(encoder: Encoder, run: Run, folder: Path | None, label: str) -> None:
    """Continue from a checkpoint of this label; leave the run as it is otherwise."""
    if folder is None:
        return
    body = json.loads((folder / STATE).read_text(encoding="utf-8"))
    if body["label"] != label:
        return
    tensors = load_file(folder / WEIGHTS)
    _assign(encoder, {name[4:]: value for name, value in tensors.items() if name.startswith("now.")})
    run.best = {name[5:]: value for name, value in tensors.items() if name.startswith("best.")}
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, part = name.split(".", 2)
            moments.setdefault(int(index), {})[part] = value
    groups = run.optimizer.state_dict()["param_groups"]
    run.optimizer.load_state_dict({"state": moments, "param_groups": groups})
    run.generator.set_state(tensors["generator"])
    state = dict(body["state"])
    curve = tuple(CurvePoint(**point) for point in state.pop("curve"))
    run.state = FitState(**state, curve=curve)
