# SPDX-License-Identifier: Apache-2.0
"""Targets, the table and the JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_START = time.perf_counter()
_LOADS: list[float] = []


@dataclass(frozen=True, slots=True)
class Line:
    """One measured number beside its target, which is an upper bound."""

    what: str
    unit: str
    value: float
    target: float | None = None

    @property
    def ratio(self) -> float | None:
        """Return value / target; what may not happen at all has no ratio."""
        return self.value / self.target if self.target else None

    @property
    def kept(self) -> bool | None:
        """Return whether the target is kept; None where there is none."""
        return None if self.target is None else self.value <= self.target


def say(text: str) -> None:
    """Tell on stderr what goes on, with the time and the load."""
    _LOADS.append(os.getloadavg()[0])
    print(f"{time.perf_counter() - _START:6.0f} s, load {_LOADS[-1]:.1f}: {text}", file=sys.stderr, flush=True)


def percentile(samples: Sequence[float], share: float) -> float:
    """Return the smallest sample that so large a share of them does not exceed."""
    ordered = sorted(samples)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def table(lines: Sequence[Line]) -> str:
    """Return the numbers as a table."""
    head = f"{'':58}{'measured':>12}{'target':>10}{'ratio':>8}"
    return "\n".join([head, *(_row(line) for line in lines)])


def _row(line: Line) -> str:
    target = "" if line.target is None else f"{line.target:g}"
    ratio = "" if line.ratio is None else f"{line.ratio:.2f}"
    missed = " missed" if line.kept is False else ""
    return f"{f'{line.what}, {line.unit}':58}{line.value:12.3f}{target:>10}{ratio:>8}{missed}"


def save(path: Path, lines: Sequence[Line], raw: dict[str, object]) -> None:
    """Write everything as JSON."""
    machine = {
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "load_median": statistics.median(_LOADS),
        "load_highest": max(_LOADS),
    }
    rows = [
        {"what": x.what, "unit": x.unit, "value": x.value, "target": x.target, "ratio": x.ratio, "kept": x.kept}
        for x in lines
    ]
    path.write_text(json.dumps({"machine": machine, "lines": rows, "raw": raw}, indent=1) + "\n")
