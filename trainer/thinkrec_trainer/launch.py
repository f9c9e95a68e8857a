# SPDX-License-Identifier: Apache-2.0
"""`python -m thinkrec_trainer torchrun stage.json`: one stage in several processes, in this pod and perhaps in others.

torchrun starts the processes and brings the pods together; it ends with 1 whatever went wrong. The operator needs to
know whether to retry, so this parent hands on the exit code and the termination message that matter: each process
leaves both as a note. It also passes SIGTERM to the processes themselves, because torchrun would kill them 30 seconds
later, whatever grace the pod was given. No torch here: the parent stays small.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from thinkrec_crds.artifact import ExitCode, TerminationMessage
from thinkrec_crds.scale_out import (
    DISTRIBUTED_KINDS,
    INDEX_VARIABLE,
    MASTER_ADDRESS_VARIABLE,
    MASTER_PORT_VARIABLE,
    NODE_RANK_VARIABLE,
    NODES_VARIABLE,
    PROCESSES_VARIABLE,
    RENDEZVOUS_VARIABLE,
)
from thinkrec_crds.stages import StageSpec
from thinkrec_trainer import termination
from thinkrec_trainer.errors import BadInput
from thinkrec_trainer.termination import NOTES_VARIABLE, Note, read_notes

RENDEZVOUS_SECONDS = 600
"""Pods of one training may start minutes apart: images are pulled, nodes are added."""
_DEFECT = 1
_CAUSES = (ExitCode.BAD_INPUT, _DEFECT, ExitCode.TEMPORARY, ExitCode.INTERRUPTED)
"""What explains a failure best, first: when one process fails the others lose it, and are told to stop."""
_CAUSES_AFTER_A_SIGNAL = (ExitCode.BAD_INPUT, ExitCode.INTERRUPTED, _DEFECT, ExitCode.TEMPORARY)

_log = logging.getLogger(__name__)


def world_size(spec: StageSpec, environment: Mapping[str, str]) -> int:
    """Return how many processes torchrun says there are; BadInput for several in a stage that has one."""
    size = int(environment.get("WORLD_SIZE") or 1)
    if size > 1 and spec.kind not in DISTRIBUTED_KINDS:
        raise BadInput(_one_process(spec, size))
    return size


def launch(stage: Path, spec: StageSpec) -> int:
    """Run the stage under torchrun; return the exit code that the pod should end with. Raise BadInput for settings."""
    command = _command(stage, spec, os.environ)
    with tempfile.TemporaryDirectory(prefix="thinkrec-torchrun-", ignore_cleanup_errors=True) as folder:
        notes = Path(folder)
        process = subprocess.Popen(command, env={**os.environ, NOTES_VARIABLE: folder})
        with _passing_signals(process, notes) as signalled:
            code = process.wait()
        outcome = judge(spec, code, read_notes(notes), signalled=bool(signalled))
    if outcome.message is not None:
        termination.write(outcome.message)
    return outcome.code


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the pod ends."""

    code: int
    message: str | None
    """Termination message; None where another pod has it."""


def judge(spec: StageSpec, code: int, notes: Sequence[Note], *, signalled: bool) -> Outcome:
    """Return the pod's outcome from torchrun's exit code and the notes of the processes, by rank."""
    if code == 0:
        return Outcome(ExitCode.DONE, next((note.message for note in notes if note.rank == 0), None))
    for cause in _CAUSES_AFTER_A_SIGNAL if signalled else _CAUSES:
        for note in notes:
            if note.code == cause:
                return Outcome(note.code, note.message)
    if signalled:
        return Outcome(ExitCode.INTERRUPTED, _told(spec, "stopped by a signal before the processes had begun"))
    told = (
        f"torchrun ended with {code}, and no process of this pod said why: the pods did not find each other at "
        f"{os.environ.get(MASTER_ADDRESS_VARIABLE, 'localhost')}:{os.environ.get(MASTER_PORT_VARIABLE, '')} within "
        f"{_seconds(os.environ)} s, or a process was killed (out of memory?); its log says more"
    )
    return Outcome(ExitCode.TEMPORARY, _told(spec, told))


def _command(stage: Path, spec: StageSpec, environment: Mapping[str, str]) -> list[str]:
    nodes, processes = environment.get(NODES_VARIABLE) or "1", environment.get(PROCESSES_VARIABLE) or "1"
    _require_count(NODES_VARIABLE, nodes)
    _require_count(PROCESSES_VARIABLE, processes, "auto", "cpu", "gpu")
    if spec.kind not in DISTRIBUTED_KINDS:
        raise BadInput(_one_process(spec, f"{nodes} x {processes}"))
    return [
        sys.executable,
        *("-m", "torch.distributed.run"),
        *(f"--nnodes={nodes}", f"--nproc-per-node={processes}"),
        *(["--standalone"] if nodes == "1" else _meeting(environment)),
        *("--module", "thinkrec_trainer", "run", str(stage)),
    ]


def _require_count(name: str, value: str, *words: str) -> None:
    if value not in words and not (value.isascii() and value.isdigit() and int(value) > 0):
        raise BadInput(f"{name} is {value!r}: give {' or '.join(('a number of at least 1', *words))}")


def _meeting(environment: Mapping[str, str]) -> list[str]:
    rank = environment.get(NODE_RANK_VARIABLE) or environment.get(INDEX_VARIABLE, "")
    address, port = environment.get(MASTER_ADDRESS_VARIABLE), environment.get(MASTER_PORT_VARIABLE)
    if not rank.isdigit() or not address or not port:
        wanted = (NODE_RANK_VARIABLE, MASTER_ADDRESS_VARIABLE, MASTER_PORT_VARIABLE)
        raise BadInput(
            f"{NODES_VARIABLE} is {environment[NODES_VARIABLE]}, so {', '.join(wanted)} are needed; "
            f"got {rank!r}, {address!r}, {port!r} ({INDEX_VARIABLE} stands in for the first)"
        )
    conf = f"timeout={_seconds(environment)}"
    return [f"--node-rank={rank}", f"--master-addr={address}", f"--master-port={port}", f"--rdzv-conf={conf}"]


def _seconds(environment: Mapping[str, str]) -> int:
    return int(environment.get(RENDEZVOUS_VARIABLE) or RENDEZVOUS_SECONDS)


@contextlib.contextmanager
def _passing_signals(process: subprocess.Popen[bytes], notes: Path) -> Iterator[list[int]]:
    """Pass SIGTERM and SIGINT to the processes, to torchrun as long as there are none; yield those that came."""
    arrived: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        arrived.append(number)
        processes = [int(path.read_text()) for path in notes.glob("*.pid")]
        for pid in processes or [process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    previous = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield arrived
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _one_process(spec: StageSpec, size: int | str) -> str:
    able = ", ".join(sorted(kind.value for kind in DISTRIBUTED_KINDS))
    return f"stage {spec.name} was started in {size} processes, but runs in one; only {able} can have more"


def _told(spec: StageSpec, text: str) -> str:
    _log.error("%s", text)
    message: TerminationMessage = termination.failure(spec, text)
    return termination.fitted(message)
