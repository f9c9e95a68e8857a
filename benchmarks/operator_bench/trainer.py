# SPDX-License-Identifier: Apache-2.0
"""Kubeflow Trainer v2 beside us: the same number of objects applied, the time until each one has its child.

Trainer makes one JobSet of each TrainJob; we make a ConfigMap, a Job, an Event and a status of each model, of which the
Job is counted. Controllers are stopped, so nobody runs what is created. Trainer's client allows itself 20 calls per
second, which decides its speed; `trainer, unthrottled` is the same program with that limit lifted. Its validating
webhook is never called here, which saves it work.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from embedded_cluster.cluster import Cluster
from embedded_cluster.locks import file_lock
from embedded_cluster.paths import cache_folder
from operator_bench import population
from operator_bench.bulk import Request, send
from operator_bench.operators import cpu_seconds, running
from operator_bench.report import say
from operator_bench.watching import Watch
from operator_bench.world import World
from support.seaweed import free_ports
from support.waiting import wait_for
from thinkrec_operator.cluster.resources import OURS

Body = dict[str, Any]
MODULE, VERSION = "github.com/kubeflow/trainer/v2", "v2.0.0"
JOBSET = "sigs.k8s.io/jobset@v0.8.2"
_PROGRAM = "trainer-controller-manager"
_NAMESPACE, _SECRET = "kubeflow-system", "kubeflow-trainer-webhook-cert"
_CERTIFICATES = Path("/tmp/k8s-webhook-server/serving-certs")  # fixed in the program
_RUNTIME = "bench"
_CONFIG = "ctrl.GetConfigOrDie()"
_UNTHROTTLED = "unthrottled(ctrl.GetConfigOrDie())"
_FUNCTION = """
func unthrottled(config *rest.Config) *rest.Config {
	config.QPS, config.Burst = 1000, 2000
	return config
}
"""


@dataclass
class Side:
    """One controller's rounds."""

    name: str
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)


def program(*, unthrottled: bool) -> Path:
    """Return the controller's program; build it into the cache where it is not there."""
    folder = cache_folder() / "trainer" / (f"{VERSION}-unthrottled" if unthrottled else VERSION)
    with file_lock(folder.parent / ".lock", waiting="Another process builds Kubeflow Trainer; waiting for it"):
        if not os.access(folder / _PROGRAM, os.X_OK):
            say(f"building Kubeflow Trainer {folder.name}; about two minutes on two cores")
            _build(folder, unthrottled=unthrottled)
    return folder / _PROGRAM


def _build(folder: Path, *, unthrottled: bool) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        source = shutil.copytree(module(f"{MODULE}@{VERSION}"), Path(scratch) / "source")
        subprocess.run(["chmod", "-R", "u+w", str(source)], check=True)
        if unthrottled:
            main = source / "cmd" / _PROGRAM / "main.go"
            text = main.read_text().replace(_CONFIG, _UNTHROTTLED, 1) + _FUNCTION
            main.write_text(text.replace("import (", 'import (\n\t"k8s.io/client-go/rest"', 1))
        target = Path(scratch) / _PROGRAM
        command = ["go", "build", "-trimpath", "-ldflags", "-s -w", "-o", str(target), f"./cmd/{_PROGRAM}"]
        subprocess.run(command, cwd=source, env={**os.environ, "CGO_ENABLED": "0"}, check=True)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.move(target, folder / _PROGRAM)


def module(name: str) -> Path:
    """Return the folder of a Go module in the module cache, downloaded where it is not there."""
    told = subprocess.run(["go", "mod", "download", "-json", name], capture_output=True, text=True, cwd="/")
    found = json.loads(told.stdout or "{}")
    if "Dir" not in found:
        raise RuntimeError(f"{name}: {found.get('Error') or told.stderr}")
    return Path(found["Dir"])


def prepare(cluster: Cluster) -> None:
    """Install the CRDs, the runtime that TrainJobs name, and what the program's own certificates need."""
    folders = (module(f"{MODULE}@{VERSION}") / "manifests/base/crds", module(JOBSET) / "config/components/crd/bases")
    for path in sorted(path for folder in folders for path in folder.glob("*_*.yaml")):
        body = yaml.safe_load(path.read_text())
        cluster.api.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", body)
    root = "/apis/trainer.kubeflow.org/v1alpha1"
    wait_for(lambda: cluster.api.find(f"{root}/clustertrainingruntimes"), "Trainer's CRDs")
    wait_for(lambda: cluster.api.find("/apis/jobset.x-k8s.io/v1alpha2/jobsets"), "JobSet's CRD")
    cluster.api.create("/api/v1/namespaces", {"metadata": {"name": _NAMESPACE}})
    cluster.api.create(f"/api/v1/namespaces/{_NAMESPACE}/secrets", {"metadata": {"name": _SECRET}})
    cluster.api.create("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", _webhook())
    cluster.api.create(f"{root}/clustertrainingruntimes", _runtime())


def compare(world: World, children: int, rounds: int) -> list[Side]:
    """Let each controller make so many children, in turns."""
    prepare(world.cluster)
    sides = [Side("thinkrec"), Side("trainer"), Side("trainer, unthrottled")]
    for round_ in range(rounds):
        for side in sides:
            namespace = f"side-{round_}-{side.name.replace(', ', '-')}"
            world.cluster.api.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
            if side is sides[0]:
                seconds, cpu = _ours(world, namespace, children)
            else:
                seconds, cpu = _theirs(world, namespace, children, program(unthrottled=side is sides[2]))
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


def _theirs(world: World, namespace: str, children: int, binary: Path) -> tuple[float, float]:
    path = f"/apis/trainer.kubeflow.org/v1alpha1/namespaces/{namespace}/trainjobs"
    sets = f"/apis/jobset.x-k8s.io/v1alpha2/namespaces/{namespace}/jobsets"
    requests = [Request("POST", path, _train_job(f"t{n:04}")) for n in range(children)]
    with _trainer(world, binary) as pid:
        world.cluster.api.create(path, _train_job("first"))
        wait_for(lambda: world.cluster.api.find(f"{sets}/first"), f"Trainer to work; see {world.folder}", seconds=60)
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


@contextmanager
def _trainer(world: World, binary: Path) -> Iterator[int]:
    """Run Trainer's controller while inside; hand it its certificates, which a Secret's volume would."""
    health, hook = free_ports(2)
    arguments = [f"--health-probe-bind-address=127.0.0.1:{health}", f"--webhook-server-port={hook}"]
    process = world.cluster.processes.start(
        _PROGRAM, [str(binary), *arguments], more={"KUBECONFIG": str(world.cluster.kubeconfig)}
    )
    try:
        secret = f"/api/v1/namespaces/{_NAMESPACE}/secrets/{_SECRET}"
        found = wait_for(lambda: world.cluster.api.get(secret).get("data"), "Trainer's certificates", seconds=60)
        _CERTIFICATES.mkdir(parents=True, exist_ok=True)
        for name, text in found.items():
            (_CERTIFICATES / name).write_bytes(base64.b64decode(text))
        yield process.pid
    finally:
        world.cluster.processes.stop(_PROGRAM)


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


def _webhook() -> Body:
    service = {"name": "kubeflow-trainer-controller-manager", "namespace": _NAMESPACE, "path": "/never"}
    rule = {"apiGroups": ["trainer.kubeflow.org"], "apiVersions": ["v1alpha1"], "operations": ["CREATE"]}
    return {
        "metadata": {"name": "validator.trainer.kubeflow.org"},
        "webhooks": [
            {
                "name": "validator.trainjob.trainer.kubeflow.org",
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "clientConfig": {"service": service},
                "rules": [{**rule, "resources": ["trainjobs"]}],
                "matchConditions": [{"name": "never", "expression": "false"}],
            }
        ],
    }
