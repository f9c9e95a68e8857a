# SPDX-License-Identifier: Apache-2.0
"""Every wording of the trace dialogue, and the phrases by which an answer betrays that it was shown the label."""

from __future__ import annotations

import re
from collections.abc import Sequence

from thinkrec_crds.prompt import ItemText
from thinkrec_trainer.blocks import Row

SYSTEM = "You explain a user's taste in one or two short sentences. Write only about the items you are shown."
ANALYSE = "Here is what a user rated, oldest first:\n{history}\nWhat do the liked ones share, and the disliked ones?"
PREFER = "So what does this user prefer, and avoid?"
DECIDE = (
    "The next item is {item}. Would the user like it? Begin with Yes or No, then say why in one short sentence about "
    "the user's taste."
)
ANALYSE_OPENING, PREFER_OPENING, DECIDE_OPENING = "The liked ones are", "The user prefers", "Answer:"
"""Begun for a teacher that continues (the base model itself): a small model hardly ever finds the form alone."""

HINTS = (
    'The right answer is {answer}. Explain it from the user\'s taste alone. Begin with "{answer}."',
    'The user in fact {verb} {title}. Answer again: begin with "{answer}." and give the reason in the user\'s taste.',
    'Think again about {title}: look for what speaks for {answer}. Begin with "{answer}." and name the reason.',
    'We know that the answer is {answer}. Say why, as if you had found out yourself. Begin with "{answer}."',
)

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
    return f'"{item.title}"' + (f" ({', '.join(item.keywords)})" if item.keywords else "")


def describe_history(history: Sequence[Row], catalogue: Sequence[ItemText]) -> str:
    """Return one line per rated item."""
    return "\n".join(
        f"- {describe_item(catalogue[row.item_index])}: {'liked' if row.liked else 'disliked'}" for row in history
    )


def hint(item: ItemText, liked: bool, *, number: int) -> str:
    """Return hint wording `number` (they repeat) that shows the right answer."""
    return HINTS[number % len(HINTS)].format(
        answer="Yes" if liked else "No", verb="liked" if liked else "did not like", title=f'"{item.title}"'
    )


def hint_opening(liked: bool) -> str:
    """Return the begun answer of a hinted round."""
    return f"{'Yes' if liked else 'No'}. The user"


def leaks_label(reason: str) -> bool:
    """Return whether a reason speaks of the shown answer instead of the user's taste."""
    return _LEAKS.search(reason) is not None
