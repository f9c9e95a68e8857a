# SPDX-License-Identifier: Apache-2.0
"""One namespace in which the operator works through a proxy, on a node that is pretended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedded_cluster.api import Api
from embedded_cluster.cluster import Cluster
from support.api_proxy import ApiProxy, Write
from support.forked_operator import ForkedOperator, kept_running
from support.models import condition, model_manifest, models_path
from support.operator_account import token
from support.operator_process import OperatorProcess, operator
from support.pretend_kubelet import PretendKubelet
from support.pretend_stages import PretendStages
from support.waiting import wait_for

Body = dict[str, Any]
SECONDS = 90


@dataclass
class Scene:
    """A namespace with an operator that works through a proxy."""

    api: Api
    namespace: str
    proxy: ApiProxy
    kubelet: PretendKubelet
    stages: PretendStages
    operator: OperatorProcess

    @property
    def path(self) -> str:
        return f"{models_path(self.namespace)}/movies"

    @property
    def jobs(self) -> str:
        return f"/apis/batch/v1/namespaces/{self.namespace}/jobs"

    @property
    def deployment(self) -> str:
        return f"/apis/apps/v1/namespaces/{self.namespace}/deployments/movies-serving"

    def apply(self, **spec: Any) -> None:
        """Create the model, with two experts where nothing else is said."""
        self.api.create(models_path(self.namespace), model_manifest(**{"experts": {"count": 2}, **spec}))

    def patch(self, **spec: Any) -> None:
        """Change members of the model's spec."""
        self.api.patch(self.path, {"spec": spec})

    def items(self, plural: str, group: str = "") -> list[Body]:
        """Return the objects of a kind in the namespace."""
        root = f"/apis/{group}" if group else "/api/v1"
        return self.api.items(f"{root}/namespaces/{self.namespace}/{plural}")

    def wait(self, probe: Callable[[Body], Any], what: str, seconds: float = SECONDS) -> None:
        """Wait for something about the model."""
        wait_for(lambda: probe(self.api.get(self.path)), f"{what}; see {self.operator.log}", seconds=seconds)

    def wait_ready(self) -> None:
        """Wait for the whole run."""
        self.wait(lambda model: condition(model, "Ready") == "True", "the model to be Ready")

    def wait_stage(self, name: str, state: str = "Succeeded") -> None:
        """Wait for one stage."""
        self.wait(lambda model: stage(model, name).get("state") == state, f"stage {name} to be {state}")

    def ran_once(self) -> bool:
        """Return whether no key's Pod ran twice."""
        mine = [n for key, n in self.stages.started.items() if key.startswith(f"{self.namespace}/")]
        return bool(mine) and set(mine) == {1}


def stage(model: Body, name: str) -> Body:
    """Return the row of a stage or an expert in a status; empty where there is none."""
    rows = [*model.get("status", {}).get("stages", []), *model.get("status", {}).get("experts", [])]
    return next((row for row in rows if row["name"] == name), {})


@contextmanager
def opened(cluster: Cluster, namespace: str, folder: Path, **environment: str) -> Iterator[Scene]:
    """Set the scene; keywords are more of the operator's environment variables, as of `operator`."""
    stages = PretendStages()
    with PretendKubelet(cluster, stages) as kubelet, ApiProxy(cluster, token=token(cluster)) as proxy:
        config = proxy.kubeconfig(folder / "kubeconfig")
        with operator(config, folder / "operator.log", namespaces=namespace, **environment) as process:
            yield Scene(cluster.api, namespace, proxy, kubelet, stages, process)


@contextmanager
def killed_after_every_write(scene: Scene) -> Iterator[list[str]]:
    """Let an operator work in place of the scene's that is killed after each write, and then started again.

    Yields the writes that it was killed after, as they come.
    """
    kills: list[str] = []
    log = scene.operator.log.with_name("mortal.log")
    config = scene.proxy.kubeconfig(log.with_suffix(".kubeconfig"))
    mortal = ForkedOperator(config, log, {"THINKREC_NAMESPACES": scene.namespace})

    def kill(write: Write) -> None:
        if write.status < 300:
            kills.append(f"{write.method} {write.path}")
            mortal.kill()

    scene.operator.kill()
    scene.proxy.after_write = kill
    with kept_running(mortal):
        yield kills
    scene.proxy.after_write = None
