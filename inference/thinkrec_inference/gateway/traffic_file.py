# SPDX-License-Identifier: Apache-2.0
"""The traffic file as it is now: read again when it changes, and the last good one where it is broken.

It is looked at in the background, never by a request: tables of many variants take a tenth of a second to make. No
file, or no path, means no experiment. In a cluster the file is a mounted ConfigMap, whose change arrives as a new link.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path

import pydantic

from thinkrec_crds.traffic import TrafficTable
from thinkrec_inference.gateway.assignment import Assigner

log = logging.getLogger(__name__)
POLL_SECONDS = 1.0
_Signature = tuple[int, int, int] | None
"""(inode, modification time in ns, size); None: there is no file."""


@dataclass(slots=True)
class TrafficFile:
    """The experiments in force, in the order of the file."""

    path: Path | None
    assigners: tuple[Assigner, ...] = ()
    valid: bool = True
    _seen: _Signature = None

    def refresh(self) -> None:
        """Read the file if it has changed since; a broken one is told once and changes nothing."""
        if self.path is None:
            return
        signature = _signature(self.path)
        if signature == self._seen:
            return
        self._seen = signature
        try:
            table = TrafficTable() if signature is None else TrafficTable.from_json(self.path.read_bytes())
        except (OSError, pydantic.ValidationError) as error:
            self.valid = False
            log.error("traffic file %s is broken, the last good one stays in force: %s", self.path, _words(error))
            return
        self.assigners = tuple(Assigner.of(experiment) for experiment in table.experiments)
        self.valid = True
        names = [f"{a.experiment.name} ({a.experiment.mode}: {a.weights})" for a in self.assigners]
        log.info("traffic: %s", "; ".join(names) or "no experiment")

    async def watch(self) -> None:
        """Refresh once a second, for ever."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            await asyncio.to_thread(self.refresh)


def _signature(path: Path) -> _Signature:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _words(error: Exception) -> str:
    if isinstance(error, pydantic.ValidationError):
        return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()[:5])
    return str(error)
