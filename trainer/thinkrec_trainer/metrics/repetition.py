# SPDX-License-Identifier: Apache-2.0
"""Repetition: the share of word triples that already occurred in the same text (1 - distinct-3, Li et al. 2016)."""

from __future__ import annotations


def repetition(text: str) -> float:
    """Return 0 for a text that never repeats a triple, towards 1 for a loop; 0 for fewer than four words."""
    words = text.lower().split()
    triples = list(zip(words, words[1:], words[2:], strict=False))
    return 1 - len(set(triples)) / len(triples) if triples else 0.0
