# SPDX-License-Identifier: Apache-2.0
"""Storages of Kopf's that store nothing: it shall neither remember nor compare anything in the objects it watches.

Kopf computes the difference of every object to its last handled state, by deep copies, even where only `on.event`
handlers exist that never see it. With thousands of objects that was most of the CPU time of a start.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import kopf


class NoDiffs(kopf.DiffBaseStorage):
    """Every state is the same empty one."""

    def build(self, *, body: kopf.Body, extra_fields: Iterable[Any] | None = None) -> kopf.BodyEssence:
        """Return the empty state."""
        return {}

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        """Return the empty state."""
        return {}

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Store nothing."""


class NoProgress(kopf.ProgressStorage):
    """No handler has a state."""

    def fetch(self, **_: Any) -> None:
        """Know of nothing."""

    def store(self, **_: Any) -> None:
        """Store nothing."""

    def purge(self, **_: Any) -> None:
        """Have nothing to remove."""

    def touch(self, **_: Any) -> None:
        """Write nothing."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        """Return the state as it is: there is nothing of ours in it."""
        return essence
