# SPDX-License-Identifier: Apache-2.0
"""The loop of one worker, whatever it decides about: a failure of one key is told, comes back later, hurts no other."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod

from thinkrec_crds.group import LABEL_STAGE_KEY
from thinkrec_operator.cluster import resources
from thinkrec_operator.cluster.api import Api
from thinkrec_operator.cluster.errors import ApiError
from thinkrec_operator.cluster.jobs import JobRecord
from thinkrec_operator.cluster.listed import read_item
from thinkrec_operator.cluster.metrics import Metrics
from thinkrec_operator.cluster.view import View
from thinkrec_operator.cluster.workqueue import Key, WorkQueue

_log = logging.getLogger(__name__)


class Worker(ABC):
    """Takes keys from a queue; several tasks may run `work` of one."""

    def __init__(self, api: Api, view: View, queue: WorkQueue, metrics: Metrics) -> None:
        """Work through `queue`; `view` holds what its keys name."""
        self._api = api
        self._view = view
        self._queue = queue
        self._metrics = metrics

    @abstractmethod
    async def reconcile(self, key: Key) -> str:
        """Observe, decide, apply; return in a word how it went."""

    async def work(self) -> None:
        """Take keys for ever."""
        while True:
            key = await self._queue.get()
            try:
                await self._visit(key)
            finally:
                self._queue.done(key)
            await asyncio.sleep(0)  # a visit that calls nobody gives no turn to watches and probes by itself

    async def _visit(self, key: Key) -> None:
        start, result = time.perf_counter(), "error"
        try:
            result = await self.reconcile(key)
        except ApiError as error:
            result = await self._failed(key, error)
        except Exception:  # a defect in one object's path must neither stop the worker nor be lost
            wait = self._queue.retry(key)
            _log.exception("%s/%s: unexpected; again in %.1f s", *key, wait)
        finally:
            self._metrics.reconciles.labels(result).inc()
            self._metrics.reconcile_duration.observe(time.perf_counter() - start)

    async def _failed(self, key: Key, error: ApiError) -> str:
        wait = self._queue.retry(key, after=error.retry_after)
        if error.conflict or error.not_found or error.status == 422:
            await self._look_again(key)
        level = logging.INFO if error.conflict else logging.WARNING
        _log.log(level, "%s/%s: %s; again in %.1f s", *key, error, wait)
        return "conflict" if error.conflict else "api-error"

    async def _look_again(self, key: Key) -> None:
        """Read the owner anew where somebody else was faster, or where it is gone."""
        record, owner = self._view.model(key), self._view.scope.owner
        try:
            self._view.put(owner, await self._api.get(owner, *key))
        except ApiError as error:
            if error.not_found and record is not None:
                self._view.remove(owner, record.body)

    async def list_pods(self, key: Key, job: JobRecord) -> None:
        """Ask the apiserver itself: the watch of Pods may be behind the watch of Jobs."""
        selector = f"{resources.OURS},{LABEL_STAGE_KEY}={job.key}"
        async for page in self._api.pages(resources.POD, key[0], selector=selector):
            for item in page.items:
                self._view.put(resources.POD, read_item(item))
