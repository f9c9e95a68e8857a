# SPDX-License-Identifier: Apache-2.0
"""The termination message: how a container tells the operator what became of it, in at most 4 KiB of JSON."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from thinkrec_crds.artifact import TERMINATION_MESSAGE_BYTES, TerminationMessage
from thinkrec_crds.conditions import Reason
from thinkrec_crds.stages import StageSpec
from thinkrec_trainer.logs import masked, secret_values
from thinkrec_trainer.store import Published

TERMINATION_VARIABLE = "THINKREC_TERMINATION_PATH"
TERMINATION_DEFAULT = "/dev/termination-log"
NOTES_VARIABLE = "THINKREC_LAUNCH_NOTES"
"""Folder in which the processes under one `torchrun` command leave their exit codes and messages."""
_ERROR_CHARACTERS = 1500

_log = logging.getLogger(__name__)


def success(spec: StageSpec, published: Published) -> TerminationMessage:
    """Return the message of a stage whose artifact is in the store."""
    return TerminationMessage(
        key=spec.key,
        kind=spec.kind,
        digest=published.digest,
        uri=spec.output_uri,
        metrics=published.manifest.metrics,
        counts=published.manifest.counts,
    )


def share(spec: StageSpec, name: str, published: Published) -> TerminationMessage:
    """Return the message of a pod whose share is in the store while others still work on theirs."""
    return TerminationMessage(key=spec.key, kind=spec.kind, shard=name, counts=published.manifest.counts)


def failure(spec: StageSpec, error: str, reason: Reason | None = None) -> TerminationMessage:
    """Return the message of a failed stage: one line, without secrets."""
    return TerminationMessage(key=spec.key, kind=spec.kind, error=one_line(error), reason=reason)


def one_line(text: str) -> str:
    """Return a text masked, on one line and short.

    Masked first: a secret with a line break or two spaces in it is found only while it still has them.
    """
    return " ".join(masked(text, secret_values()).split())[:_ERROR_CHARACTERS]


def fitted(message: TerminationMessage, limit: int = TERMINATION_MESSAGE_BYTES) -> str:
    """Return the message's JSON within `limit` bytes: counts are dropped first, then metrics, longest names first."""
    text = message.to_json()
    while len(text.encode()) > limit and (message.counts or message.metrics):
        name = "counts" if message.counts else "metrics"
        rest: dict[str, float] = dict(message.counts or message.metrics)
        rest.pop(max(rest, key=len))
        message = message.model_copy(update={name: rest})
        text = message.to_json()
    if len(text.encode()) > limit and message.error:
        return fitted(message.model_copy(update={"error": message.error[: len(message.error) // 2]}), limit)
    return text


@dataclass(frozen=True, slots=True)
class Note:
    """How one process of several ended."""

    rank: int
    code: int
    message: str | None


def announce() -> None:
    """Tell the parent which process this is, so that it can pass signals on."""
    if folder := os.environ.get(NOTES_VARIABLE):
        (Path(folder) / f"{os.environ['RANK']}.pid").write_text(str(os.getpid()))


def leave(code: int, message: str | None) -> None:
    """Say how this process ends: to the container runtime, or as a note to the parent that started several.

    Without such a parent only the first process speaks: there is one message per container.
    """
    rank = os.environ.get("RANK", "0")
    if folder := os.environ.get(NOTES_VARIABLE):
        scratch = Path(folder) / f"{rank}.new"
        scratch.write_text(json.dumps([int(rank), code, message]))
        scratch.rename(Path(folder) / f"{rank}.json")
    elif message is not None and rank == "0":
        write(message)


def read_notes(folder: Path) -> list[Note]:
    """Return what the processes left, by rank."""
    return sorted((Note(*json.loads(path.read_text())) for path in folder.glob("*.json")), key=lambda note: note.rank)


def write(text: str) -> None:
    """Write the message where the container runtime looks for it."""
    path = Path(os.environ.get(TERMINATION_VARIABLE) or TERMINATION_DEFAULT)
    try:
        path.write_text(text)
    except OSError as error:
        # Outside Kubernetes there may be no such place; the log still has the whole message.
        _log.warning("termination message not written to %s (%s): %s", path, error.strerror, text)
