# SPDX-License-Identifier: Apache-2.0
"""From attributes or a teacher's answer to clean keywords. Pure, but for the word list that lies beside this module."""

from __future__ import annotations

import functools
import importlib.resources
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LONGEST_KEYWORD_WORDS = 4
"""Longer parts of an answer are sentences, not keywords."""
_DASHES = "\\-\u2013\u2014"
_SEPARATORS = re.compile(rf"[,;|\n•·]|\s[{_DASHES}]\s")
_LEADING = re.compile(rf"^(?:\s*(?:[*{_DASHES}]|\(?\d{{1,2}}[.):]))+\s*")
_LABEL = re.compile(r"^\s*(?:keywords?|genres?|answer|tags?|here (?:are|is)[^:]*)\s*:\s*", re.IGNORECASE)
_EDGES = " \t\"'`*_.:!?()[]{}<>#"
_ADDRESS = re.compile(r"(?:https?://|www\.)[^\s,;]*|\b[\w-]+\.(?:com|org|net|io|tv|co\.uk)\b[^\s,;]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Noise:
    """The word list of noise.txt."""

    anywhere: tuple[str, ...]
    """Cut out wherever they stand as whole words; longest first."""
    alone: frozenset[str]
    """A keyword made of nothing but these is dropped."""


@functools.cache
def noise_words() -> Noise:
    """Read noise.txt."""
    text = importlib.resources.files(__package__).joinpath("noise.txt").read_text(encoding="utf-8")
    _, _, body = text.partition("\n[anywhere]\n")
    anywhere, _, alone = body.partition("\n[alone]\n")
    return Noise(tuple(sorted(_entries(anywhere), key=lambda word: (-len(word), word))), frozenset(_entries(alone)))


def _entries(section: str) -> list[str]:
    lines = (line.strip() for line in section.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def first_distinct(words: Iterable[str], limit: int) -> tuple[str, ...]:
    """Return the first `limit` words, equal ones (whatever their case and spacing) once."""
    seen: dict[str, str] = {}
    for word in words:
        clean = " ".join(word.split())
        if clean:
            seen.setdefault(clean.casefold(), clean)
    return tuple(seen.values())[:limit]


def parse_answer(answer: str, *, title: str, limit: int) -> tuple[str, ...]:
    """Return the listed keywords of a teacher's answer, without numbering, labels, noise, sentences and the title."""
    parts = (_without_noise(_bare(part)) for part in _SEPARATORS.split(_ADDRESS.sub(" ", _LABEL.sub("", answer))))
    kept = (part for part in parts if _is_keyword(part) and part.casefold() != title.strip().casefold())
    return first_distinct(kept, limit)


def from_attributes(attributes: Sequence[str], limit: int) -> tuple[str, ...]:
    """Return given attributes as keywords: as they are, each once. What the owner of the data wrote is not judged."""
    return first_distinct(attributes, limit)


def _bare(part: str) -> str:
    return _LABEL.sub("", _LEADING.sub("", part)).strip(_EDGES)


def _without_noise(part: str) -> str:
    """Cut noise phrases out of a part; the whole words only, so that "Topology" keeps its "top"."""
    rest = " ".join(_noise_pattern().sub(" ", part).split()).strip(_EDGES + "-")
    return "" if all(word.casefold() in noise_words().alone for word in rest.split()) else rest


@functools.cache
def _noise_pattern() -> re.Pattern[str]:
    phrases = "|".join(re.escape(word) for word in noise_words().anywhere)
    return re.compile(rf"(?<![\w-])(?:{phrases})(?![\w-])", re.IGNORECASE)


def _is_keyword(part: str) -> bool:
    return bool(re.search(r"[^\W\d_]", part)) and len(part.split()) <= LONGEST_KEYWORD_WORDS
