# SPDX-License-Identifier: Apache-2.0
"""Does this engine score as the one that made the bundle? In Float32 by value, in other precisions by order."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from thinkrec_crds.bundle import GoldenPrompt
from thinkrec_crds.engine_api import EngineError, ScoreResponse

GATE_TOLERANCE = 1e-5
"""Gates are computed in fp64 and stored in fp32, so they may differ by rounding only."""
RANK_MARGIN = 0.8
"""Logits. bf16 weights move a score by up to 0.4; pairs farther apart than two such moves must keep their order."""


def compare(
    prompts: Sequence[GoldenPrompt],
    answers: Sequence[ScoreResponse | EngineError],
    *,
    tolerance: float,
    exact: bool,
) -> list[str]:
    """Return one sentence per golden prompt that is not reproduced."""
    found = [_difference(p, a, tolerance=tolerance, exact=exact) for p, a in zip(prompts, answers, strict=True)]
    return [problem for problem in found if problem]


def _difference(
    prompt: GoldenPrompt, answer: ScoreResponse | EngineError, *, tolerance: float, exact: bool
) -> str | None:
    where = f"user {prompt.user_id!r}"
    if isinstance(answer, EngineError):
        return f"{where}: refused, {answer.error}"
    gates = _largest(prompt.gates, answer.gates)
    if gates > GATE_TOLERANCE:
        return f"{where}: gates differ by {gates:.2g}, expected {prompt.gates}, got {answer.gates}"
    if exact:
        gap = _largest(prompt.scores, answer.scores)
        return f"{where}: scores differ by {gap:.2g}, allowed {tolerance:.2g}" if not gap <= tolerance else None
    swapped = reordered_pairs(prompt.scores, answer.scores)
    return f"{where}: {swapped} pairs of items changed their order" if swapped else None


def reordered_pairs(expected: Sequence[float], found: Sequence[float], *, margin: float = RANK_MARGIN) -> int:
    """Return how many pairs that are more than `margin` apart in `expected` have the opposite order in `found`."""
    pairs = itertools.combinations(range(len(expected)), 2)
    return sum(
        abs(expected[i] - expected[j]) > margin and (expected[i] - expected[j]) * (found[i] - found[j]) <= 0
        for i, j in pairs
    )


def _largest(expected: Sequence[float], found: Sequence[float]) -> float:
    """Return the largest difference; infinite where the lengths differ."""
    if len(expected) != len(found):
        return float("inf")
    return max((abs(a - b) for a, b in zip(expected, found, strict=True)), default=0.0)
