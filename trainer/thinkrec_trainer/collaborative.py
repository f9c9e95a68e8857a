# SPDX-License-Identifier: Apache-2.0
"""Stage `collaborative`: the frozen CF encoder, trained on the train split only, or the user's own vectors.

The validation split steers early stopping and gives the reported metrics; the test split is never opened.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from thinkrec_crds.stages import CollaborativeParameters, ComputeOptions
from thinkrec_inference.engine.collaborative import COLLABORATIVE_NAME, Collaborative
from thinkrec_inference.engine.device import resolve, set_threads
from thinkrec_trainer.context import StageContext, StageResult
from thinkrec_trainer.encoders import lightgcn, mf, sasrec
from thinkrec_trainer.encoders.fit import CurvePoint, Encoder, FitOptions, fit, quality
from thinkrec_trainer.encoders.scores import without_cold
from thinkrec_trainer.errors import BadInput
from thinkrec_trainer.fetch import source_digest
from thinkrec_trainer.interactions import Interactions, read_split

CURVE_NAME = "curve.json"
SOURCE = "collaborative_checkpoint"


class EncoderFactory(Protocol):
    """Makes an untrained encoder."""

    def __call__(self, train: Interactions, *, dimension: int, seed: int, device: torch.device) -> Encoder:
        """Draw the parameters from `seed`."""


class OptionsFactory(Protocol):
    """Says how the loop is to train an encoder."""

    def __call__(self, *, epochs: int, learning_rate: float, seed: int) -> FitOptions:
        """Fill in what the encoder's own module has chosen."""


ENCODERS: dict[str, tuple[EncoderFactory, OptionsFactory]] = {
    "MF": (mf.MatrixFactorisation, mf.options),
    "LightGCN": (lightgcn.LightGcn, lightgcn.options),
    "SASRec": (sasrec.SasRec, sasrec.options),
}


@dataclass(frozen=True, slots=True)
class Trained:
    """An encoder's result before it is written."""

    vectors: Collaborative
    curve: tuple[CurvePoint, ...]
    epochs: int
    """Epochs until the best one."""
    device: str
    source_digests: dict[str, str]


def run(context: StageContext) -> StageResult:
    """Train or adopt the encoder, write its vectors and its curve, report validation AUC and UAUC."""
    given = context.spec.parameters
    assert isinstance(given, CollaborativeParameters)
    train, validation = (read_split(context.input("dataset"), name) for name in ("train", "validation"))
    if not len(train):
        raise BadInput("the train split is empty: spec.dataset must keep at least one row per user for training")
    made = _train(context, given, train, validation) if given.checkpoint_uri is None else _adopt(context, given, train)
    made.vectors.save(context.output / COLLABORATIVE_NAME)
    (context.output / CURVE_NAME).write_text(json.dumps([_point(p) for p in made.curve], indent=1), encoding="utf-8")
    found = quality(made.vectors, validation)
    metrics = {"validation_auc": found.auc, "validation_uauc": found.uauc}
    return StageResult(
        metrics={name: value for name, value in metrics.items() if not np.isnan(value)},
        counts={"epochs": made.epochs, "train_rows": len(train), **_warm_counts(train)},
        source_digests=made.source_digests,
        device=made.device,
    )


def _train(
    context: StageContext, given: CollaborativeParameters, train: Interactions, validation: Interactions
) -> Trained:
    make_encoder, make_options = ENCODERS[given.encoder]
    device, seed = _device(context.spec.compute), context.spec.seed
    try:
        encoder = make_encoder(train, dimension=given.dimension, seed=seed, device=device)
    except ValueError as error:
        raise BadInput(f"{error}; change spec.collaborative") from error
    options = make_options(epochs=given.epochs, learning_rate=given.learning_rate, seed=seed)
    history = fit(encoder, validation, options, progress=context.progress, checkpoint=context.checkpoint)
    vectors = without_cold(encoder.vectors(), train.warm_users(), train.warm_items())
    return Trained(vectors, history.curve, history.best_epoch, device.type, {})


def _device(compute: ComputeOptions) -> torch.device:
    set_threads(compute)
    try:
        return resolve(compute).device
    except ValueError as error:
        raise BadInput(str(error)) from error


def _adopt(context: StageContext, given: CollaborativeParameters, train: Interactions) -> Trained:
    """Take the user's own vectors as they are: whether they saw the future is theirs to know."""
    assert given.checkpoint_uri is not None
    path = context.fetch(given.checkpoint_uri)
    vectors = read_checkpoint(path, uri=given.checkpoint_uri, users=train.user_count, items=train.item_count)
    return Trained(vectors, (), 0, "cpu", {SOURCE: source_digest(path)})


def read_checkpoint(path: Path, *, uri: str, users: int, items: int) -> Collaborative:
    """Read `user_vectors` (U, d) and `item_vectors` (I, d); biases (U,), (I,) and offset (1,) if there.

    Absent ones are zero. Rows are in the order of the dataset artifact's users.parquet and items.parquet.

    Raises:
        BadInput: not a safetensors file, a tensor is missing, misshapen, not floating point or not finite.
    """
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise BadInput(f"collaborative.checkpointUri {uri!r} is not a safetensors file ({error})") from error
    missing = sorted({"user_vectors", "item_vectors"} - tensors.keys())
    if missing:
        raise BadInput(f"collaborative.checkpointUri {uri!r} lacks {missing}; it has {sorted(tensors)}")
    width = tensors["user_vectors"].shape[-1]
    shapes = {
        "user_vectors": (users, width),
        "item_vectors": (items, width),
        "user_bias": (users,),
        "item_bias": (items,),
        "offset": (1,),
    }
    checked = {name: _checked(tensors.get(name), name, shape, uri=uri) for name, shape in shapes.items()}
    return Collaborative(**checked)


def _checked(tensor: torch.Tensor | None, name: str, shape: tuple[int, ...], *, uri: str) -> torch.Tensor:
    """Return the tensor as fp32 (zeros if absent); raise BadInput if it is not a finite float tensor of `shape`."""
    if tensor is None:
        return torch.zeros(shape)
    where = f"collaborative.checkpointUri {uri!r}: {name}"
    if tuple(tensor.shape) != shape:
        raise BadInput(
            f"{where} has shape {tuple(tensor.shape)}, expected {shape}: one row per line of the dataset's "
            "users.parquet or items.parquet, in that order, and one width for both"
        )
    if not tensor.is_floating_point():
        raise BadInput(f"{where} has type {tensor.dtype}, expected floating point")
    if not torch.isfinite(tensor).all():
        raise BadInput(f"{where} has {int((~torch.isfinite(tensor)).sum())} values that are not finite")
    return tensor.float()


def _point(point: CurvePoint) -> dict[str, float]:
    return {name: value for name, value in asdict(point).items() if value is not None}


def _warm_counts(train: Interactions) -> dict[str, int]:
    return {"warm_users": int(train.warm_users().sum()), "warm_items": int(train.warm_items().sum())}
