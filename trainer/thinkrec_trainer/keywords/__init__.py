# SPDX-License-Identifier: Apache-2.0
"""Stage `keywords`: at most `maxKeywords` words per item, from attributes, from a teacher, or none.

stage.py  the stage                     asking.py  prompts, chunks, who answers
text.py   cleaning (pure), noise.txt    cache.py   answers already paid for, by item digest
"""

from __future__ import annotations

from thinkrec_trainer.keywords.stage import merge, run, share

__all__ = ["merge", "run", "share"]
