# SPDX-License-Identifier: Apache-2.0
"""Cleaning keywords: what is cut, what stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkrec_trainer.keywords.text import first_distinct, from_attributes, noise_words, parse_answer


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("drama, war, family", ("drama", "war", "family")),
        ("Keywords: drama; war | family", ("drama", "war", "family")),
        ("1. Drama\n2) War\n- family\n* love", ("Drama", "War", "family", "love")),
        ("\"Drama\", 'war', **family**.", ("Drama", "war", "family")),
        ("Drama, drama, DRAMA , war", ("Drama", "war")),
        ("must-see, Netflix original, drama on IMDb", ("original", "drama on")),
        ("New York, film noir, Great Depression", ("New York", "film noir", "Great Depression")),
        ("new, film, great movie, best", ()),
        ("Topology, Bestiary", ("Topology", "Bestiary")),
        ("visit www.shop.com/deal, imdb.com, drama", ("visit", "drama")),
        ("This is a film about a man who loves a woman, drama", ("drama",)),
        ("Heat, crime", ("crime",)),
        ("1995, 3-2-1, !!!, sci-fi", ("sci-fi",)),
        ("Here are the keywords: drama, war", ("drama", "war")),
        ("drama - war \N{EN DASH} love", ("drama", "war", "love")),
        ("", ()),
    ],
)
def test_answers(answer: str, expected: tuple[str, ...]) -> None:
    assert parse_answer(answer, title="Heat", limit=10) == expected


def test_limit_counts_distinct_keywords() -> None:
    assert parse_answer("a, A, b, c, d", title="", limit=3) == ("b", "c", "d")
    assert first_distinct(["x", "X", "y", "z"], 2) == ("x", "y")


def test_given_attributes_are_taken_as_they_are() -> None:
    """The owner's own words are not judged: a genre called "New" stays, and so does a year."""
    assert from_attributes(["Drama", "drama ", "", "New", "1995"], 10) == ("Drama", "New", "1995")
    assert from_attributes(["a", "b"], 0) == ()


def test_word_list_is_lower_case_and_disjoint() -> None:
    noise = noise_words()
    assert len(noise.anywhere) > 30
    assert len(noise.alone) > 30
    assert all(word == word.lower() for word in [*noise.anywhere, *noise.alone])
    assert not noise.alone & set(noise.anywhere)


@given(st.text(max_size=200), st.integers(0, 5))
def test_any_answer_gives_few_clean_distinct_keywords(answer: str, limit: int) -> None:
    words = parse_answer(answer, title="T", limit=limit)
    assert len(words) <= limit
    assert len({word.casefold() for word in words}) == len(words)
    assert all(word == word.strip() and "\n" not in word and "," not in word for word in words)
