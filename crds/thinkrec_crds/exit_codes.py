# SPDX-License-Identifier: Apache-2.0
"""Exit codes that scripts and drivers rely on, each with its meaning and what a person can do about it.

Here are those of the `thinkrec` command; a stage's own are `artifact.ExitCode`. The numbers from 64 on are those of
BSD's sysexits, 130 and 143 those of a shell for SIGINT and SIGTERM.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Self


class ExplainedCode(IntEnum):
    """An exit code; `remedy` is empty where there is nothing to do."""

    meaning: str
    remedy: str

    def __new__(cls, value: int, meaning: str, remedy: str = "") -> Self:
        """Make a member that is its own number."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        member.remedy = remedy
        return member


class Exit(ExplainedCode):
    """How the `thinkrec` command ends."""

    DONE = 0, "Done."
    DEFECT = (
        1,
        "A defect of thinkrec, or a question that was answered with no.",
        "Please report the traceback.",
    )
    USAGE = (
        2,
        "Options or arguments are wrong.",
        "Look at `--help` of the subcommand.",
    )
    BAD_INPUT = (
        64,
        "The manifest or the data cannot work.",
        "Correct what the message names, and run it again.",
    )
    GATE_FAILED = (
        65,
        "The model is trained, but an evaluation gate was missed.",
        "Compare the metrics with `spec.evaluation.gates`; improve the data or the training, or lower the gate.",
    )
    NOT_FOUND = (
        66,
        "There is nothing of that name yet.",
        "Run the command that the message names first.",
    )
    UNAVAILABLE = (
        69,
        "No server answers, or what the command needs is not installed.",
        "Start the server with `thinkrec serve`, or install what the message names.",
    )
    FAILED = (
        70,
        "A stage or the server failed, and its retries are used up.",
        "Read the log that the message names, correct the cause, and run it again: finished stages are kept.",
    )
    BUSY = (
        75,
        "Another thinkrec process works on the same model.",
        "Wait for it, or end it with `thinkrec stop`.",
    )
    INTERRUPTED = (
        130,
        "Stopped by Ctrl-C or SIGTERM.",
        "Run it again to go on; checkpoints were written.",
    )
