# SPDX-License-Identifier: Apache-2.0
"""ROUGE-L F1: longest common subsequence of words (Lin 2004), by the rouge-score package, without stemming."""

from __future__ import annotations

from rouge_score.rouge_scorer import RougeScorer


def rouge_l(text: str, reference: str) -> float:
    """Return the F1 of `text` against one reference, 0..1."""
    scored = RougeScorer(["rougeL"], use_stemmer=False).score(reference, text)
    return float(scored["rougeL"].fmeasure)
