# SPDX-License-Identifier: Apache-2.0
"""apply -> first Job, and a Job's end -> the next Job, as a watch of the benchmark's own sees them."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from embedded_cluster.cluster import Cluster
from operator_bench import population
from operator_bench.operators import running
from operator_bench.report import say
from operator_bench.watching import Watch, named
from operator_bench.world import JOBS_ONLY, World
from support.models import model_manifest, models_path
from support.pretend_kubelet import PretendKubelet
from support.pretend_stages import PretendStages
from support.waiting import wait_for
from thinkrec_crds import group
from thinkrec_crds.model import ThinkRecModel
from thinkrec_operator.cluster.resources import OURS
from thinkrec_operator.graph import build_graph
from thinkrec_operator.manifests.pods import ANNOTATION_STAGE_KEY

Body = dict[str, Any]
_PAUSE = 0.5
"""Between two new models, so that they do not wait for each other."""
_HOURS = 3600.0
_JOBS = 11
_CHAINS = 5
"""One model in so many is run to its end, one after the other; of the rest only the first Job is waited for."""


@dataclass
class Latency:
    """Seconds of every sample."""

    existing: int
    apply_to_job: list[float] = field(default_factory=list)
    end_to_job: list[float] = field(default_factory=list)


class Arrivals:
    """When each Job was first seen, and first seen finished; by model and stage key."""

    def __init__(self) -> None:
        self.applied: dict[str, float] = {}
        self.created: dict[tuple[str, str], float] = {}
        self.ended: dict[tuple[str, str], float] = {}
        self.lock = threading.Lock()

    def models(self) -> set[str]:
        """Return the models of which a Job was seen."""
        with self.lock:
            return {model for model, _ in self.created}

    def finished(self, model: str) -> int:
        """Return how many of a model's Jobs have ended."""
        with self.lock:
            return sum(name == model for name, _ in self.ended)

    def take(self, now: float, type_: str, job: Body) -> None:
        """Note an event of a Job."""
        meta = job["metadata"]
        key = (meta["labels"][group.LABEL_MODEL], meta["annotations"].get(ANNOTATION_STAGE_KEY, named(job)))
        conditions = job.get("status", {}).get("conditions") or ()
        complete = any(item["type"] == "Complete" and item["status"] == "True" for item in conditions)
        with self.lock:
            self.created.setdefault(key, now)
            if complete:
                self.ended.setdefault(key, now)


def measure(world: World, existing: int, samples: int) -> Latency:
    """Apply models one after the other beside `existing` ones, never more than the machine runs at its ease."""
    namespace, arrivals, stages = world.namespace("latency"), Arrivals(), PretendStages()
    jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs"
    with (
        PretendKubelet(world.cluster, stages),
        running(world.cluster.kubeconfig, world.folder / "latency.log") as operator,
        Watch(world.cluster, jobs, arrivals.take, selector=OURS),
    ):
        operator.until_idle(existing)
        chains = [f"whole-{n:04}" for n in range(max(1, samples // _CHAINS))]
        for name in chains:
            _apply(world.cluster, namespace, name, arrivals)
            wait_for(lambda name=name: arrivals.finished(name) >= _JOBS, f"{name} to be trained", seconds=120)
        stages.delay_seconds = _HOURS
        for n in range(samples):
            _apply(world.cluster, namespace, f"first-{n:04}", arrivals)
            time.sleep(_PAUSE)
        wait_for(lambda: len(arrivals.models()) == len(arrivals.applied), "every first Job", seconds=60)
    first = [_first(arrivals, name) - at for name, at in arrivals.applied.items()]
    found = Latency(existing, first, [wait for name in chains for wait in _waits(arrivals, name)])
    say(f"{len(found.apply_to_job)} models applied, {len(found.end_to_job)} following Jobs seen")
    return found


def _apply(cluster: Cluster, namespace: str, name: str, arrivals: Arrivals) -> None:
    arrivals.applied[name] = time.perf_counter()
    cluster.api.create(models_path(namespace), model_manifest(name, experts=population.EXPERTS))


def _first(arrivals: Arrivals, name: str) -> float:
    return min(at for (model, _), at in arrivals.created.items() if model == name)


def _waits(arrivals: Arrivals, name: str) -> list[float]:
    """Return, for every Job that waited for others, the time from the end of the last of them to its creation."""
    spec = ThinkRecModel.model_validate(model_manifest(name, experts=population.EXPERTS)).spec
    graph = build_graph(spec, groups=population.EXPERTS["count"], retrain=None)
    found = []
    for stage in graph.stages:
        ends = [arrivals.ended[name, item.key] for item in stage.inputs if (name, item.key) in arrivals.ended]
        if ends and (name, stage.key) in arrivals.created:
            found.append(arrivals.created[name, stage.key] - max(ends))
    return found


def controllers(world: World) -> None:
    """Start the controllers that Jobs need, and none that would make ten thousand serving Pods."""
    world.start_controllers(JOBS_ONLY)
    wait_for(lambda: _answers(world.cluster), "the controllers")


def _answers(cluster: Cluster) -> bool:
    return cluster.api.text("/readyz") == "ok"
