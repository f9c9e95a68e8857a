# SPDX-License-Identifier: Apache-2.0
"""Which answers become traces."""

from __future__ import annotations

import pytest

from thinkrec_crds.prompt import ItemText
from thinkrec_trainer.traces.filters import Answer, Limits, Why, mentions, read_answer, rejection
from thinkrec_trainer.traces.hints import HINTS, echoes_instructions, hint, leaks_label, tells_outcome

GOOD = "The user enjoys light comedies and this is one of them."


def limits(tokens: int = 50, later: tuple[str, ...] = ()) -> Limits:
    """Limits that count words as tokens."""
    return Limits(tokens=tokens, count_tokens=lambda text: len(text.split()), title="This Film", later_titles=later)


@pytest.mark.parametrize(
    ("text", "liked", "reason"),
    [
        ("Yes. It is funny.", True, "It is funny."),
        ("No, it is grim.", False, "it is grim."),
        ("yes — it is funny", True, "it is funny"),
        ('"No. It is grim."', False, "It is grim."),
        ("**Yes**: it is\n funny", True, "it is funny"),
        ("Answer: Yes. Fine.", True, "Fine."),
        ("Yes", True, ""),
        ("Nothing speaks for it.", None, "Nothing speaks for it."),
        ("Yesterday it was fine.", None, "Yesterday it was fine."),
        ("I think yes.", None, "I think yes."),
        ("", None, ""),
    ],
)
def test_a_decision_is_the_first_word(text: str, liked: bool | None, reason: str) -> None:
    """Only an answer that begins with Yes or No decides."""
    assert read_answer(text, cut=False) == Answer(liked, reason)


def test_a_cut_answer_keeps_its_whole_sentences() -> None:
    """A reason must not end in the middle of a word."""
    assert read_answer("No. It is grim. The user avo", cut=True) == Answer(False, "It is grim.")
    assert read_answer("No. It is so very", cut=True) == Answer(False, "")


@pytest.mark.parametrize(
    ("answer", "cut", "why"),
    [
        (Answer(True, GOOD), False, None),
        (Answer(False, GOOD), False, Why.NEVER_AGREES),
        (Answer(None, ""), False, Why.NEVER_AGREES),
        (Answer(True, ""), False, Why.EMPTY),
        (Answer(True, "Good film."), False, Why.EMPTY),
        (Answer(True, "The user does not like This Film."), False, Why.EMPTY),
        (Answer(True, ""), True, Why.TOO_LONG),
        (Answer(True, "word " * 60), False, Why.TOO_LONG),
        (Answer(True, "The right answer is Yes because of comedy."), False, Why.LEAKS_LABEL),
        (Answer(True, "The user liked the film This Film for its humour."), False, Why.LEAKS_LABEL),
        (Answer(True, "What in their taste decides it is humour."), False, Why.ECHOES),
        (Answer(True, "It is close to Later Film, which is light."), False, Why.LATER_TITLE),
        (Answer(True, "it is fun and it is fun and it is fun and it is fun"), False, Why.REPEATS),
    ],
)
def test_every_reason_to_reject(answer: Answer, cut: bool, why: Why | None) -> None:
    """One example for each."""
    assert rejection(answer, True, limits(later=("Later Film (1997)",)), cut=cut) is why


@pytest.mark.parametrize("number", range(len(HINTS)))
@pytest.mark.parametrize("liked", [True, False])
def test_an_answer_that_repeats_its_hint_is_caught(number: int, liked: bool) -> None:
    """Whatever the wording, handing the hint back as the reason leaks the label."""
    assert leaks_label(hint(ItemText(0, "Some Film"), liked, number=number))


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        "The user gave high marks to thrillers, and this one is slow.",
        "They rated war films low; this is a war film.",
        "The user would enjoy This Film for its humour.",
        "The user liked other comedies, and This Film is one.",
        "A true story about a real event suits this taste.",
    ],
)
def test_honest_reasons_do_not_leak(text: str) -> None:
    """Words such as true, real and rated are no hint by themselves."""
    assert not leaks_label(text)
    assert not tells_outcome(text, "This Film")
    assert not echoes_instructions(text)


def test_one_word_titles_are_matched_with_their_capitals() -> None:
    """A film named Heat, and the heat of summer."""
    assert mentions("It resembles Heat in tone.", ["Heat (1995)"])
    assert not mentions("The heat of summer.", ["Heat (1995)"])
    assert mentions("a bit like toy story 2.", ["Toy Story"])
    assert not mentions("Toy Storyboards", ["Toy Story"])


def test_a_title_of_nothing_but_a_year_is_no_title() -> None:
    """An empty pattern would match everywhere."""
    assert not mentions("Anything", ["(1995)", ""])
