# SPDX-License-Identifier: Apache-2.0
"""How far a variant's lists are from control's: the formulas of `thinkrec_inference.gateway.mirroring`, all at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thinkrec_trainer.metrics.rows import Floats, Ints
from thinkrec_trainer.simulation.lists import NOTHING


@dataclass(frozen=True, slots=True, eq=False)
class Agreement:
    """(N,) each; NaN: it is not known."""

    items: Ints
    """In control's list."""
    overlap: Floats
    """Share of them that the variant's list has too."""
    rank_correlation: Floats
    """Spearman's over the items in both, for two and more."""
    score_shift: Floats
    """Mean of the variant's score less control's over the items in both, for one and more."""


def agreement(control: Ints, other: Ints, control_scores: Floats, other_scores: Floats) -> Agreement:
    """Compare (N, K) rows of control with the variant's; scores are those of each row of the tastes."""
    same = (control[:, :, None] == other[:, None, :]) & (control != NOTHING)[:, :, None]
    common = same.any(axis=2)
    count = common.sum(axis=1)
    items = (control != NOTHING).sum(axis=1)
    shift = np.where(common, (other_scores - control_scores)[control], 0.0).sum(axis=1)
    return Agreement(
        items=items,
        overlap=_divided(count, items),
        rank_correlation=1 - _divided(6 * _squares(same, common), count * (count * count - 1)),
        score_shift=_divided(shift, count),
    )


def _squares(same: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], common: Ints) -> Ints:
    """Return (N,) sums of squared differences of an item's places among those in both lists."""
    ours = np.cumsum(common, axis=1)
    theirs = np.take_along_axis(np.cumsum(same.any(axis=1), axis=1), same.argmax(axis=2), axis=1)
    found: Ints = np.where(common, (ours - theirs) ** 2, 0).sum(axis=1)
    return found


def _divided(numerators: Ints | Floats, denominators: Ints) -> Floats:
    """Return quotients; NaN for a denominator of 0."""
    nothing = np.full(len(denominators), np.nan)
    return np.divide(numerators, denominators, out=nothing, where=denominators > 0)
