# SPDX-License-Identifier: Apache-2.0
"""Grounding: an explanation may name items of the history and the candidate, and no other title of the catalogue.

Titles are found as runs of words, longest first, in any case, with "The Matrix" and "Matrix, The" taken as one title.
Titles that are a single word of ordinary text ("It", "Big", "Heat") would be found everywhere and are looked for only
where they are written with a capital, not at a sentence's start. A model may also invent titles that no catalogue has:
those cannot be found this way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_WORD = re.compile(r"[\w']+")
_ARTICLE = re.compile(r"^(?P<rest>.*), (?P<article>The|A|An)$", re.I)
_YEAR = re.compile(r"\s*\(\d{4}\)\s*$")
MAX_WORDS = 12
"""Longer titles are compared by their first twelve words."""

Words = tuple[str, ...]


def title_words(title: str) -> Words:
    """Return the title's words in lower case, without a year in brackets, its article in front."""
    plain = _YEAR.sub("", title.strip())
    turned = _ARTICLE.match(plain)
    if turned is not None:
        plain = f"{turned['article']} {turned['rest']}"
    return tuple(word.lower() for word in _WORD.findall(plain))[:MAX_WORDS]


class Titles:
    """The catalogue's titles, ready for look-up: O(words of the text * MAX_WORDS) whatever the catalogue's size."""

    def __init__(self, titles: Iterable[str]) -> None:
        self._known = {words for words in map(title_words, titles) if words}

    def named_in(self, text: str) -> set[Words]:
        """Return the titles that `text` names."""
        found: set[Words] = set()
        matches = list(_WORD.finditer(text))
        words = [match.group().lower() for match in matches]
        at = 0
        while at < len(words):
            length = self._longest(words, at)
            if length > 1 or (length == 1 and _capital_inside(text, matches[at])):
                found.add(tuple(words[at : at + length]))
            at += max(1, length)
        return found

    def _longest(self, words: Sequence[str], at: int) -> int:
        for length in range(min(MAX_WORDS, len(words) - at), 0, -1):
            if tuple(words[at : at + length]) in self._known:
                return length
        return 0


def _capital_inside(text: str, match: re.Match[str]) -> bool:
    """Return whether the word has a capital and does not begin a sentence."""
    before = text[: match.start()].rstrip(" \"'(")
    return match.group()[0].isupper() and bool(before) and before[-1] not in ".!?:\n"


def is_grounded(text: str, allowed: Iterable[str], catalogue: Titles) -> bool:
    """Return whether every catalogue title named in `text` is one of the `allowed` titles."""
    return catalogue.named_in(text) <= {title_words(title) for title in allowed}
