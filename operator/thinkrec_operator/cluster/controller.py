# SPDX-License-Identifier: Apache-2.0
"""What a worker does for a model: observe, decide, apply, and note when to look again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from thinkrec_crds.group import FINALIZER
from thinkrec_crds.model import ThinkRecModel
from thinkrec_operator.cluster.apply import Outcome
from thinkrec_operator.cluster.errors import ApiError
from thinkrec_operator.cluster.objects import ObjectRecord, Unreadable, parsed_model
from thinkrec_operator.cluster.observe import observe
from thinkrec_operator.cluster.resources import MODEL
from thinkrec_operator.cluster.worker import Parts, Worker
from thinkrec_operator.cluster.workqueue import Key
from thinkrec_operator.observed import Experiments, Observed
from thinkrec_operator.plan import Event, Plan
from thinkrec_operator.reconcile import reconcile
from thinkrec_operator.work import finished_work

DECISIONS = 4
"""In one visit: what is published, what starts, how it stands, and one more."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a decision about a model depends on besides the model and its children."""

    kinds: Callable[[], frozenset[str]]
    """Optional kinds that the cluster knows."""
    after: Callable[[Key], None]
    """Told when a model was visited, or is gone: experiments look at it again."""
    experiments: Callable[[Key], Experiments]
    """What the experiments about a model ask of it."""


@dataclass(frozen=True, slots=True)
class _Decided:
    plan: Plan
    events: tuple[Event, ...]
    outcome: Outcome
    open: bool
    """Whether another decision may find more to do."""


class Controller(Worker):
    """Reconciles models from the queue."""

    def __init__(self, parts: Parts, surroundings: Surroundings) -> None:
        """Use these parts."""
        super().__init__(parts)
        self._surroundings = surroundings

    async def reconcile(self, key: Key) -> str:
        """Decide about a model until nothing is left to do now, and write one status."""
        try:
            return await self._reconcile(key)
        finally:
            self._surroundings.after(key)  # also of a visit that failed: it may have made a revision before

    async def _reconcile(self, key: Key) -> str:
        parts = self._parts
        record = parts.view.model(key)
        if record is None:
            await self.forget(key)
            parts.metrics.forget(*key)
            return "gone"
        model = parsed_model(record)
        if isinstance(model, Unreadable):
            return await self._unreadable(key, record, model)
        await self.read_progress(key)
        observed = self._observe(key, model)
        if await self.make_lost_jobs_again(key, lambda: finished_work(observed)):
            return "lost"
        decided = await self._decide(key, observed)
        plan = decided.plan
        await parts.applier.tell(key, model, events=decided.events, status=plan.status, now=observed.now)
        if decided.outcome.failure is not None:  # only now: what fails again and again must not keep the status away
            raise decided.outcome.failure
        if plan.finalizer is False:
            await parts.applier.release(key, model.metadata.uid)
        parts.view.let_go(key, observed.completed)
        parts.metrics.model(*key, plan.status)
        parts.metrics.stages(model.status, plan.status)
        parts.queue.forget(key)
        if decided.open:
            parts.queue.add(key)
        elif plan.requeue_after is not None:
            parts.queue.add_after(key, plan.requeue_after)
        return "done"

    async def _decide(self, key: Key, observed: Observed) -> _Decided:
        """Decide and apply until there is nothing more to do now; return the last decision with the events of all.

        Each decision goes on from the status of the one before, which nobody needs to read: it lasts milliseconds. One
        that did not know of a refusal is made again from where it began.
        """
        applier, model, events = self._parts.applier, observed.model, tuple[Event, ...]()
        for _ in range(DECISIONS):
            plan = reconcile(observed)
            if model.metadata.deletion_timestamp is not None:
                if plan.children:
                    await self._require_still_there(key, model.metadata.uid)
                # No status remembers what was told of a deletion, only the clean-up Job does: told before it is there.
                await applier.tell(key, model, events=plan.events, status=plan.status, now=observed.now)
                plan = replace(plan, events=())
            outcome = await applier.children(key, model, plan)
            if outcome.refusals_changed and outcome.failure is None:
                plan = replace(plan, status=observed.model.status)
                observed = self._observe(key, observed.model)
                continue
            events += plan.events
            if outcome.failure is not None or not (outcome.changed or plan.requeue_after == 0):
                return _Decided(plan, events, outcome, open=False)
            observed = self._observe(key, observed.model.model_copy(update={"status": plan.status}))
        return _Decided(plan, events, outcome, open=True)

    async def _require_still_there(self, key: Key, uid: str) -> None:
        """Raise ApiError where a model that a clean-up is to be ordered for is gone.

        Its clean-up may have ended already: that all of its children are gone may be heard of before its own end, or
        before the answer to the write that let it go. One that comes after it could meet a new model of that name.
        """
        body = await self._parts.api.get(MODEL, *key)
        self._parts.view.put(MODEL, body)
        if body["metadata"]["uid"] != uid:
            raise ApiError(409, "Conflict", f"{key[0]}/{key[1]} is another model by now")

    def _observe(self, key: Key, model: ThinkRecModel) -> Observed:
        parts = self._parts
        return observe(
            parts.view,
            key,
            model,
            settings=parts.settings,
            now=parts.clock(),
            kinds=self._surroundings.kinds(),
            refusals=parts.refusals,
            progress=parts.progress.newest,
            experiments=self._surroundings.experiments(key),
        )

    async def _unreadable(self, key: Key, record: ObjectRecord, model: Unreadable) -> str:
        """Tell in the status what is wrong with a model that cannot be read; let it go when it is being deleted."""
        self._parts.metrics.unreadable(*key)
        if record.deleting and FINALIZER in (record.body["metadata"].get("finalizers") or []):
            await self._parts.applier.release(key, record.uid)
            _log.warning("%s/%s is let go with its artifacts left in the store: %s", *key, model.message)
        elif not record.deleting:
            await self.tell_unreadable(key, record, model)
        return "unreadable"
