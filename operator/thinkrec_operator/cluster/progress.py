# SPDX-License-Identifier: Apache-2.0
"""How far running stages are: the newest progress line of a Pod's log, read at most once a period."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from thinkrec_crds.artifact import Progress
from thinkrec_operator.cluster import resources
from thinkrec_operator.cluster.api import Api
from thinkrec_operator.cluster.errors import ApiError
from thinkrec_operator.cluster.jobs import JobRecord, pods_of
from thinkrec_operator.cluster.pods import PodRecord
from thinkrec_operator.cluster.workqueue import Key
from thinkrec_operator.manifests.train_job import NODE
from thinkrec_operator.manifests.training import CONTAINER
from thinkrec_operator.progress import newest_progress

_LINES = 20


class ProgressReader:
    """The newest progress of each Job at work, by its uid."""

    def __init__(self, api: Api, *, period: float, clock: Callable[[], float]) -> None:
        """Read through `api`; `clock` counts seconds."""
        self._api = api
        self._period = period
        self._clock = clock
        self._read: dict[str, float] = {}
        self._jobs: dict[Key, frozenset[str]] = {}
        self.newest: dict[str, Progress] = {}

    async def refresh(self, key: Key, jobs: Sequence[JobRecord], pods: Iterable[PodRecord]) -> None:
        """Read the logs that are due; drop what is known of Jobs that ended or are gone."""
        at_work = frozenset(job.uid for job in jobs if not job.finished)
        for uid in self._jobs.pop(key, frozenset()) - at_work:
            self._read.pop(uid, None)
            self.newest.pop(uid, None)
        if at_work:
            self._jobs[key] = at_work
        # A Pod on a node that is lost stays Running but is not ready: its log cannot be read.
        running = [pod for pod in pods if pod.phase == "Running" and pod.ready and not pod.deleting]
        for job in jobs:
            if job.finished:
                continue
            # Of several, the first of them: it is the one that tells of a training on several nodes.
            pod = min(pods_of(job, running), key=lambda found: found.name, default=None)
            if pod is not None and self._clock() - self._read.get(job.uid, float("-inf")) >= self._period:
                self._read[job.uid] = self._clock()
                await self._look(key[0], job, pod)

    async def _look(self, namespace: str, job: JobRecord, pod: PodRecord) -> None:
        try:
            container = NODE if job.kind == "TrainJob" else CONTAINER
            log = await self._api.log(resources.POD, namespace, pod.name, container=container, lines=_LINES)
        except ApiError:
            return  # the container is about to start or just ended, or its kubelet is away: progress is a courtesy
        if (found := newest_progress(log, job.key)) is not None:
            self.newest[job.uid] = found
