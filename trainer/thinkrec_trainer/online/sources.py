# SPDX-License-Identifier: Apache-2.0
"""Where an experiment's events lie: in a store that gateways ship to, or in artifacts that were simulated."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from thinkrec_crds.findings import EVENTS_PREFIX
from thinkrec_crds.stages import AnalyseParameters
from thinkrec_trainer.context import LocalArtifact, StageContext
from thinkrec_trainer.errors import BadInput, StageError
from thinkrec_trainer.events.compact import compact
from thinkrec_trainer.store import Blobs, open_blobs

_FOLDER = "events/"
SETTLE_HOURS = 1.0
"""Hours that ended less than this ago are left alone: segments of them may still be shipped."""
_log = logging.getLogger(__name__)


@contextmanager
def opened(context: StageContext, given: AnalyseParameters) -> Iterator[Blobs]:
    """Yield the root of the events; raise BadInput where the stage is given none."""
    if given.events_uri is not None:
        yield open_blobs(given.events_uri, context.spec.store)
        return
    artifacts = {name: artifact for name, artifact in context.inputs.items() if name.startswith(EVENTS_PREFIX)}
    if not artifacts:
        raise BadInput(
            f"stage {context.spec.name} has no events: give eventsUri, or inputs named {EVENTS_PREFIX}0, "
            f"{EVENTS_PREFIX}1, …; it was given {sorted(context.inputs)}"
        )
    with tempfile.TemporaryDirectory(prefix="thinkrec-simulated-") as folder:
        _link_together(artifacts, Path(folder))
        yield open_blobs(folder)


def tidy(blobs: Blobs, model: str, since: datetime, parts: Sequence[int]) -> None:
    """Make one table of the many that each hour has, in the parts that are about to be read.

    Without it a look would ask for 32 tables a minute and gateway, for weeks; what was made once the next looks find.
    A store that cannot be written to, or that fails meanwhile, only makes the look slower.
    """
    days = (datetime.now(UTC) - since).total_seconds() / 86_400 + 1
    try:
        compact(blobs, model, days=max(days, 1.0), settle_hours=SETTLE_HOURS, parts=parts)
    except StageError as error:
        _log.warning("the event log is read as it is: %s", error)


def _link_together(artifacts: Mapping[str, LocalArtifact], root: Path) -> None:
    """Link the tables of all artifacts into one folder, so that an event which two of them hold is read once.

    The role goes into the name: two artifacts may have given a table the same one.
    """
    for role, artifact in sorted(artifacts.items()):
        for entry in artifact.manifest.files:
            if entry.path.startswith(_FOLDER):
                link = (root / entry.path).with_name(f"{role}-{Path(entry.path).name}")
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(artifact.file(entry.path).resolve())
