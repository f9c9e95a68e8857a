# SPDX-License-Identifier: Apache-2.0
"""Validation during training: AUC and UAUC of the model as it stands, on a fixed sample of users."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from thinkrec_trainer.batches import collate
from thinkrec_trainer.blocks import PackedBlock
from thinkrec_trainer.distributed import ALONE, World
from thinkrec_trainer.forward import BlockModel
from thinkrec_trainer.metrics import Rows, auc, mean_over_users, per_user_auc


@dataclass(frozen=True, slots=True)
class Validation:
    """What one evaluation found; NaN where the rows do not define a value."""

    auc: float
    uauc: float
    users: int
    """Users with a defined AUC."""
    rows: int

    @property
    def quality(self) -> float | None:
        """What early stopping maximises: UAUC, else AUC, else nothing (None)."""
        return next((value for value in (self.uauc, self.auc) if not math.isnan(value)), None)

    def metrics(self) -> dict[str, float]:
        """Return the defined metrics under their names in manifests."""
        named = {"validation_auc": self.auc, "validation_uauc": self.uauc}
        return {name: value for name, value in named.items() if not math.isnan(value)}


@dataclass(frozen=True, slots=True)
class Validator:
    """Scores fixed blocks with the training model."""

    blocks: Sequence[tuple[int, PackedBlock]]
    """(user index, packed block)."""

    @torch.inference_mode()
    def __call__(self, model: BlockModel, world: World = ALONE) -> Validation:
        """Return the metrics of `model`, dropout off; its mode is put back afterwards.

        Each process scores a part of the blocks; all get the same metrics.
        """
        training = model.causal.training
        model.causal.eval()
        lengths = [len(block.labels) for _, block in self.blocks]
        scores = torch.zeros(sum(lengths))
        parts = torch.split(scores, lengths) if lengths else ()
        for place in world.places(len(lengths)):
            parts[place].copy_(model.scores(collate([self.blocks[place][1]]).to(model.device)))
        world.add_up([scores])
        model.causal.train(training)
        users = [user for user, block in self.blocks for _ in block.labels]
        labels = [label for _, block in self.blocks for label in block.labels]
        return measure(users, labels, scores.tolist())


def measure(users: Sequence[int], labels: Sequence[bool], scores: Sequence[float]) -> Validation:
    """Return AUC and UAUC of scored rows."""
    if not scores:
        return Validation(math.nan, math.nan, 0, 0)
    rows = Rows.of(users, labels, scores)
    mean = mean_over_users(per_user_auc(rows))
    return Validation(auc=auc(rows), uauc=mean.value, users=mean.users, rows=len(rows))
