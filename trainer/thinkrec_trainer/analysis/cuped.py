# SPDX-License-Identifier: Apache-2.0
"""CUPED: less variance by what users did before they met the experiment.

    adjusted mean  =  X̄ - θ' (C̄ - C̄_all)        θ = S_cc⁻¹ S_cx, pooled over the variants

(Deng, Xu, Kohavi and Walker 2013, "Improving the Sensitivity of Online Controlled Experiments by Utilizing
Pre-Experiment Data".) C is older than the assignment, so its expectation is the same in all
variants and the adjustment is unbiased for any θ; this θ makes the variance smallest. The scatter is pooled WITHIN the
variants: a difference between variants is what is looked for and must not enter θ. C̄_all is the mean over all of them.

A Ratio is adjusted as its linearisation, (x - R y) / Ȳ per user (delta method), regressed on the earlier numerator and
denominator. Unknown users have an indicator of their own (see sums). Covariates without variance, or that repeat each
other, take no part; where none is left, nothing is adjusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from thinkrec_trainer.analysis.estimates import Estimate, estimate, gradient, spread
from thinkrec_trainer.analysis.sums import Floats, Sums, total

_SMALLEST = 1e-9
"""Directions of the covariates' correlation matrix below this share of the largest are taken for rounding."""


@dataclass(frozen=True, slots=True, eq=False)
class Adjustment:
    """What is taken off the outcome."""

    theta: Floats
    """(1 + H,) one slope per covariate."""
    centre: Floats
    """(1 + H,) means over all variants."""


def adjustment(arms: Sequence[Sums]) -> Adjustment | None:
    """Return the adjustment that all of these variants share; None without a covariate that tells anything."""
    filled = [arm for arm in arms if arm.users > 1]
    if not filled or len(filled[0].mean) == filled[0].outcomes:
        return None
    all_users = total(filled)
    outcomes = all_users.outcomes
    within = np.sum([arm.scatter for arm in filled], axis=0)
    weights = gradient(all_users.mean[:outcomes])
    theta = _slopes(within[outcomes:, outcomes:], within[outcomes:, :outcomes] @ weights)
    return Adjustment(theta, all_users.mean[outcomes:]) if np.isfinite(theta).all() and theta.any() else None


def adjusted(sums: Sums, given: Adjustment | None) -> Estimate:
    """Return the variant's value after the adjustment, or as it is without one."""
    plain = estimate(sums)
    if given is None or not sums.users:
        return plain
    outcomes = sums.outcomes
    weights = np.concatenate([gradient(sums.mean[:outcomes]), -given.theta])
    shift = float(given.theta @ (sums.mean[outcomes:] - given.centre))
    return Estimate(plain.value - shift, spread(sums, weights), sums.users)


def _slopes(covariance: Floats, products: Floats) -> Floats:
    """Return the least-squares slopes. Covariates are brought to one scale first: 0/1 stands beside milliseconds."""
    scale = np.sqrt(np.diag(covariance))
    scale = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
    correlation = covariance * np.outer(scale, scale)
    slopes: Floats = scale * (np.linalg.pinv(correlation, rcond=_SMALLEST, hermitian=True) @ (scale * products))
    return slopes
