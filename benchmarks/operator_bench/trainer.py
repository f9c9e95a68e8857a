# SPDX-License-Identifier: Apache-2.0
"""Kubeflow Trainer v2 beside us: the same number of objects applied, the time until each one has its child.

Trainer makes one JobSet of each TrainJob; we make a ConfigMap, a Job, an Event and a status of each model, of which the
Job is counted. Controllers are stopped, so nobody runs what is created. Trainer runs with its webhooks, as installed:
the API server asks it twice about each TrainJob, which its time and its CPU include.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from embedded_cluster import addon_programs, addons
from embedded_cluster.cluster import Cluster
from operator_bench import population
from operator_bench.bulk import Request, send
from operator_bench.operators import cpu_seconds, running
from operator_bench.report import say
from operator_bench.watching import Watch
from operator_bench.world import World
from support.waiting import wait_for
from thinkrec_operator.cluster.resources import OURS

Body = dict[str, Any]
_RUNTIME = "bench"


@dataclass
class Side:
    """One controller's rounds."""

    name: str
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)


def prepare(cluster: Cluster) -> None:
    """Install the CRDs of both projects and the runtime that TrainJobs name; nobody works for JobSets."""
    addon_programs.ensure(addon_programs.ALL)
    for addon in addon_programs.ALL:
        addons.install(cluster, addon)
    cluster.api.create("/apis/trainer.kubeflow.org/v1alpha1/clustertrainingruntimes", _runtime())


def compare(world: World, children: int, rounds: int) -> list[Side]:
    """Let each controller make so many children, in turns."""
    prepare(world.cluster)
    sides = [Side("thinkrec"), Side("trainer")]
    for round_ in range(rounds):
        for side in sides:
            namespace = f"side-{round_}-{side.name}"
            world.cluster.api.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
            measure = _ours if side is sides[0] else _theirs
            seconds, cpu = measure(world, namespace, children)
            side.seconds.append(seconds)
            side.cpu_seconds.append(cpu)
            say(f"{side.name}: {children / seconds:.0f} children/s, {1000 * cpu / children:.1f} ms of CPU each")
    return sides


def _ours(world: World, namespace: str, children: int) -> tuple[float, float]:
    with running(world.cluster.kubeconfig, world.folder / f"{namespace}.log", namespaces=namespace) as operator:
        operator.until_idle(0)
        names = [f"m{n:04}" for n in range(children)]
        return _timed(
            world.cluster,
            f"/apis/batch/v1/namespaces/{namespace}/jobs",
            lambda: population.apply_models(world.cluster, namespace, names),
            children=children,
            pid=operator.pid,
            selector=OURS,
        )


def _theirs(world: World, namespace: str, children: int) -> tuple[float, float]:
    path = f"/apis/trainer.kubeflow.org/v1alpha1/namespaces/{namespace}/trainjobs"
    sets = f"/apis/jobset.x-k8s.io/v1alpha2/namespaces/{namespace}/jobsets"
    requests = [Request("POST", path, _train_job(f"t{n:04}")) for n in range(children)]
    with addons.running(world.cluster, addon_programs.TRAINER) as pid:
        world.cluster.api.create(path, _train_job("first"))
        wait_for(lambda: world.cluster.api.find(f"{sets}/first"), "Trainer to work", seconds=60)
        return _timed(
            world.cluster, sets, lambda: send(world.cluster, requests), children=children, pid=pid, selector=""
        )


def _timed(
    cluster: Cluster, path: str, apply: Callable[[], object], *, children: int, pid: int, selector: str
) -> tuple[float, float]:
    """Return the seconds from the first apply to the last child, and the controller's CPU seconds of that time."""
    seen: dict[str, float] = {}

    def take(now: float, type_: str, body: Body) -> None:
        seen.setdefault(body["metadata"]["name"], now)

    with Watch(cluster, path, take, selector=selector):
        cpu, start = cpu_seconds(pid), time.perf_counter()
        apply()
        wait_for(lambda: len(seen) >= children, f"{children} children", seconds=300)
        return max(seen.values()) - start, cpu_seconds(pid) - cpu


def _train_job(name: str) -> Body:
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": name},
        "spec": {"runtimeRef": {"name": _RUNTIME}, "trainer": {"image": "trainer:1", "command": ["train"]}},
    }


def _runtime() -> Body:
    pod = {"containers": [{"name": "node", "image": "trainer:1", "command": ["train"]}]}
    label = {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    job = {"metadata": {"labels": label}, "spec": {"template": {"spec": pod}}}
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "ClusterTrainingRuntime",
        "metadata": {"name": _RUNTIME},
        "spec": {
            "mlPolicy": {"numNodes": 1},
            "template": {"spec": {"replicatedJobs": [{"name": "node", "template": job}]}},
        },
    }
