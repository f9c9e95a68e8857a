# SPDX-License-Identifier: Apache-2.0
"""Workers leave turns to others: probes and watches are answered while thousands of models are looked at."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

from thinkrec_operator.cluster.apply import Applier
from thinkrec_operator.cluster.controller import Controller, Surroundings
from thinkrec_operator.cluster.metrics import Metrics
from thinkrec_operator.cluster.refusals import Refusals
from thinkrec_operator.cluster.view import View
from thinkrec_operator.cluster.worker import Parts
from thinkrec_operator.cluster.workqueue import WorkQueue
from thinkrec_operator.observed import Experiments


class NoProgress:
    """Reads nothing, so that a visit never waits for anybody."""

    async def refresh(self, *_: object) -> None:
        """Do nothing."""


def test_visits_that_wait_for_nobody_do_not_keep_the_loop_to_themselves() -> None:
    keys = [("shop", f"model-{number}") for number in range(100)]
    due: list[int] = []

    async def scenario() -> None:
        queue, view = WorkQueue(), View()
        given: dict[str, Any] = {field.name: None for field in dataclasses.fields(Parts)}
        given |= {"view": view, "queue": queue, "metrics": Metrics(), "refusals": Refusals()}
        given |= {"progress": NoProgress(), "applier": Applier.__new__(Applier)}
        for key in keys:  # none of them exists: each visit ends at once
            queue.add(key)
        alone = Surroundings(frozenset, lambda key: None, lambda key: Experiments())
        worker = asyncio.create_task(Controller(Parts(**given), alone).work())
        while not queue.idle:
            due.append(len(queue))
            await asyncio.sleep(0)
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)

    asyncio.run(scenario())
    assert len(due) >= len(keys) / 2
