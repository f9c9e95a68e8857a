# SPDX-License-Identifier: Apache-2.0
"""Every wording of the trace dialogue, and the phrases by which an answer betrays that it was shown the label."""

from __future__ import annotations

import re
from collections.abc import Sequence

from thinkrec_crds.prompt import ItemText
from thinkrec_trainer.blocks import Row

SYSTEM = "You explain a user's taste in short sentences. Write only about the items you are shown."
ANALYSE = "Here is what a user rated, oldest first:\n{history}\nWhat do the liked ones share, and the disliked ones?"
PREFER = "So what does this user prefer, and avoid?"
DECIDE = "Would this user like {item}? Answer Yes or No, then name what in their taste decides it."
ANALYSE_OPENING, PREFER_OPENING, DECIDE_OPENING = "The liked ones are", "The user prefers", "Answer:"
"""Begun for a teacher that continues (the base model itself): a small model hardly ever finds the form alone."""

HINTS = (
    'The right answer is {answer}. What in this taste explains that they {would} like {item}? Begin with "{answer}."',
    'The user in fact {verb} {item}. Answer again, from their taste alone. Begin with "{answer}."',
    'Think again about {item}: what in this taste speaks for {answer}? Begin with "{answer}."',
    'We know that the answer is {answer}. Why, as if you had found out yourself? Begin with "{answer}."',
)
LIKE_OPENINGS = ("enjoys", "likes", "prefers")
DISLIKE_OPENINGS = ("avoids", "dislikes", "does not care for")

DEMONSTRATION = (
    (
        ANALYSE.format(
            history="- Moonlit Bakery (Comedy, Romance): liked\n- Iron Verdict (Crime, Drama): disliked\n"
            "- Two Left Shoes (Comedy): liked"
        ),
        f"{ANALYSE_OPENING} light comedies. The disliked one is a grim crime story.",
    ),
    (PREFER, f"{PREFER_OPENING} humour and romance, and avoids crime."),
    (
        DECIDE.format(item="Cold Harbour (Crime, Thriller)"),
        f"{DECIDE_OPENING} No. The user avoids crime and grim moods.",
    ),
    (DECIDE.format(item="Sunday Picnic (Comedy)"), f"{DECIDE_OPENING} Yes. The user enjoys easy humour."),
)
"""(question, answer) of a made-up user, shown to a teacher that continues: small models copy a form, not a rule."""

_LEAKS = re.compile(
    r"""
    \b(right|correct|given|actual|true|real|known|expected)\s+(answer|label|rating|evaluation|response)\b
    | \bas\s+(given|stated|told|shown|mentioned|you\s+said)\b
    | \b(you|we)\s+(said|told|know|knew|gave|mentioned|already)\b
    | \bin\s+fact\s+(liked|disliked|likes|dislikes|enjoyed|rated)\b
    | \b(the|this|that|my)\s+(answer|label)\s+(is|was|must|should)\b
    | \b(hint|ground\s+truth|speaks\s+for\s+(yes|no))\b
    | \bbegin(s)?\s+with\b
    | \bevaluation\s*:
    | \bas\s+if\s+you\b
    """,
    re.IGNORECASE | re.VERBOSE,
)


def describe_item(item: ItemText) -> str:
    """Return title and keywords as a teacher reads them."""
    return item.title + (f" ({', '.join(item.keywords)})" if item.keywords else "")


def describe_history(history: Sequence[Row], catalogue: Sequence[ItemText]) -> str:
    """Return one line per rated item."""
    return "\n".join(
        f"- {describe_item(catalogue[row.item_index])}: {'liked' if row.liked else 'disliked'}" for row in history
    )


def hint(item: ItemText, liked: bool, *, number: int) -> str:
    """Return hint wording `number` (they repeat) that shows the right answer."""
    return HINTS[number % len(HINTS)].format(
        answer="Yes" if liked else "No",
        would="would" if liked else "would not",
        verb="liked" if liked else "did not like",
        item=describe_item(item),
    )


def hint_opening(liked: bool, *, number: int) -> str:
    """Return the begun answer of a hinted round; it leads to the taste, not to the item's rating."""
    verbs = LIKE_OPENINGS if liked else DISLIKE_OPENINGS
    return f"{'Yes' if liked else 'No'}. The user {verbs[number % len(verbs)]}"


def leaks_label(reason: str) -> bool:
    """Return whether a reason speaks of the shown answer instead of the user's taste."""
    return _LEAKS.search(reason) is not None


def tells_outcome(reason: str, title: str) -> bool:
    """Return whether a reason reports how the user rated the target: nobody could know that before."""
    told = r"\b(liked|loved|enjoyed|disliked|hated|rated|did\s+not\s+(like|enjoy)|didn't\s+(like|enjoy))\b"
    # Up to three words such as "the film" may stand between; a comma begins another thought.
    return re.search(told + r"[\s\"']+(?:\w+[\s\"']+){0,3}" + re.escape(title), reason, re.IGNORECASE) is not None


def echoes_instructions(reason: str) -> bool:
    """Return whether a reason repeats five words in a row of what the teacher was told to do."""
    return not _INSTRUCTION_GRAMS.isdisjoint(_grams(reason))


def _grams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[start : start + _ECHO_WORDS]) for start in range(len(words) - _ECHO_WORDS + 1)}


_ECHO_WORDS = 5
_SHOWN = (SYSTEM, ANALYSE, PREFER, DECIDE, *HINTS, *(part for turn in DEMONSTRATION for part in turn))
_INSTRUCTION_GRAMS = set().union(*(_grams(text) for text in _SHOWN))
