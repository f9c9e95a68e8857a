# SPDX-License-Identifier: Apache-2.0
"""From blocks of interactions to packed token blocks: prompts, answers and loss weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from thinkrec_inference.engine.base_model import BaseModel
from thinkrec_inference.engine.tokens import PromptEncoder
from thinkrec_trainer.blocks import Answer, Block, PackedBlock, Row, Target, make_block, pack, user_blocks
from thinkrec_trainer.cursor import sample_of
from thinkrec_trainer.timelines import BlockIndex, Ints, Timelines

MAX_VALIDATION_ROWS = 40
"""Validation rows of one user that are scored: the bulk of a long user's rows says little more about UAUC."""


@dataclass(frozen=True, slots=True)
class Weights:
    """(a, b) of a*BCE + b*LM."""

    score: float
    text: float


SCORE_ONLY = Weights(1.0, 0.0)


@dataclass(frozen=True, slots=True)
class Packer:
    """Packs blocks for one stage."""

    encoder: PromptEncoder
    base: BaseModel
    soft: bool
    """Whether prompts hold soft slots (stages 2 and later)."""
    warm: frozenset[int]
    """Users with a CF vector; others get no user slot, as in serving."""

    def pack(self, block: Block, weights: Weights) -> PackedBlock:
        """Return the packed form of one block."""
        history = tuple((row.item_index, row.liked) for row in block.history)
        user = block.user_index if block.user_index in self.warm else None
        prefix = self.encoder.prefix(history, user_index=user, soft=self.soft)
        suffixes = [self.encoder.suffix(target.row.item_index, soft=self.soft) for target in block.targets]
        return pack(prefix, suffixes, [self._answer(target, weights) for target in block.targets])

    def _answer(self, target: Target, weights: Weights) -> Answer:
        decision = self.base.yes_id if target.row.liked else self.base.no_id
        ids = (decision, *self._reason(target.text)) if target.text else (decision,)
        return Answer(target.row.liked, ids, weights.score, weights.text)

    def _reason(self, text: str) -> tuple[int, ...]:
        """Ids of ". <reason>" and the end, so that an explanation learns to stop."""
        end = self.base.tokenizer.eos_token_id
        return (*self.encoder.text(f". {text}"), *(() if end is None else (int(end),)))


def indexed_block(timelines: Timelines, index: BlockIndex, number: int, *, history_length: int) -> Block:
    """Return block `number` of a block index."""
    user, start, count = (int(column[number]) for column in (index.users, index.starts, index.counts))
    rows = timelines.rows(user)
    targets = [Target(position, rows[position]) for position in range(start, start + count)]
    return make_block(rows, targets, user_index=user, start=start, history_length=history_length)


def validation_users(timelines: Timelines, users: Ints, *, count: int, seed: int) -> list[int]:
    """Return at most `count` of `users` to validate on, drawn from those whose validation rows hold both classes.

    Only such users have an AUC; where there are none, users with any validation row are taken.
    """
    measured = [user for user in users.tolist() if _both_classes(timelines, user)]
    others = [user for user in users.tolist() if len(timelines.later_positions(user))]
    return sample_of(measured or others, count, seed=seed, name="validation")


def validation_blocks(
    timelines: Timelines, users: Sequence[int], *, size: int, history_length: int
) -> list[tuple[int, list[Block]]]:
    """Return each user's blocks of validation rows; histories hold train and earlier validation rows."""
    return [
        (
            user,
            user_blocks(
                timelines.rows(user),
                timelines.later_positions(user)[:MAX_VALIDATION_ROWS],
                user_index=user,
                size=size,
                history_length=history_length,
            ),
        )
        for user in users
    ]


def _both_classes(timelines: Timelines, user: int) -> bool:
    start = int(timelines.offsets[user])
    later = timelines.later_positions(user)[:MAX_VALIDATION_ROWS]
    liked = timelines.liked[start + later.start : start + later.stop]
    return bool(np.any(liked) and not np.all(liked)) if len(liked) else False


def row_labels(block: Block) -> list[Row]:
    """Return the target rows of a block, in the order of its scores."""
    return [target.row for target in block.targets]
