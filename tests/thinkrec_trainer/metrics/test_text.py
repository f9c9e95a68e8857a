# SPDX-License-Identifier: Apache-2.0
"""Checks of explanations on texts whose answer a reader sees at once."""

from __future__ import annotations

import pytest

from thinkrec_trainer.metrics.agreement import agrees
from thinkrec_trainer.metrics.grounding import Titles, is_grounded, title_words
from thinkrec_trainer.metrics.repetition import repetition
from thinkrec_trainer.metrics.rouge import rouge_l


@pytest.mark.parametrize(
    ("text", "decision", "expected"),
    [
        ("Yes. They enjoy war films.", "Yes", True),
        ("no, too sentimental.", "No", True),
        ("Yes. They enjoy war films.", "No", False),
        ("The user likes it.", "Yes", False),
        ("", "Yes", False),
        ("Yes. So the user would not enjoy it.", "Yes", False),
        ("Yes. The user wouldn't really like it.", "Yes", False),
        ("No. The user would love this.", "No", False),
        ("No. The user would not like this.", "No", True),
        ("Yes. The user will like this.", "Yes", True),
        ("Yes. The user does not like horror, but this is a comedy.", "Yes", False),
    ],
)
def test_agreement(text: str, decision: str, expected: bool) -> None:
    assert agrees(text, decision) is expected


@pytest.mark.parametrize(
    ("title", "words"),
    [
        ("Usual Suspects, The", ("the", "usual", "suspects")),
        ("Toy Story (1995)", ("toy", "story")),
        ("Schindler's List", ("schindler's", "list")),
        ("", ()),
    ],
)
def test_titles_are_compared_in_one_form(title: str, words: tuple[str, ...]) -> None:
    assert title_words(title) == words


CATALOGUE = Titles(["Toy Story", "Toy Story 2", "Usual Suspects, The", "Heat", "It", "Star Wars"])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("They liked toy story a lot.", {("toy", "story")}),
        ("Like Toy Story 2, it is fun.", {("toy", "story", "2")}),
        ("It has the usual suspects in it.", {("the", "usual", "suspects")}),
        ("They enjoy the heat. It is warm.", set()),
        ("Because they liked Heat, yes.", {("heat",)}),
        ("Nothing of the kind.", set()),
    ],
)
def test_titles_named_in_a_text(text: str, named: set[tuple[str, ...]]) -> None:
    assert CATALOGUE.named_in(text) == named


def test_grounding_allows_history_and_candidate_only() -> None:
    text = "Yes. Fans of The Usual Suspects like Star Wars."
    assert is_grounded(text, ["Usual Suspects, The", "Star Wars (1977)"], CATALOGUE)
    assert not is_grounded(text, ["Usual Suspects, The"], CATALOGUE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b c d e", 0.0),
        ("a b", 0.0),
        ("", 0.0),
        ("a a a a a", 2 / 3),
        ("x y z x y z", 1 / 4),
        ("X, y. z! x y z", 1 / 4),
        ("a b a b a", 1 / 3),
    ],
)
def test_repetition(text: str, expected: float) -> None:
    assert repetition(text) == pytest.approx(expected)


def test_rouge_l_by_hand() -> None:
    """Longest common subsequence "the user likes war" of 4 words; 5 words here, 6 there: F1 = 2 * 4 / (5 + 6)."""
    assert rouge_l("the user likes old war", "the user really likes war films") == pytest.approx(8 / 11)
    assert rouge_l("something else", "the user likes") == 0.0
