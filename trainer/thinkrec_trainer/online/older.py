# SPDX-License-Identifier: Apache-2.0
"""A look makes an older one superfluous: of an experiment of weeks the store keeps two.

A status names the newest look, and the next one goes on from it. So whoever takes a look may remove the one before the
one that it goes on from; until this look is published nobody needs that one either, so that a repetition does no harm.
"""

from __future__ import annotations

import logging

from thinkrec_crds.clean import ArtifactName, CleanSpec
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_trainer.clean import remove
from thinkrec_trainer.context import StageContext
from thinkrec_trainer.errors import StageError
from thinkrec_trainer.online.findings import Before

_log = logging.getLogger(__name__)


def remove_superfluous(context: StageContext, before: Before | None) -> None:
    """Remove what the look before went on from; a store that refuses only keeps more than it needs."""
    if before is None or before.report.previous is None:
        return
    spec, name = context.spec, ArtifactName(kind=StageKind.ANALYSE, key=before.report.previous)
    root = spec.output_uri.rstrip("/").rsplit("/", 2)[0]
    order = CleanSpec(root_uri=root, checkpoint_uri=spec.checkpoint.storage_uri, store=spec.store, artifacts=(name,))
    try:
        remove(order, name)
    except StageError as error:
        _log.warning("the look %s stays in the store: %s", name.key, error)
