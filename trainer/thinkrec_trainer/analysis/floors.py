# SPDX-License-Identifier: Apache-2.0
"""Variances that are too small because too little was seen. Used for the always-valid intervals only.

A small arm of a skewed metric usually misses the rare large values. Then its mean AND its variance are too small at
once, and a difference looks surer the more is missing: with 10 % of the users in one arm, the share of false winners at
a level of 5 % was 7 % for a conversion of 0.3 % and 10 % for an amount that 2 % of the users spend (see
benchmarks/experiments.py). With equal arms the errors of both sides cancel. Two floors help, and both only make
intervals wider:

    pseudo-users    one converted and one unconverted user more in each arm of a Conversion, for the variance alone
                    (Agresti and Caffo 2000, "Simple and Effective Confidence Intervals for Proportions and Differences
                    of Proportions Result from Adding Two Successes and Two Failures"): an arm without any conversion
                    has a variance too
    larger arm      the arm with fewer users has at least the spread of the other one, which has seen more

The fixed-horizon test stays the textbook's, so that anybody can recompute it.
"""

from __future__ import annotations

from dataclasses import replace

from thinkrec_trainer.analysis.estimates import Difference, Estimate
from thinkrec_trainer.analysis.sums import Sums


def cautious(given: Difference, control: Sums, variant: Sums) -> Difference:
    """Return the difference with both floors under its variances."""
    return with_larger_arm(
        Difference(with_pseudo_users(given.control, control), with_pseudo_users(given.variant, variant))
    )


def with_pseudo_users(given: Estimate, sums: Sums) -> Estimate:
    """Return the estimate of a Conversion with the spread that two more users give; others as they are."""
    if sums.kind != "Conversion" or sums.users < 2:
        return given
    share = float(sums.mean[0])
    smoothed = (share * sums.users + 1) / (sums.users + 2)
    extra = smoothed * (1 - smoothed) - share * (1 - share)
    return replace(given, spread=given.spread + max(0.0, extra))


def with_larger_arm(given: Difference) -> Difference:
    """Return the difference with the smaller arm's spread at least that of the larger arm."""
    control, variant = given.control, given.variant
    if variant.users < control.users:
        return Difference(control, replace(variant, spread=max(variant.spread, control.spread)))
    if control.users < variant.users:
        return Difference(replace(control, spread=max(control.spread, variant.spread)), variant)
    return given
