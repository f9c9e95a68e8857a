# SPDX-License-Identifier: Apache-2.0
"""Prompt segments -> token ids and soft-slot positions; the same code in training and serving.

Text between two slots is tokenised as one piece, and pieces recur (an item's line is the same for every user), so they
are cached. Soft slots are known by position, never by a magic token, and special tokens written out in a title are
plain text. The one seam inside running text is between prefix and suffix: `assert_seam` proves on real items that it
does not change a token.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from thinkrec_crds.prompt import (
    HistoryEntry,
    ItemSlot,
    ItemText,
    PromptTemplate,
    Segment,
    Text,
    UserSlot,
    render_prefix,
    render_suffix,
)
from thinkrec_inference.engine.errors import BaseModelError

History = tuple[tuple[int, bool], ...]
"""(item index, liked), oldest first."""
_CACHED_PIECES = 1 << 17


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a soft token goes and which row of the soft table it is (users first, then items)."""

    position: int
    row: int


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids with holes: at a slot the id is a placeholder and the embedding comes from the soft table."""

    ids: tuple[int, ...]
    slots: tuple[Slot, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def __add__(self, other: Encoded) -> Encoded:
        """Return the joint prompt of a prefix and a suffix."""
        moved = tuple(Slot(slot.position + len(self.ids), slot.row) for slot in other.slots)
        return Encoded(self.ids + other.ids, self.slots + moved)


SEAM_ITEMS = 64
"""Items on which the seam is proved before a prompt is used, spread over the catalogue."""


def seam_sample(count: int) -> range:
    """Return indices spread evenly over a catalogue of `count` items, for `PromptEncoder.assert_seam`."""
    return range(0, count, max(1, count // SEAM_ITEMS))


class PromptEncoder:
    """Encodes prefixes and suffixes over one catalogue; not changed after it is made."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: PromptTemplate,
        catalogue: Sequence[ItemText],
        *,
        users: int = 0,
    ) -> None:
        """`catalogue[i]` is item index i; `users` is the number of user rows before the items in the soft table."""
        self._tokenizer = tokenizer
        self._template = template
        self._catalogue = tuple(catalogue)
        self._users = users
        self._lead = _leading_ids(tokenizer)
        self._piece = lru_cache(maxsize=_CACHED_PIECES)(self._tokenise)

    @property
    def template(self) -> PromptTemplate:
        """The wording."""
        return self._template

    @property
    def catalogue(self) -> tuple[ItemText, ...]:
        """Items by index."""
        return self._catalogue

    def prefix(self, history: History, *, user_index: int | None, soft: bool) -> Encoded:
        """Return everything before the candidate; a user without a row (None) gets no user slot."""
        entries = tuple(HistoryEntry(self._catalogue[index], liked) for index, liked in history)
        segments = render_prefix(self._template, entries, soft=soft, user=user_index is not None)
        body = self._encode(segments, user_index)
        return Encoded(self._lead) + body

    def suffix(self, item_index: int, *, soft: bool) -> Encoded:
        """Return the candidate and the question; the score is read at the last position."""
        return self._encode(render_suffix(self._template, self._catalogue[item_index], soft=soft), None)

    def text(self, text: str) -> tuple[int, ...]:
        """Return the ids of a plain piece of text (an answer, a reason), without special tokens."""
        return self._piece(text)

    def assert_seam(self, items: Iterable[int], *, soft: bool = False) -> None:
        """Raise BaseModelError if, for any of these candidates, joint tokenisation differs from prefix + suffix."""
        for index in items:
            history = ((index, True), (index, False))
            parts = self.prefix(history, user_index=None, soft=soft).ids + self.suffix(index, soft=soft).ids
            joint = self._joint(history, index, soft=soft)
            if parts != joint:
                title = self._catalogue[index].title
                raise BaseModelError(
                    f"item {index} ({title!r}): prefix and suffix tokenised apart give {len(parts)} tokens, together "
                    f"{len(joint)} or other ids; end prompt.ask so that the tokenizer cuts before the candidate's space"
                )

    def _joint(self, history: History, index: int, *, soft: bool) -> tuple[int, ...]:
        entries = tuple(HistoryEntry(self._catalogue[item], liked) for item, liked in history)
        prefix = render_prefix(self._template, entries, soft=soft, user=False)
        suffix = render_suffix(self._template, self._catalogue[index], soft=soft)
        return self._lead + self._encode((*prefix, *suffix), None).ids

    def _encode(self, segments: Iterable[Segment], user_index: int | None) -> Encoded:
        ids: list[int] = []
        slots: list[Slot] = []
        for part in _merge_text(segments):
            if isinstance(part, Text):
                ids.extend(self._piece(part.text))
                continue
            slots.append(Slot(len(ids), self._row(part, user_index)))
            ids.append(0)
        return Encoded(tuple(ids), tuple(slots))

    def _row(self, slot: UserSlot | ItemSlot, user_index: int | None) -> int:
        if isinstance(slot, ItemSlot):
            return self._users + slot.item_index
        if user_index is None:
            raise ValueError("the prompt has a user slot, but no user index was given")
        return user_index

    def _tokenise(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids)


def _merge_text(segments: Iterable[Segment]) -> list[Segment]:
    """Join neighbouring texts, so that the tokenizer sees running text whole."""
    merged: list[Segment] = []
    for segment in segments:
        last = merged[-1] if merged else None
        if isinstance(segment, Text) and isinstance(last, Text):
            merged[-1] = Text(last.text + segment.text)
        else:
            merged.append(segment)
    return merged


def _leading_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Return what the tokenizer puts before a text (a beginning-of-sequence token, or nothing)."""
    plain = list(tokenizer("a", add_special_tokens=False).input_ids)
    whole = list(tokenizer("a", add_special_tokens=True).input_ids)
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return tuple(whole[:start])
    return ()
