# SPDX-License-Identifier: Apache-2.0
"""Does an explanation say what the score decided? First word, and no phrase of the opposite decision in the reason.

The engine writes the decision itself and lets the model go on, so the first word agrees by construction; what can go
wrong is a reason that argues for the other side ("Yes. ... so the user would not enjoy it"). The phrases are English
and few: a reason that contradicts in other words is not found, and one that weighs both sides ("does not like horror,
but this is a comedy") counts as a contradiction.
"""

from __future__ import annotations

import re

_AGAINST = re.compile(
    r"\b(would not|wouldn't|will not|won't|unlikely to|does not|doesn't) (\w+ )?(like|enjoy|love)\b", re.I
)
_IN_FAVOUR = re.compile(r"\b(would|will|likely to|likely) (\w+ )?(like|enjoy|love)\b", re.I)


def agrees(text: str, decision: str) -> bool:
    """Return whether `text` begins with `decision` ("Yes" or "No") and does not argue for the other one."""
    first = re.match(r"\W*(\w+)", text)
    if first is None or first.group(1).lower() != decision.lower():
        return False
    against = _AGAINST.search(text) is not None
    in_favour = _IN_FAVOUR.search(_AGAINST.sub("", text)) is not None
    return not against if decision == "Yes" else not in_favour or against
