# SPDX-License-Identifier: Apache-2.0
"""How a stage fails, and what follows from it.

    StageError
    ├── BadInput      exit 64: retrying cannot help, the user must change something
    │   └── Corrupt   bytes do not match the digest that was promised for them
    ├── Temporary     exit 75: worth another attempt (network, store or teacher out of reach)
    └── Interrupted   exit 143: SIGTERM or SIGINT, after the checkpoint was saved

Any other exception is a defect of ours: traceback in the log, exit 1. A message says what was wrong, the name the user
typed, the value received and the remedy; it never holds a secret.
"""

from __future__ import annotations

from typing import ClassVar

from thinkrec_crds.artifact import ExitCode
from thinkrec_crds.conditions import Reason


class StageError(Exception):
    """Base of the expected ways to fail; `exit_code` is what the process ends with."""

    exit_code: ClassVar[ExitCode]


class BadInput(StageError):  # noqa: N818 - named after what the user must mend, not after being an error
    """The spec, a file or an artifact cannot work whatever is retried."""

    exit_code = ExitCode.BAD_INPUT

    def __init__(self, message: str, *, reason: Reason | None = None) -> None:
        """Say what was wrong; `reason` becomes the model's condition where the usual one of a stage says too little."""
        super().__init__(message)
        self.reason = reason


class Corrupt(BadInput):
    """A file's size or sha256 differs from its manifest; the message names the file."""


class Temporary(StageError):  # noqa: N818
    """The same work may succeed later."""

    exit_code = ExitCode.TEMPORARY


class Interrupted(StageError):  # noqa: N818
    """The stage was asked to stop, saved its checkpoint and stopped."""

    exit_code = ExitCode.INTERRUPTED
