# SPDX-License-Identifier: Apache-2.0
"""A control plane with thinkrec's CRDs, and the template that one real training leaves behind."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedded_cluster import cluster as clusters
from embedded_cluster.cluster import Cluster
from operator_bench.operators import running
from operator_bench.population import EXPERTS, Template
from operator_bench.report import say
from support.kube import install_crds
from support.models import condition, model_manifest, models_path
from support.pretend_kubelet import PretendKubelet
from support.pretend_stages import PretendStages
from support.waiting import wait_for

Body = dict[str, Any]
JOBS_ONLY = ("job-controller", "node-lifecycle-controller", "serviceaccount-controller", "namespace-controller")
_MANAGER = "kube-controller-manager"


@dataclass(frozen=True, slots=True)
class World:
    """A running control plane and a folder for logs."""

    cluster: Cluster
    folder: Path

    def namespace(self, name: str) -> str:
        """Make a namespace in which Pods may be created."""
        self.cluster.api.create("/api/v1/namespaces", {"metadata": {"name": name}})
        account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
        wait_for(lambda: self.cluster.api.find(account), f"the default service account of {name}")
        return name

    def stop_controllers(self) -> None:
        """End the controller manager, so that children stay as they are written."""
        self.cluster.processes.stop(_MANAGER)

    def start_controllers(self, only: Sequence[str]) -> None:
        """Start the controller manager again with these controllers."""
        argv = self.cluster.processes.get(_MANAGER).argv
        kept = [argument for argument in argv if not argument.startswith("--controllers=")]
        self.cluster.processes.start(_MANAGER, [*kept, f"--controllers={','.join(only)}"])


@contextmanager
def control_plane() -> Iterator[World]:
    """Run a control plane while inside; the operators' logs stay where something fails."""
    folder = Path(tempfile.mkdtemp(prefix="thinkrec-bench-"))
    cluster = clusters.start(folder / "state", owned=True)
    try:
        install_crds(cluster.api)
        yield World(cluster, folder)
    except BaseException:
        say(f"the operators' logs are in {folder}")
        raise
    else:
        shutil.rmtree(folder)
    finally:
        cluster.stop()


def trained(world: World, namespace: str) -> Template:
    """Train one model with the real Job controller; return what is left of it."""
    api, path = world.cluster.api, f"{models_path(namespace)}/movies"
    with (
        PretendKubelet(world.cluster, PretendStages()),
        running(world.cluster.kubeconfig, world.folder / "template.log", namespaces=namespace),
    ):
        api.create(models_path(namespace), model_manifest(experts=EXPERTS))
        wait_for(lambda: condition(api.get(path), "Ready") == "True", "the template to be Ready", seconds=120)
    (revision,) = api.items(f"/apis/apps/v1/namespaces/{namespace}/controllerrevisions")
    return Template(api.get(path), revision)
