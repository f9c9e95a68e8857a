# SPDX-License-Identifier: Apache-2.0
"""Several variants and metrics: whose error is bounded by what.

    first metric        decides. It is compared once per variant that is not control, and the chance of ANY false winner
                        among them is bounded by the level: each comparison gets level / variants (Bonferroni).
    other metrics       together, so that the first one is not made blinder by what is shown beside it: the chance of
                        any false finding among all of them and all variants is bounded by the level too, each
                        comparison gets level / (variants * other metrics). They decide nothing.
    guardrails          not corrected. A missed harm costs more than an alarm too many, and a guardrail that becomes
                        blinder with each variant or guardrail added would punish caution.

Why Bonferroni and not Holm: interval and decision must agree. Holm decides the second comparison at a level that
depends on the first one's result, and the intervals that belong to it end at zero exactly where it decides for more
than Bonferroni does (Strassburger and Bretz 2008): they tell nothing. Between looks its order would change, too. With
Bonferroni an effect is significant if and only if its own interval excludes zero. For one variant against control, the
usual case, all of this is the level itself.
"""

from __future__ import annotations


def corrected_level(level: float, comparisons: int) -> float:
    """Return the level of each of so many comparisons, so that together they keep the given one."""
    return level / max(1, comparisons)


def corrected_p_value(p_value: float, comparisons: int) -> float:
    """Return a p-value to be held against the uncorrected level; NaN stays."""
    return p_value * comparisons if p_value * comparisons < 1 or p_value != p_value else 1.0
