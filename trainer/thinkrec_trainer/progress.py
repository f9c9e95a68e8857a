# SPDX-License-Identifier: Apache-2.0
"""Progress of a stage as JSON lines on standard output: at most one a second, and always the last one.

Messages are masked as logs are: a source's address may hold a credential.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TextIO

from thinkrec_crds.artifact import Progress
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_trainer.logs import masked, secret_values

INTERVAL_SECONDS = 1.0


@dataclass(slots=True)
class ProgressLines:
    """Writes `Progress` lines to `stream`.

    The estimate of the time left counts only steps done by this process: a resumed stage starts at a step above zero.
    """

    kind: StageKind
    key: str
    stream: TextIO = field(default_factory=lambda: sys.stdout)
    clock: Callable[[], float] = time.monotonic
    secrets: tuple[str, ...] = field(default_factory=secret_values)
    _first: tuple[float, int] | None = None
    _written: float = -math.inf
    _held: Progress | None = None

    def update(self, step: int, total: int, message: str = "", metrics: Mapping[str, float] | None = None) -> None:
        """Report `step` of `total`; written when a second has passed since the last line, else held back."""
        now = self.clock()
        if self._first is None:
            self._first = (now, step)
        self._held = Progress(
            stage=self.kind,
            key=self.key,
            step=step,
            total=total,
            eta_seconds=self._eta(now, step, total),
            message=masked(message, self.secrets),
            metrics=dict(metrics or {}),
        )
        if now - self._written >= INTERVAL_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the line that is held back, if any."""
        if self._held is not None:
            self.stream.write(self._held.to_json() + "\n")
            self.stream.flush()
            self._held, self._written = None, self.clock()

    def _eta(self, now: float, step: int, total: int) -> float | None:
        start, first_step = self._first or (now, step)
        done = step - first_step
        if step >= total:
            return 0.0
        return round((now - start) / done * (total - step), 1) if done > 0 else None
