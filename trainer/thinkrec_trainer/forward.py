# SPDX-License-Identifier: Apache-2.0
"""One forward pass over packed history blocks: scores and losses, with logits only where they are needed.

score = w_yes . h (- w_no . h) in fp32 at each suffix's last position (method.md, Prompt). The full vocabulary is
multiplied only at positions that predict an answer or reason token, never at all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from thinkrec_trainer.batches import Batch

Soft = Callable[[Tensor], Tensor]
"""(S,) rows of the soft table -> (S, D) embeddings."""


@dataclass(frozen=True, slots=True)
class Losses:
    """Sums over the targets of a batch, so that steps and blocks of any size add up to one mean."""

    total: Tensor
    """Scalar fp32: sum over targets of a*BCE + b*LM."""
    score: float
    """Sum of the plain BCE."""
    targets: int


class BlockModel:
    """A causal language model (with or without PEFT layers inside) run on history blocks."""

    def __init__(
        self, causal: Any, *, yes: int, no: int, score: Literal["Yes", "YesMinusNo"], soft: Soft | None = None
    ) -> None:
        """`causal` is the transformers model whose decoder and head are used; `yes`, `no` are token ids."""
        self.causal = causal
        self.decoder = causal.get_decoder()
        self.head = causal.get_output_embeddings().weight
        self.soft = soft
        direction = self.head[yes].float()
        self.direction = (direction - self.head[no].float() if score == "YesMinusNo" else direction).detach()

    @property
    def device(self) -> torch.device:
        """Where batches must lie."""
        device: torch.device = self.head.device
        return device

    def hidden(self, batch: Batch) -> Tensor:
        """Return the last hidden states, (B*T, D) in the model's dtype."""
        embeds = self.causal.get_input_embeddings()(batch.ids)  # (B, T, D)
        if self.soft is not None and batch.slot_at.numel():
            shape = embeds.shape
            soft = self.soft(batch.slot_rows).to(embeds.dtype)  # (S, D)
            embeds = embeds.flatten(0, 1).index_copy(0, batch.slot_at, soft).view(shape)
        out = self.decoder(
            inputs_embeds=embeds, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False
        )
        states: Tensor = out.last_hidden_state.flatten(0, 1)
        return states

    def scores(self, batch: Batch) -> Tensor:
        """Return the (M,) fp32 scores of a batch."""
        return self._scores(self.hidden(batch), batch)

    def _scores(self, hidden: Tensor, batch: Batch) -> Tensor:
        scores: Tensor = hidden[batch.score_at].float() @ self.direction
        return scores

    def losses(self, batch: Batch) -> Losses:
        """Return a*BCE(score, y) + b*LM(answer or reason tokens), summed over the targets (method.md, stage 5)."""
        hidden = self.hidden(batch)
        scores = self._scores(hidden, batch)
        score = functional.binary_cross_entropy_with_logits(scores, batch.labels, reduction="none")  # (M,)
        total = (batch.score_weights * score).sum()
        if batch.text_at.numel():
            logits = functional.linear(hidden[batch.text_at], self.head).float()  # (N, V)
            text = functional.cross_entropy(logits, batch.text_ids, reduction="none")  # (N,)
            total = total + (batch.text_weights * text).sum()
        return Losses(total=total, score=float(score.detach().sum()), targets=batch.targets)
