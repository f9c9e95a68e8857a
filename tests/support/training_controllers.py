# SPDX-License-Identifier: Apache-2.0
"""A control plane beside which the controllers of JobSet and Kubeflow Trainer run, for `spec.training.backend`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from embedded_cluster import addon_programs, addons, cluster, programs
from embedded_cluster.cluster import Cluster
from support.kube import install_crds, require_programs, unavailable

Body = dict[str, Any]
RUNTIMES = "/apis/trainer.kubeflow.org/v1alpha1"


@contextmanager
def running(folder: Path) -> Iterator[Cluster]:
    """Start everything; skip where a program is not built yet, which fails instead under CI=true."""
    require_programs(programs.CONTROL_PLANE)
    if missing := [addon.program for addon in addon_programs.ALL if not addon.built]:
        unavailable(f"{', '.join(missing)} not built yet; run `scripts/cluster build --addons`")
    found = cluster.start(folder / "state", owned=True)
    with ExitStack() as stack:
        stack.callback(found.stop)
        install_crds(found.api)
        for addon in addon_programs.ALL:
            addons.install(found, addon)
        for addon in addon_programs.ALL:
            stack.enter_context(addons.running(found, addon))
        yield found


def kubeflows_own(name: str) -> Body:
    """Return a runtime as Kubeflow publishes it."""
    (found,) = [body for body in addon_programs.TRAINER.bodies() if body["metadata"]["name"] == name]
    return found


def runtime_without_retries(name: str) -> Body:
    """Return a runtime that starts each pod once."""
    pod = {"restartPolicy": "Never", "containers": [{"name": "node", "image": "runtime:1", "command": ["false"]}]}
    job = {
        "metadata": {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}},
        "spec": {"backoffLimit": 0, "template": {"spec": pod}},
    }
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainingRuntime",
        "metadata": {"name": name},
        "spec": {
            "mlPolicy": {"numNodes": 1, "torch": {}},
            "template": {"spec": {"replicatedJobs": [{"name": "node", "template": job}]}},
        },
    }
