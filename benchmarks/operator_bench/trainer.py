# SPDX-License-Identifier: Apache-2.0
"""Kubeflow Trainer v2 beside us: the time until what was applied has its children, in turns on one API server.

Trainer makes one child of each TrainJob, a JobSet; we make two of each new model, a ConfigMap and a Job, and write its
status with every stage and condition, where Trainer writes none. So it is compared twice: for the same number of
children (half as many models as TrainJobs), and for the same number of custom resources (twice as many children).
Controllers are stopped, so nobody runs what is created. Trainer runs with its webhooks, as installed: the API server
asks it twice about each TrainJob, which its time and its CPU include.
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


CHILDREN_OF_A_MODEL = 2
"""A stage's ConfigMap and its Job; only one stage can start at first."""


@dataclass
class Side:
    """One controller's rounds."""

    name: str
    applied: int
    """Custom resources."""
    children: int
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)


def prepare(cluster: Cluster) -> None:
    """Install the CRDs of both projects and the runtime that TrainJobs name; nobody works for JobSets."""
    addon_programs.ensure(addon_programs.ALL)
    for addon in addon_programs.ALL:
        addons.install(cluster, addon)
    cluster.api.create("/apis/trainer.kubeflow.org/v1alpha1/clustertrainingruntimes", _runtime())


def compare(world: World, children: int, rounds: int) -> tuple[Side, Side, Side]:
    """Let Trainer make so many children, and us as many, and us those of as many models; in turns."""
    prepare(world.cluster)
    same = Side("thinkrec, same children", children // CHILDREN_OF_A_MODEL, children)
    trainer = Side("trainer", children, children)
    all_ = Side("thinkrec, same resources", children, children * CHILDREN_OF_A_MODEL)
    for round_ in range(rounds):
        for number, side in enumerate((same, trainer, all_)):
            namespace = f"side-{round_}-{number}"
            world.cluster.api.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
            measure = _theirs if side is trainer else _ours
            seconds, cpu = measure(world, namespace, side.applied)
            side.seconds.append(seconds)
            side.cpu_seconds.append(cpu)
            each = 1000 * cpu / side.children
            say(f"{side.name}: {side.children / seconds:.0f} children/s, {each:.1f} ms of CPU each")
    return same, trainer, all_


def _ours(world: World, namespace: str, models: int) -> tuple[float, float]:
    """Apply models; the Job of each is written after its ConfigMap."""
    with running(world.cluster.kubeconfig, world.folder / f"{namespace}.log", namespaces=namespace) as operator:
        operator.until_idle(0)
        names = [f"m{n:04}" for n in range(models)]
        return _timed(
            world.cluster,
            f"/apis/batch/v1/namespaces/{namespace}/jobs",
            lambda: population.apply_models(world.cluster, namespace, names),
            count=models,
            pid=operator.pid,
            selector=OURS,
        )


def _theirs(world: World, namespace: str, jobs: int) -> tuple[float, float]:
    path = f"/apis/trainer.kubeflow.org/v1alpha1/namespaces/{namespace}/trainjobs"
    sets = f"/apis/jobset.x-k8s.io/v1alpha2/namespaces/{namespace}/jobsets"
    requests = [Request("POST", path, _train_job(f"t{n:04}")) for n in range(jobs)]
    with addons.running(world.cluster, addon_programs.TRAINER) as pid:
        world.cluster.api.create(path, _train_job("first"))
        wait_for(lambda: world.cluster.api.find(f"{sets}/first"), "Trainer to work", seconds=60)
        return _timed(world.cluster, sets, lambda: send(world.cluster, requests), count=jobs, pid=pid, selector="")


def _timed(
    cluster: Cluster, path: str, apply: Callable[[], object], *, count: int, pid: int, selector: str
) -> tuple[float, float]:
    """Return the seconds from the first apply until so many objects are there, and the controller's CPU seconds."""
    seen: dict[str, float] = {}

    def take(now: float, type_: str, body: Body) -> None:
        seen.setdefault(body["metadata"]["name"], now)

    with Watch(cluster, path, take, selector=selector):
        cpu, start = cpu_seconds(pid), time.perf_counter()
        apply()
        wait_for(lambda: len(seen) >= count, f"{count} objects", seconds=300)
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
