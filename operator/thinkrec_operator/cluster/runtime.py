# SPDX-License-Identifier: Apache-2.0
"""The process: list everything once, start the workers, then watch, until told to end or a part fails."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime

import kopf

from thinkrec_operator.cluster import credentials, handlers, resources
from thinkrec_operator.cluster.api import Api
from thinkrec_operator.cluster.apply import Applier
from thinkrec_operator.cluster.config import OperatorConfig
from thinkrec_operator.cluster.controller import Controller, Parts
from thinkrec_operator.cluster.echo import Echo
from thinkrec_operator.cluster.errors import ApiError
from thinkrec_operator.cluster.health import Health, measure_lag, serving
from thinkrec_operator.cluster.listing import Listing
from thinkrec_operator.cluster.metrics import Metrics
from thinkrec_operator.cluster.progress import ProgressReader
from thinkrec_operator.cluster.refusals import Refusals
from thinkrec_operator.cluster.resync import Resync
from thinkrec_operator.cluster.view import View
from thinkrec_operator.cluster.workqueue import WorkQueue

FIRST_LIST_SECONDS = 2.0
"""Pause between tries of the first list, while the apiserver or the CRDs are not there yet."""
DRAIN_SECONDS = 20.0
"""Time that writes at work get to end."""

_log = logging.getLogger(__name__)


class Operator:
    """Everything one process needs, wired together."""

    def __init__(self, config: OperatorConfig, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Prepare; nothing is contacted before `run`."""
        self._config = config
        self._clock = clock
        self._metrics = Metrics()
        self._view = View()
        self._queue = WorkQueue()
        self._refusals = Refusals()
        self._echo = Echo(self._metrics, time.monotonic)
        self._health = Health(self._echo)
        self._metrics.queue_depth.set_function(lambda: len(self._queue))

    async def run(self) -> None:
        """Work until SIGTERM; raise what ended a watch, so that the process ends and Kubernetes starts it again."""
        config = self._config
        proof = await credentials.load()
        api = Api(proof, self._metrics, connections=config.workers * 2)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(api.close)
            await stack.enter_async_context(
                serving(self._health, self._metrics, health_port=config.health_port, metrics_port=config.metrics_port)
            )
            resync = Resync(api, self._view, config.namespaces, self._echo)
            await self._first_list(resync)
            controller = Controller(self._parts(api, resync))
            tasks = [asyncio.create_task(controller.work(), name=f"worker-{n}") for n in range(config.workers)]
            tasks.append(asyncio.create_task(self._resync_for_ever(resync), name="resync"))
            tasks.append(asyncio.create_task(measure_lag(self._metrics), name="lag"))
            self._health.ready = True
            listing = Listing(resync, self._queue.add)
            stack.push_async_callback(listing.close)
            sink = handlers.Sink(self._view, self._queue, self._echo)
            registry = handlers.build(sink, proof, listing, resync.kinds)
            try:
                await self._watch(registry, tasks, resync.denied)
            finally:
                await self._drain(tasks)

    def _parts(self, api: Api, resync: Resync) -> Parts:
        config = self._config
        return Parts(
            api=api,
            view=self._view,
            queue=self._queue,
            applier=Applier(api, self._view, refusals=self._refusals, echo=self._echo),
            refusals=self._refusals,
            progress=ProgressReader(api, period=config.progress_period_seconds, clock=time.monotonic),
            metrics=self._metrics,
            settings=config.settings,
            kinds=lambda: resync.kinds,
            clock=self._clock,
        )

    async def _first_list(self, resync: Resync) -> None:
        """List everything before the first decision: one made on half a view would create what is there already."""
        start = time.monotonic()
        while True:
            try:
                await resync.run()
                break
            except ApiError as error:
                hint = ""
                if error.not_found:
                    hint = f"; is the CRD {resources.MODEL.plural}.{resources.MODEL.group} installed?"
                wait = error.retry_after or FIRST_LIST_SECONDS
                _log.warning("cannot list yet: %s%s; again in %.0f s", error, hint, wait)
                await asyncio.sleep(wait)
        for key, record in self._view.models():
            busy = any(not job.finished for job in self._view.children(key).jobs.values())
            self._queue.add(key, last=record.settled and not busy)
        gc.collect()
        gc.freeze()  # what was listed stays: looking through it again and again would be most of the collector's work
        _log.info("listed %d models in %.1f s", len(self._view), time.monotonic() - start)

    async def _resync_for_ever(self, resync: Resync) -> None:
        kinds, denied = resync.kinds, resync.denied
        while True:
            await asyncio.sleep(self._config.resync_seconds)
            try:
                changed = await resync.run()
            except ApiError as error:
                _log.warning("resync failed: %s; again in %d s", error, self._config.resync_seconds)
                continue
            for key in changed | self._refusals.clear():
                self._queue.add(key)
            if resync.kinds != kinds:
                raise KindsChanged(f"the cluster now knows {sorted(resync.kinds)}; watches are set up by a restart")
            if resync.denied != denied:
                left_out = ", ".join(sorted(resync.denied)) or "none"
                raise KindsChanged(f"namespaces left out: {left_out}; watches are set up by a restart")

    async def _watch(
        self, registry: kopf.OperatorRegistry, tasks: list[asyncio.Task[None]], denied: frozenset[str]
    ) -> None:
        """Run Kopf until SIGTERM; end it when one of our own tasks ends, which none should."""
        stop = asyncio.Event()
        namespaces = tuple(name for name in self._config.namespaces if name not in denied)
        # Kopf names itself after the user otherwise, and the container's user has no name.
        os.environ.setdefault("POD_ID", socket.gethostname())
        watching = asyncio.create_task(
            kopf.operator(
                registry=registry,
                settings=handlers.settings(),
                standalone=True,
                clusterwide=not self._config.namespaces,
                namespaces=namespaces,
                stop_flag=stop,
            ),
            name="kopf",
        )
        done, _ = await asyncio.wait([watching, *tasks], return_when=asyncio.FIRST_COMPLETED)
        self._health.ending = True
        stop.set()
        await asyncio.wait([watching], timeout=DRAIN_SECONDS)
        for task in done:
            task.result()

    async def _drain(self, tasks: list[asyncio.Task[None]]) -> None:
        """Let decisions at work be written to the end, then stop."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while self._queue.busy and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError, KindsChanged):
                await task


class KindsChanged(RuntimeError):  # noqa: N818 (it is news, not a defect)
    """An optional kind was installed or removed."""
