# SPDX-License-Identifier: Apache-2.0
"""Reports as flat numbers: what a status and a verdict need goes through a termination message, which is small."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

MOST_BYTES = 2800
"""Of the numbers in a termination message; the rest of its 4 KiB is for addresses and counts."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A value with its interval, as it was read back from flat numbers."""

    value: float
    lower: float | None
    upper: float | None
    p_value: float | None = None
    """Of a difference, corrected."""


def packed(groups: Iterable[Mapping[str, float | None]], *, most_bytes: int) -> dict[str, float]:
    """Return the groups, the most important one first, as far as they fit into so many bytes of JSON.

    Undefined numbers are absent. The first group that does not fit ends it: what is left out is less important.
    """
    found: dict[str, float] = {}
    for group in groups:
        known = {name: round(float(value), 6) for name, value in group.items() if value is not None}
        if sum(len(name) + len(repr(value)) + 4 for name, value in (found | known).items()) > most_bytes:
            break
        found |= known
    return found


def read(numbers: Mapping[str, float], name: str) -> Measured | None:
    """Return the value of that name with what stands beside it, or None where the numbers have none."""
    if name not in numbers:
        return None
    return Measured(numbers[name], numbers.get(f"{name}/lower"), numbers.get(f"{name}/upper"), numbers.get(f"{name}/p"))
