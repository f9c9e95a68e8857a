# SPDX-License-Identifier: Apache-2.0
"""Repetition: the share of word triples that already occurred in the same text (1 - distinct-3, Li et al. 2016).

One measure for two uses: the trace filter rejects by it, the evaluation reports it.
"""

from __future__ import annotations

import re

GRAM = 3
"""Words of a sequence."""
_WORD = re.compile(r"\w+")


def repetition(text: str) -> float:
    """Return 0 for a text that never repeats a triple, towards 1 for a loop; 0 for fewer than four words.

    Case and punctuation do not count.
    """
    words = _WORD.findall(text.lower())
    grams = [tuple(words[start : start + GRAM]) for start in range(len(words) - GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
