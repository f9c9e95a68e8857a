# SPDX-License-Identifier: Apache-2.0
"""Which answers become traces: reading a decision, and every reason to reject one. Pure functions of texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from thinkrec_trainer.metrics.repetition import repetition
from thinkrec_trainer.traces.hints import echoes_instructions, leaks_label, tells_outcome

LEAST_WORDS = 4
"""A shorter reason explains nothing."""
_EMPTY = """the a an user they this it item does do not no yes would will like likes enjoy enjoys love loves prefer
prefers avoid avoids dislike dislikes hate hates care for so because"""
EMPTY_WORDS = frozenset(re.findall(r"\w+", _EMPTY))
"""What is left of "The user does not like <title>" without the title: it restates the answer and explains nothing."""
MOST_REPETITION = 0.3
"""Share of three-word sequences that occurred before in the same reason; fluent text stays below a tenth."""
SHORT_TITLE_WORDS = 1
"""Titles of one word are matched with their capitals: "Heat" is a film, "heat" is not."""

_DECISION = re.compile(
    r"^[\s\"'*_`>#-]*(?:answer\s*:\s*)?[\"'*_]*(yes|no)\b[\s\"'*_]*[.,:;!\u2013\u2014-]*\s*", re.IGNORECASE
)
_SENTENCE_END = re.compile(r"[.!?][\"')\]]*(?=\s|$)")
_SPACE = re.compile(r"\s+")


class Why(StrEnum):
    """Why a sample has no trace; also the suffix of the counts `rejected_<why>`."""

    NEVER_AGREES = "never_agrees"
    LEAKS_LABEL = "leaks_label"
    LATER_TITLE = "later_title"
    ECHOES = "echoes"
    REPEATS = "repeats"
    TOO_LONG = "too_long"
    EMPTY = "empty"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Answer:
    """A teacher's answer, read."""

    liked: bool | None
    """None: it began with neither Yes nor No."""
    reason: str
    """The text after the decision; all of it where there is none."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a reason may be."""

    tokens: int
    count_tokens: Callable[[str], int]
    title: str
    """Of the target."""
    later_titles: Sequence[str]
    """Titles of items that the user met after the target, and that the prompt does not show."""


def read_answer(text: str, *, cut: bool) -> Answer:
    """Split "Yes. <reason>" into its parts; of an answer `cut` at the token limit only whole sentences count."""
    match = _DECISION.match(text)
    if match is None:
        return Answer(None, _SPACE.sub(" ", text).strip())
    reason = _SPACE.sub(" ", text[match.end() :]).strip().strip("\"'*").strip()
    return Answer(match.group(1).lower() == "yes", whole_sentences(reason) if cut else reason)


def whole_sentences(text: str) -> str:
    """Return the text up to its last sentence end; nothing when no sentence ends."""
    ends = list(_SENTENCE_END.finditer(text))
    return text[: ends[-1].end()] if ends else ""


def rejection(answer: Answer, liked: bool, limits: Limits, *, cut: bool) -> Why | None:
    """Return the first reason against an answer, or None to keep it."""
    if answer.liked is not liked:
        return Why.NEVER_AGREES
    if not answer.reason:
        return Why.TOO_LONG if cut else Why.EMPTY
    if len(answer.reason.split()) < LEAST_WORDS or not explains(answer.reason, limits.title):
        return Why.EMPTY
    if limits.count_tokens(answer.reason) > limits.tokens:
        return Why.TOO_LONG
    if leaks_label(answer.reason) or tells_outcome(answer.reason, limits.title):
        return Why.LEAKS_LABEL
    if echoes_instructions(answer.reason):
        return Why.ECHOES
    if mentions(answer.reason, limits.later_titles):
        return Why.LATER_TITLE
    return Why.REPEATS if repetition(answer.reason) > MOST_REPETITION else None


def explains(reason: str, title: str) -> bool:
    """Return whether anything but the answer itself and the target's title is said."""
    rest = re.sub(re.escape(title), " ", reason, flags=re.IGNORECASE)
    return not EMPTY_WORDS.issuperset(re.findall(r"\w+", rest.lower()))


def mentions(text: str, titles: Iterable[str]) -> bool:
    """Return whether any of the titles stands in the text as whole words."""
    return any(_mentioned(text, title) for title in titles)


def _mentioned(text: str, title: str) -> bool:
    bare = re.sub(r"\s*\(\d{4}\)\s*$", "", title).strip()
    if not bare:
        return False
    flags = 0 if len(bare.split()) <= SHORT_TITLE_WORDS else re.IGNORECASE
    return re.search(rf"(?<!\w){re.escape(bare)}(?!\w)", text, flags) is not None
