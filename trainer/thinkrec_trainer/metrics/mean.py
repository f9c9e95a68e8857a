# SPDX-License-Identifier: Apache-2.0
"""Mean of a per-user metric over the users it is defined for, with their number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thinkrec_trainer.metrics.rows import Floats


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean and how many users it stands on."""

    value: float
    """NaN when no user counts."""
    users: int
    """Users with a defined value."""


def mean_over_users(values: Floats) -> Mean:
    """Average (U,) per-user values, leaving NaN users out."""
    defined = values[~np.isnan(values)]
    return Mean(float(defined.mean()) if len(defined) else float("nan"), len(defined))
