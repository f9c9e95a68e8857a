# SPDX-License-Identifier: Apache-2.0
"""The pool: seeded training samples, scored by the base model as it comes, and those of them that it gets wrong.

A zero-shot model leans towards one answer: its raw sign would call every like (or every dislike) wrong and teach that
class alone. So the decision threshold is the pool's own: as many samples are called liked as are liked. Then there are
as many false likes as missed ones among the wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from thinkrec_inference.engine.scorer import ScoreJob, Scorer
from thinkrec_trainer.blocks import Block, Row
from thinkrec_trainer.cursor import Deck
from thinkrec_trainer.samples import indexed_block
from thinkrec_trainer.timelines import Timelines, index_blocks

POOL_BLOCK = 8
"""Targets of one pool block: they share the history's tokens, but come from one user."""
JOBS_PER_CALL = 4
"""Blocks scored between two progress reports."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One training interaction with the history that the prompt shows."""

    user_index: int
    item_index: int
    position: int
    history_end: int
    """The history is the rows before this position."""
    liked: bool


def pool_blocks(timelines: Timelines, *, size: int, history_length: int, seed: int) -> list[Block]:
    """Return random blocks of train rows with `size` targets together (fewer where there are no more)."""
    users = np.arange(timelines.users)
    index = index_blocks(timelines, users, size=POOL_BLOCK, history_length=history_length)
    deck = Deck("pool", seed, len(index))
    blocks: list[Block] = []
    left = size
    while left > 0 and len(blocks) < len(index):
        [number] = deck.draw(1)
        block = indexed_block(timelines, index, number, history_length=history_length)
        blocks.append(Block(block.user_index, block.history, block.start, block.targets[:left]))
        left -= len(blocks[-1].targets)
    return blocks


def score_pool(scorer: Scorer, blocks: Sequence[Block], report: Callable[[float], None]) -> list[float]:
    """Return the base model's text-only score of every target; `report` takes the share done."""
    scores: list[float] = []
    for start in range(0, len(blocks), JOBS_PER_CALL):
        for found in scorer.score([_job(block) for block in blocks[start : start + JOBS_PER_CALL]]):
            scores += found.tolist()
        report(min(1.0, (start + JOBS_PER_CALL) / len(blocks)))
    return scores


def _job(block: Block) -> ScoreJob:
    history = tuple((row.item_index, row.liked) for row in block.history)
    return ScoreJob(history=history, candidates=tuple(target.row.item_index for target in block.targets))


def samples_of(blocks: Sequence[Block]) -> list[Sample]:
    """Return the pool's samples in the order of its scores."""
    return [
        Sample(block.user_index, target.row.item_index, target.position, block.start, target.row.liked)
        for block in blocks
        for target in block.targets
    ]


def wrong_samples(samples: Sequence[Sample], scores: Sequence[float]) -> list[Sample]:
    """Return the samples whose decision misses the label (module docstring); the others need no lesson."""
    threshold = matched_threshold(scores, [sample.liked for sample in samples])
    return [sample for sample, score in zip(samples, scores, strict=True) if (score > threshold) != sample.liked]


def matched_threshold(scores: Sequence[float], labels: Sequence[bool]) -> float:
    """Return the threshold above which as many scores lie as labels are true (fewer where scores are tied)."""
    likes = sum(labels)
    falling = sorted(scores, reverse=True)
    return falling[likes] if likes < len(falling) else float("-inf")


def history_rows(rows: Sequence[Row], sample: Sample, history_length: int) -> Sequence[Row]:
    """Return what the prompt of a sample shows of its user's rows."""
    return rows[max(0, sample.history_end - history_length) : sample.history_end]
