# SPDX-License-Identifier: Apache-2.0
"""The process: list everything once, start the workers, then watch, until told to end or a part fails."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from typing import TypeVar

import kopf

from thinkrec_crds import group
from thinkrec_operator.cluster import credentials, handlers, resources
from thinkrec_operator.cluster.api import Api
from thinkrec_operator.cluster.apply import Applier
from thinkrec_operator.cluster.config import OperatorConfig
from thinkrec_operator.cluster.controller import Controller, Surroundings
from thinkrec_operator.cluster.echo import Echo
from thinkrec_operator.cluster.errors import ApiError
from thinkrec_operator.cluster.experiments import ExperimentController
from thinkrec_operator.cluster.health import Health, measure_lag, serving
from thinkrec_operator.cluster.listing import Listing
from thinkrec_operator.cluster.metrics import Metrics
from thinkrec_operator.cluster.progress import ProgressReader
from thinkrec_operator.cluster.refusals import Refusals
from thinkrec_operator.cluster.resync import Resync
from thinkrec_operator.cluster.view import View
from thinkrec_operator.cluster.worker import Parts
from thinkrec_operator.cluster.workqueue import WorkQueue

FIRST_LIST_SECONDS = 2.0
"""Pause between tries of the first list, while the apiserver or the CRDs are not there yet."""
EXPERIMENT_WORKERS = 2
DRAIN_SECONDS = 20.0
"""Time that writes at work get to end."""

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class Operator:
    """Everything one process needs, wired together."""

    def __init__(self, config: OperatorConfig, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Prepare; nothing is contacted before `run`."""
        self._config = config
        self._clock = clock
        self._metrics = Metrics()
        self._models = handlers.Lane(View(resources.MODELS), WorkQueue())
        self._experiments = handlers.Lane(View(resources.EXPERIMENTS), WorkQueue())
        self._lanes: tuple[handlers.Lane, ...] = (self._models, self._experiments)
        self._refusals = {lane.view.scope.owner.kind: Refusals() for lane in self._lanes}
        self._echo = Echo(self._metrics, time.monotonic)
        self._health = Health(self._echo)
        self._metrics.queue_depth.set_function(lambda: sum(len(lane.queue) for lane in self._lanes))

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
            served = await self._knows_experiments(api)
            self._lanes = (self._models, self._experiments) if served else (self._models,)
            resyncs = [Resync(api, lane.view, config.namespaces, self._echo) for lane in self._lanes]
            await self._first_list(resyncs)
            tasks = self._workers(api, resyncs[0])
            tasks.append(asyncio.create_task(self._resync_for_ever(api, resyncs), name="resync"))
            tasks.append(asyncio.create_task(measure_lag(self._metrics), name="lag"))
            self._health.ready = True
            due = [(resync, lane.queue.add) for resync, lane in zip(resyncs, self._lanes, strict=True)]
            listing = Listing(due)
            stack.push_async_callback(listing.close)
            registry = handlers.build(handlers.Sink(self._lanes, self._echo), proof, listing, resyncs[0].kinds)
            try:
                await self._watch(registry, tasks, _denied(resyncs))
            finally:
                await self._drain(tasks)

    async def _knows_experiments(self, api: Api) -> bool:
        """Return whether the apiserver serves experiments; where it does not, models are worked on all the same."""
        served = await _patiently(lambda: api.serves(resources.EXPERIMENT))
        if not served:
            name = f"{group.EXPERIMENT_PLURAL}.{group.GROUP}"
            _log.warning("the CRD %s is not installed: experiments are left out until it is", name)
        return served

    def _workers(self, api: Api, resync: Resync) -> list[asyncio.Task[None]]:
        parts = self._parts(api, self._experiments)
        experiments = ExperimentController(parts, self._models.view, self._models.queue.add)
        around = Surroundings(lambda: resync.kinds, experiments.model_changed, experiments.wishes)
        models = Controller(self._parts(api, self._models), around)
        names = [("worker", models)] * self._config.workers + [("experiments", experiments)] * EXPERIMENT_WORKERS
        return [
            asyncio.create_task(worker.work(), name=f"{name}-{number}") for number, (name, worker) in enumerate(names)
        ]

    def _parts(self, api: Api, lane: handlers.Lane) -> Parts:
        refusals = self._refusals_of(lane)
        return Parts(
            api=api,
            view=lane.view,
            queue=lane.queue,
            applier=Applier(api, lane.view, refusals=refusals, echo=self._echo),
            refusals=refusals,
            progress=ProgressReader(api, period=self._config.progress_period_seconds, clock=time.monotonic),
            metrics=self._metrics,
            settings=self._config.settings,
            clock=self._clock,
        )

    def _refusals_of(self, lane: handlers.Lane) -> Refusals:
        return self._refusals[lane.view.scope.owner.kind]

    async def _first_list(self, resyncs: list[Resync]) -> None:
        """List everything before the first decision: one made on half a view would create what is there already."""
        start = time.monotonic()
        for resync in resyncs:  # what is listed once is not listed again: news of it would be awaited in watches
            await _patiently(resync.run)
        for lane in self._lanes:
            for key, record in lane.view.models():
                busy = any(not job.finished for job in lane.view.children(key).jobs.values())
                lane.queue.add(key, last=record.settled and not busy)
        gc.collect()
        gc.freeze()  # what was listed stays: looking through it again and again would be most of the collector's work
        counts = (len(self._models.view), len(self._experiments.view))
        _log.info("listed %d models and %d experiments in %.1f s", *counts, time.monotonic() - start)

    async def _resync_for_ever(self, api: Api, resyncs: list[Resync]) -> None:
        resync, denied = resyncs[0], _denied(resyncs)
        kinds, served = resync.kinds, self._experiments in self._lanes
        while True:
            await asyncio.sleep(self._config.resync_seconds)
            for lane, one in zip(self._lanes, resyncs, strict=True):
                await self._resync(lane, one)
            if resync.kinds != kinds:
                raise KindsChanged(f"the cluster now knows {sorted(resync.kinds)}; watches are set up by a restart")
            with suppress(ApiError):
                if await api.serves(resources.EXPERIMENT) is not served:
                    raise KindsChanged("the CRD of experiments came or went; watches are set up by a restart")
            if _denied(resyncs) != denied:
                left_out = ", ".join(sorted(_denied(resyncs))) or "none"
                raise KindsChanged(f"namespaces left out: {left_out}; watches are set up by a restart")

    async def _resync(self, lane: handlers.Lane, resync: Resync) -> None:
        try:
            changed = await resync.run()
        except ApiError as error:
            _log.warning("resync failed: %s; again in %d s", error, self._config.resync_seconds)
            return
        for key in changed | self._refusals_of(lane).clear():
            lane.queue.add(key)

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
        while any(lane.queue.busy for lane in self._lanes) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError, KindsChanged):
                await task


async def _patiently(call: Callable[[], Awaitable[_T]]) -> _T:
    """Return what a call returns, once the apiserver and the CRDs are there."""
    while True:
        try:
            return await call()
        except ApiError as error:
            hint = ""
            if error.not_found:
                hint = f"; is the CRD {resources.MODEL.plural}.{resources.MODEL.group} installed?"
            wait = error.retry_after or FIRST_LIST_SECONDS
            _log.warning("cannot list yet: %s%s; again in %.0f s", error, hint, wait)
            await asyncio.sleep(wait)


def _denied(resyncs: list[Resync]) -> frozenset[str]:
    """Return the namespaces that could not be listed."""
    return frozenset().union(*(resync.denied for resync in resyncs))


class KindsChanged(RuntimeError):  # noqa: N818 (it is news, not a defect)
    """An optional kind was installed or removed."""
