# SPDX-License-Identifier: Apache-2.0
"""Stage `dataset`: ratings and items in four formats -> clean, indexed, time-split Parquet (docs/data.md).

    formats.py       files -> lazy tables of raw columns       values.py   raw cells -> ids, numbers, times, lists
    interactions.py  judge, sample, index, deduplicate rows    catalogue.py  titles and attributes
    splits.py        time splits (pure)                        summary.py  statistics.json (pure)
    stage.py         the stage, top to bottom

Polars only; no torch. A row that cannot be used is counted under one reason, never lost silently.
"""

from __future__ import annotations

from thinkrec_trainer.dataset.stage import run

__all__ = ["run"]
