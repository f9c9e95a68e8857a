# SPDX-License-Identifier: Apache-2.0
"""Shares with their own intervals, tables for people, JSON for the record."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

Cell = str | int | float | bool | None
Row = Mapping[str, Cell]
_START = time.perf_counter()


@dataclass(frozen=True, slots=True)
class Table:
    """A result: what it is about, and its rows."""

    name: str
    says: str
    rows: Sequence[Row]


def share(name: str, hits: np.typing.NDArray[np.bool_]) -> dict[str, Cell]:
    """Return the share of (E,) experiments that are hit, in percent, with its exact 95 % interval (Clopper-Pearson)."""
    found = stats.binomtest(int(hits.sum()), len(hits)).proportion_ci(0.95, method="exact")
    return {f"{name} %": 100 * float(hits.mean()), f"{name} from %": 100 * found.low, f"{name} to %": 100 * found.high}


def say(text: str) -> None:
    """Tell on stderr what goes on."""
    print(f"{time.perf_counter() - _START:6.0f} s: {text}", file=sys.stderr, flush=True)


def shown(table: Table) -> str:
    """Return the table as Markdown; a share and its interval are one column."""
    rows = [_joined(row) for row in table.rows]
    heads = list(rows[0])
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(row[head] for head in heads) + " |" for row in rows]
    return "\n".join([f"\n{table.name}: {table.says}\n", *lines])


def _joined(row: Row) -> dict[str, str]:
    cells = {name: _text(cell) for name, cell in row.items() if not name.endswith((" from %", " to %"))}
    for name in cells:
        stem = name.removesuffix(" %")
        if f"{stem} from %" in row:
            cells[name] += f" ({_text(row[f'{stem} from %'])} to {_text(row[f'{stem} to %'])})"
    return cells


def _text(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, float):
        return f"{cell:.1f}" if abs(cell) >= 1 or cell == 0 else f"{cell:.2g}"
    return f"{cell:,}".replace(",", " ") if isinstance(cell, int) else cell


def save(path: Path, tables: Sequence[Table], *, seed: int, scale: float) -> None:
    """Write everything as JSON."""
    machine = {"cores": os.cpu_count(), "architecture": platform.machine(), "python": platform.python_version()}
    found = {
        "machine": machine | {"numpy": np.__version__},
        "seed": seed,
        "scale": scale,
        "seconds": round(time.perf_counter() - _START),
        "tables": [{"name": table.name, "says": table.says, "rows": list(table.rows)} for table in tables],
    }
    path.write_text(json.dumps(found, indent=1) + "\n")
