# SPDX-License-Identifier: Apache-2.0
"""Kubernetes quantities as numbers. Pure."""

from __future__ import annotations

import re
from decimal import Decimal

from thinkrec_crds.fields import Resources

_SUFFIXES = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", start=1)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", start=1)},
}
_QUANTITY = re.compile(r"^\+?([0-9]+(?:\.[0-9]+)?)(?:([eE][+-]?[0-9]+)|([numkMGTPE]|[KMGTPE]i)?)$")


def quantity(value: int | str) -> Decimal:
    """Return the number a quantity stands for; raise ValueError naming a value that is none."""
    matched = _QUANTITY.match(str(value))
    if matched is None:
        raise ValueError(f"{value!r} is no Kubernetes quantity; write for example 2, 500m or 8Gi")
    number, exponent, suffix = matched.groups()
    return Decimal(number + exponent) if exponent else Decimal(number) * _SUFFIXES[suffix or ""]


def _limit(resources: Resources, name: str) -> Decimal | None:
    value = resources.limits.get(name, resources.requests.get(name))
    return quantity(value) if value is not None else None


def cpu_threads(resources: Resources) -> int | None:
    """Return the whole CPUs a container may use (at least 1), or None where neither limit nor request says."""
    found = _limit(resources, "cpu")
    return max(1, int(found)) if found is not None else None


def gpus(resources: Resources) -> int:
    """Return the whole GPUs of a container; a slice of one (a MIG profile) is no GPU that processes can share out."""
    names = {name for name in {**resources.requests, **resources.limits} if name.endswith("/gpu")}
    return sum(int(_limit(resources, name) or 0) for name in names)


def memory_bytes(resources: Resources) -> int | None:
    """Return the memory limit in bytes, or None where there is none."""
    value = resources.limits.get("memory")
    return int(quantity(value)) if value is not None else None
