# SPDX-License-Identifier: Apache-2.0
"""Servers that run on this machine, found by the state folders below a folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from thinkrec_operator.local.state import STATE_FOLDER, State

_DEPTHS = ("", "*/", "*/*/")
"""Where manifests usually lie: here, in a folder of their own, in a folder of such folders."""


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model that has state on this machine."""

    name: str
    """`<namespace>/<name>`."""
    folder: Path
    url: str | None
    """Of its server, where one runs now."""


def models_below(folder: Path) -> tuple[FoundModel, ...]:
    """Return the models whose manifest lies in `folder` or at most two folders below it, by name and path."""
    roots = (path for depth in _DEPTHS for path in folder.glob(f"{depth}{STATE_FOLDER}"))
    return tuple(sorted(_models(roots), key=lambda found: (found.name, found.folder)))


def models_in(state_folder: Path) -> tuple[FoundModel, ...]:
    """Return the models that keep their state in this folder."""
    return tuple(sorted(_models(iter((state_folder,))), key=lambda found: found.name))


def _models(roots: Iterator[Path]) -> Iterator[FoundModel]:
    for root in roots:
        for lock in root.glob("*/*/lock"):
            state = State(lock.parent)
            serving = state.serving() if state.holder() is not None else None  # a record may outlive a killed driver
            name = f"{lock.parent.parent.name}/{lock.parent.name}"
            yield FoundModel(name, lock.parent, serving.url if serving is not None else None)
