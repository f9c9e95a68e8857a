# SPDX-License-Identifier: Apache-2.0
"""A stage with a defect."""

from __future__ import annotations

import os

from thinkrec_trainer.context import StageContext, StageResult


def run(context: StageContext) -> StageResult:
    """Fail in a way that no stage may."""
    raise ZeroDivisionError(f"{os.environ['OPENAI_API_KEY']} divided")
