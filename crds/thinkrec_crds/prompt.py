# SPDX-License-Identifier: Apache-2.0
"""The prompt template and its rendering into segments (method.md, section Prompt).

A prompt is a sequence of text pieces and soft slots. Everything up to and including the history is the prefix, shared
by all candidates of a user; the suffix starts with a space, because the seam must lie before the space for the token
ids to equal those of the joint text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from thinkrec_crds.contract import Contract


class PromptTemplate(Contract):
    """Versioned wording. `{title}`, `{keywords}` and `{answer}` are the only fields."""

    version: Literal["thinkrec-1"] = "thinkrec-1"
    instruction: str = "A user rated these items, oldest first. For the next item say Yes or No, and why."
    user: str = " The user's taste:"
    """Text before the user's soft token; left out with it."""
    history: str = "\n- {title}{keywords} (evaluation: {answer})"
    item_soft: str = " feature"
    """Text before an item's soft token; left out with it."""
    ask: str = "\nThe next item:\n-"
    """Ends the prefix."""
    candidate: str = " {title}{keywords}"
    question: str = "\nLiked? Answer:"
    """Short on purpose: its tokens are paid once for every candidate."""
    keywords: str = ", {keywords}"
    """How a non-empty keyword list is appended to a title."""
    yes: str = " Yes"
    no: str = " No"


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of literal text."""

    text: str


@dataclass(frozen=True, slots=True)
class UserSlot:
    """Position of the user's soft token."""


@dataclass(frozen=True, slots=True)
class ItemSlot:
    """Position of an item's soft token."""

    item_index: int


Segment = Text | UserSlot | ItemSlot


@dataclass(frozen=True, slots=True)
class ItemText:
    """What the prompt says of an item."""

    item_index: int
    title: str
    keywords: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One past interaction."""

    item: ItemText
    liked: bool


def describe(template: PromptTemplate, pattern: str, item: ItemText, answer: str = "") -> str:
    """Fill one pattern; braces in titles and keywords stay as they are."""
    words = template.keywords.replace("{keywords}", ", ".join(item.keywords)) if item.keywords else ""
    parts = {"{title}": item.title, "{keywords}": words, "{answer}": answer}
    out = pattern
    marks = sorted(parts, key=out.find)
    pieces: list[str] = []
    for mark in marks:
        head, found, tail = out.partition(mark)
        if found:
            pieces += [head, parts[mark]]
            out = tail
    return "".join([*pieces, out])


def render_prefix(
    template: PromptTemplate, history: tuple[HistoryEntry, ...], *, soft: bool, user: bool = True
) -> tuple[Segment, ...]:
    """Return the segments shared by all candidates.

    `soft` puts the CF slots in (stages 2 and later); `user` off leaves the user's out (a user without a CF vector).
    """
    out: list[Segment] = [Text(template.instruction)]
    if soft and user:
        out += [Text(template.user), UserSlot()]
    for entry in history:
        answer = (template.yes if entry.liked else template.no).strip()
        out.append(Text(describe(template, template.history, entry.item, answer)))
        if soft:
            out += [Text(template.item_soft), ItemSlot(entry.item.item_index)]
    return (*out, Text(template.ask))


def render_suffix(template: PromptTemplate, candidate: ItemText, *, soft: bool) -> tuple[Segment, ...]:
    """Return the segments of one candidate; the answer is scored at the last position."""
    out: list[Segment] = [Text(describe(template, template.candidate, candidate))]
    if soft:
        out += [Text(template.item_soft), ItemSlot(candidate.item_index)]
    return (*out, Text(template.question))
