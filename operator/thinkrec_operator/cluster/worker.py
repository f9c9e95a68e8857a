# SPDX-License-Identifier: Apache-2.0
"""The loop of one worker, whatever it decides about: a failure of one key is told, comes back later, hurts no other."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Container
from dataclasses import dataclass
from datetime import datetime

from thinkrec_crds.group import LABEL_STAGE_KEY
from thinkrec_operator.cluster import resources
from thinkrec_operator.cluster.api import Api
from thinkrec_operator.cluster.apply import Applier
from thinkrec_operator.cluster.errors import ApiError
from thinkrec_operator.cluster.jobs import JobRecord
from thinkrec_operator.cluster.listed import read_item
from thinkrec_operator.cluster.metrics import Metrics
from thinkrec_operator.cluster.objects import ObjectRecord, Unreadable
from thinkrec_operator.cluster.observe import lost_jobs
from thinkrec_operator.cluster.progress import ProgressReader
from thinkrec_operator.cluster.refusals import Refusals
from thinkrec_operator.cluster.unreadable import unreadable_status
from thinkrec_operator.cluster.view import View
from thinkrec_operator.cluster.workqueue import Key, WorkQueue
from thinkrec_operator.observed import Settings

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a worker works with."""

    api: Api
    view: View
    """Owners of one scope, which keys name, and their children."""
    queue: WorkQueue
    applier: Applier
    refusals: Refusals
    progress: ProgressReader
    metrics: Metrics
    settings: Settings
    clock: Callable[[], datetime]


class Worker(ABC):
    """Takes keys from a queue; several tasks may run `work` of one."""

    def __init__(self, parts: Parts) -> None:
        """Use these parts."""
        self._parts = parts

    @abstractmethod
    async def reconcile(self, key: Key) -> str:
        """Observe, decide, apply; return in a word how it went."""

    async def work(self) -> None:
        """Take keys for ever."""
        while True:
            key = await self._parts.queue.get()
            try:
                await self._visit(key)
            finally:
                self._parts.queue.done(key)
            await asyncio.sleep(0)  # a visit that calls nobody gives no turn to watches and probes by itself

    async def _visit(self, key: Key) -> None:
        start, result = time.perf_counter(), "error"
        try:
            result = await self.reconcile(key)
        except ApiError as error:
            result = await self._failed(key, error)
        except Exception:  # a defect in one object's path must neither stop the worker nor be lost
            wait = self._parts.queue.retry(key)
            _log.exception("%s/%s: unexpected; again in %.1f s", *key, wait)
        finally:
            self._parts.metrics.reconciles.labels(result).inc()
            self._parts.metrics.reconcile_duration.observe(time.perf_counter() - start)

    async def _failed(self, key: Key, error: ApiError) -> str:
        wait = self._parts.queue.retry(key, after=error.retry_after)
        if error.conflict or error.not_found or error.status == 422:
            await self._look_again(key)
        level = logging.INFO if error.conflict else logging.WARNING
        _log.log(level, "%s/%s: %s; again in %.1f s", *key, error, wait)
        return "conflict" if error.conflict else "api-error"

    async def _look_again(self, key: Key) -> None:
        """Read the owner anew where somebody else was faster, or where it is gone."""
        record, owner = self._parts.view.model(key), self._parts.view.scope.owner
        try:
            self._parts.view.put(owner, await self._parts.api.get(owner, *key))
        except ApiError as error:
            if error.not_found and record is not None:
                self._parts.view.remove(owner, record.body)

    async def forget(self, key: Key) -> None:
        """Drop all that is remembered of an owner that is gone."""
        self._parts.queue.drop(key)
        self._parts.view.let_go(key, tuple(self._parts.view.children(key).results))
        await self._parts.progress.refresh(key, (), ())

    async def read_progress(self, key: Key) -> None:
        """Look at the logs that are due."""
        children = self._parts.view.children(key)
        await self._parts.progress.refresh(key, tuple(children.jobs.values()), tuple(children.pods.values()))

    async def tell_unreadable(self, key: Key, record: ObjectRecord, found: Unreadable) -> None:
        """Tell in the status what is wrong with an owner that cannot be read, unless it says so already."""
        owner, manifest = self._parts.view.scope.owner, unreadable_status(record.body, found, self._parts.clock())
        if manifest is not None:
            self._parts.view.put(owner, await self._parts.api.apply_status(owner, manifest))
            _log.warning("%s/%s: %s", *key, found.message)

    async def make_lost_jobs_again(self, key: Key, known: Callable[[], Container[str]]) -> bool:
        """Delete Jobs whose results nobody can name any more; the stage finds its artifact and ends at once.

        `known` returns the keys of finished work; it is asked only where a Job may be lost.
        """
        lost = False
        for job in tuple(lost_jobs(self._parts.view, key, known)):
            await self._list_pods(key, job)
            if any(found.uid == job.uid for found in lost_jobs(self._parts.view, key, known)):
                _log.warning("%s/%s: Job %s succeeded, but its Pods are gone; it runs again", *key, job.name)
                await self._parts.api.delete(resources.BY_KIND[job.kind], key[0], job.name, uid=job.uid)
                lost = True
        return lost

    async def _list_pods(self, key: Key, job: JobRecord) -> None:
        """Ask the apiserver itself: the watch of Pods may be behind the watch of Jobs."""
        selector = f"{resources.OURS},{LABEL_STAGE_KEY}={job.key}"
        async for page in self._parts.api.pages(resources.POD, key[0], selector=selector):
            for item in page.items:
                self._parts.view.put(resources.POD, read_item(item))
