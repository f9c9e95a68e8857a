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
_PAUSE = 0.6
"""Between two new models: each of them brings eleven Jobs, which the machine has to run at the same time."""
_JOBS = 11


@dataclass
class Latency:
    """Seconds of every sample."""

    existing: int
    apply_to_job: list[float] = field(default_factory=list)
    end_to_job: list[float] = field(default_factory=list)


class Arrivals:
    """When each Job was first seen, and first seen finished; by model and stage key."""

    def __init__(self) -> None:
        self.created: dict[tuple[str, str], float] = {}
        self.ended: dict[tuple[str, str], float] = {}
        self.lock = threading.Lock()

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
    """Apply models one after the other beside `existing` ones; run their Jobs on a pretended node."""
    cluster, namespace, found, arrivals = world.cluster, world.namespace("latency"), Latency(existing), Arrivals()
    jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs"
    applied: dict[str, float] = {}
    with (
        PretendKubelet(cluster, PretendStages()),
        running(cluster.kubeconfig, world.folder / "latency.log") as operator,
        Watch(cluster, jobs, arrivals.take, selector=OURS),
    ):
        operator.until_idle(existing)
        for n in range(samples):
            name = f"fresh-{n:04}"
            applied[name] = time.perf_counter()
            cluster.api.create(models_path(namespace), model_manifest(name, experts=population.EXPERTS))
            time.sleep(_PAUSE)
        wait_for(lambda: len(arrivals.ended) >= samples * _JOBS, "every Job to end", seconds=300, every=1.0)
    found.apply_to_job = [_first(arrivals, name) - at for name, at in applied.items()]
    found.end_to_job = [wait for name in applied for wait in _waits(arrivals, name)]
    say(f"{len(found.apply_to_job)} models applied, {len(found.end_to_job)} following Jobs seen")
    return found


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
