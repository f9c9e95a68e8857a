# SPDX-License-Identifier: Apache-2.0
"""The one exception that crosses every hop of serving, and the engine's answer to a batch.

    engine process --JSON--> Triton shim --TritonError text--> client --raise--> gateway --ErrorBody--> caller

Each hop carries the same `EngineError`: an HTTP status, what was wrong, what to do.
"""

from __future__ import annotations

from pydantic import ValidationError

from thinkrec_crds.contract import Contract
from thinkrec_crds.engine_api import EngineError, ScoreResponse


class Refused(Exception):  # noqa: N818 - a refusal is an answer, not a defect
    """A request that was understood and not served."""

    def __init__(self, status: int, error: str, remedy: str = "", *, retry_after: int | None = None) -> None:
        super().__init__(error)
        self.detail = EngineError(status=status, error=error, remedy=remedy)
        self.retry_after = retry_after
        """Seconds after which another attempt makes sense; None: the same request will be refused again."""

    @classmethod
    def of(cls, detail: EngineError) -> Refused:
        """Return the exception that carries an error message received from the next hop."""
        return cls(detail.status, detail.error, detail.remedy, retry_after=1 if detail.status == 503 else None)


class ScoreResult(Contract):
    """One element of the engine's answer to POST /score: exactly one of the two is set."""

    response: ScoreResponse | None = None
    error: EngineError | None = None


def parse_error(text: str) -> EngineError | None:
    """Return the EngineError inside a text that another hop made, or None when there is none."""
    start, end = text.find("{"), text.rfind("}")
    try:
        return EngineError.from_json(text[start : end + 1]) if start >= 0 else None
    except ValidationError:
        return None
