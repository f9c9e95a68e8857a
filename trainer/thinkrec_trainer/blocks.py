# SPDX-License-Identifier: Apache-2.0
"""History blocks: several targets of one user that share the history before the first of them.

A block is one sequence: the prompt's prefix (instruction and history) once, then one suffix per target, each followed
by its own answer tokens where it has any. Suffixes see the prefix and themselves, never one another, and each starts at
the position where the prefix ends; so every target gets exactly the numbers of its own separate prompt, at a fraction
of the tokens. No target sees a row of its own block or of the future: the history ends where the block begins.

Pure: no torch, no files. batches.py makes tensors of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from thinkrec_inference.engine.tokens import Encoded


@dataclass(frozen=True, slots=True)
class Row:
    """One interaction of a user's timeline."""

    item_index: int
    liked: bool


@dataclass(frozen=True, slots=True)
class Target:
    """One interaction to be predicted."""

    position: int
    """0-based place in the user's timeline."""
    row: Row
    text: str = ""
    """What the model should write after the prompt, beginning with a space; empty for the bare answer."""


@dataclass(frozen=True, slots=True)
class Block:
    """Targets of one user with the history that all of them share."""

    user_index: int
    history: tuple[Row, ...]
    """Oldest first; ends before `start`."""
    start: int
    """First position of the block: every history row is before it, every target at or after it."""
    targets: tuple[Target, ...]


def block_starts(positions: Sequence[int], size: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Group ascending target positions into blocks that span at most `size` positions; yield (start, members).

    Consecutive positions give full blocks and a shorter last one; sparse positions give blocks of those that happen to
    lie close together.
    """
    if size < 1:
        raise ValueError(f"history_block must be at least 1, got {size}")
    members: list[int] = []
    for position in positions:
        if members and position >= members[0] + size:
            yield members[0], tuple(members)
            members = []
        members.append(position)
    if members:
        yield members[0], tuple(members)


def make_block(
    timeline: Sequence[Row],
    targets: Sequence[Target],
    *,
    user_index: int,
    start: int,
    history_length: int,
) -> Block:
    """Return the block whose history is the last `history_length` rows before `start`.

    Raise ValueError for a target before `start`: its answer would lie in its own history.
    """
    early = [target.position for target in targets if target.position < start]
    if early:
        raise ValueError(
            f"targets at {early} lie before the block's start {start}: the history would hold their answer"
        )
    history = tuple(timeline[max(0, start - history_length) : start])
    return Block(user_index=user_index, history=history, start=start, targets=tuple(targets))


def user_blocks(
    timeline: Sequence[Row], positions: Sequence[int], *, user_index: int, size: int, history_length: int
) -> list[Block]:
    """Return the blocks of one user's target positions (ascending)."""
    return [
        make_block(
            timeline,
            [Target(position, timeline[position]) for position in members],
            user_index=user_index,
            start=start,
            history_length=history_length,
        )
        for start, members in block_starts(positions, size)
    ]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one target is trained on."""

    liked: bool
    next_ids: tuple[int, ...]
    """Tokens after the prompt; the first one is predicted at the position that also gives the score."""
    score_weight: float
    """a of a*BCE + b*LM (method.md, stage 5)."""
    text_weight: float
    """b; the LM loss is the mean over `next_ids`."""


@dataclass(frozen=True, slots=True)
class PackedBlock:
    """One block as flat integers: T tokens, M targets, N tokens to be predicted."""

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    segments: tuple[int, ...]
    """0 for the prefix, 1..M for the suffixes: token i sees token j <= i of segment 0 or of its own."""
    slot_at: tuple[int, ...]
    """(S,) index of each soft token; its id is a placeholder."""
    slot_rows: tuple[int, ...]
    """(S,) its row of the soft table (users first, then items)."""
    score_at: tuple[int, ...]
    """(M,) index of each suffix's last prompt token."""
    labels: tuple[bool, ...]
    score_weights: tuple[float, ...]
    text_at: tuple[int, ...]
    """(N,) index whose output predicts the next token."""
    text_ids: tuple[int, ...]
    text_weights: tuple[float, ...]
    """b of the target divided by its number of tokens, so that the sum over a target is b * mean."""


def pack(prefix: Encoded, suffixes: Sequence[Encoded], answers: Sequence[Answer]) -> PackedBlock:
    """Lay prefix, suffixes and answers out as one sequence (module docstring)."""
    ids, slots = list(prefix.ids), [(slot.position, slot.row) for slot in prefix.slots]
    positions, segments = list(range(len(ids))), [0] * len(ids)
    score_at: list[int] = []
    text: list[tuple[int, int, float]] = []
    for number, (suffix, answer) in enumerate(zip(suffixes, answers, strict=True), start=1):
        start = len(ids)
        # The last answer token is only predicted, never read.
        tokens = (*suffix.ids, *answer.next_ids[:-1])
        ids += tokens
        positions += range(len(prefix.ids), len(prefix.ids) + len(tokens))
        segments += [number] * len(tokens)
        slots += [(slot.position + start, slot.row) for slot in suffix.slots]
        score_at.append(start + len(suffix.ids) - 1)
        if answer.text_weight > 0:
            weight = answer.text_weight / max(1, len(answer.next_ids))
            text += [(score_at[-1] + place, token, weight) for place, token in enumerate(answer.next_ids)]
    return PackedBlock(
        ids=tuple(ids),
        positions=tuple(positions),
        segments=tuple(segments),
        slot_at=tuple(place for place, _ in slots),
        slot_rows=tuple(row for _, row in slots),
        score_at=tuple(score_at),
        labels=tuple(answer.liked for answer in answers),
        score_weights=tuple(answer.score_weight for answer in answers),
        text_at=tuple(place for place, _, _ in text),
        text_ids=tuple(token for _, token, _ in text),
        text_weights=tuple(weight for _, _, weight in text),
    )
