# SPDX-License-Identifier: Apache-2.0
"""The reference of the engine's tests: transformers' own forward pass over one joint prompt per candidate."""

from __future__ import annotations

from typing import Any

import torch

from thinkrec_inference.engine.scorer import ScoreJob, Scorer


def joint_embeddings(scorer: Scorer, job: ScoreJob, item: int, model: torch.nn.Module) -> torch.Tensor:
    """Return (1, T, D): the joint prompt of one candidate, soft tokens in their places."""
    prefix = scorer.encoder.prefix(job.history, user_index=job.user_index, soft=job.soft)
    joint = prefix + scorer.encoder.suffix(item, soft=job.soft)
    embedding: Any = model.get_input_embeddings  # transformers' and PEFT's models both have it
    embedded: torch.Tensor = embedding()(torch.tensor([joint.ids]))
    for slot in joint.slots:
        assert scorer.soft is not None
        embedded[0, slot.position] = scorer.soft[slot.row]
    return embedded


@torch.no_grad()
def joint_scores(scorer: Scorer, job: ScoreJob, model: torch.nn.Module | None = None) -> torch.Tensor:
    """Return logit(Yes) - logit(No) of each candidate: own attention, no cache, full-vocabulary logits."""
    model = model or scorer.base.model
    found = []
    for item in job.candidates:
        logits = model(inputs_embeds=joint_embeddings(scorer, job, item, model)).logits[0, -1]
        found.append(logits[scorer.base.yes_id] - logits[scorer.base.no_id])
    return torch.stack(found)
