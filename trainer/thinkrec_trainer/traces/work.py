# SPDX-License-Identifier: Apache-2.0
"""What the stage has done so far, and its JSON form: a checkpoint's file, and a note for other pods."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from thinkrec_trainer.teacher import Usage
from thinkrec_trainer.traces.dialogue import Outcome
from thinkrec_trainer.traces.filters import Why
from thinkrec_trainer.traces.pool import Sample

STATE_NAME = "traces.json"


@dataclass(slots=True)
class Work:
    """Samples to ask about, and the conversations that have ended."""

    pool: int = 0
    wrong: list[Sample] = field(default_factory=list)
    """In the order of asking."""
    outcomes: list[Outcome] = field(default_factory=list)
    """Of the first so many wrong samples."""
    usage: Usage = field(default_factory=Usage)

    def kept(self) -> list[Outcome]:
        """Return the traces."""
        return [outcome for outcome in self.outcomes if outcome.why is None]

    def to_json(self) -> bytes:
        """Return the whole state."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Work:
        """Return the state that `to_json` wrote."""
        state = json.loads(data)
        return cls(
            pool=state["pool"],
            wrong=[Sample(**sample) for sample in state["wrong"]],
            outcomes=[_outcome(**outcome) for outcome in state["outcomes"]],
            usage=Usage(**state["usage"]),
        )

    def save(self, folder: Path) -> None:
        """Write the checkpoint."""
        (folder / STATE_NAME).write_bytes(self.to_json())

    @classmethod
    def load(cls, folder: Path) -> Work:
        """Read the checkpoint."""
        return cls.from_json((folder / STATE_NAME).read_bytes())


def _outcome(sample: dict[str, Any], why: str | None, rounds: int, decision: str, reason: str) -> Outcome:
    return Outcome(Sample(**sample), rounds, decision, reason, None if why is None else Why(why))
