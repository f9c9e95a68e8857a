# SPDX-License-Identifier: Apache-2.0
"""examples/gpu: the files fit together, the quota holds the largest stage, and the children are what README.md says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from support.model_world import World
from thinkrec_crds.model import ThinkRecModel
from thinkrec_operator.manifests import render
from thinkrec_operator.manifests.quantities import quantity
from thinkrec_operator.manifests.scaling import PENDING_REQUESTS
from thinkrec_operator.plan import AutoscalerChild, Child, DeploymentChild, JobChild

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "gpu"
Body = dict[str, Any]


def documents(name: str) -> list[Body]:
    return list(yaml.safe_load_all((FOLDER / name).read_text("utf-8")))


def of_kind(kind: str) -> dict[str, Body]:
    found = [body for name in ("cluster.yaml", "queue.yaml") for body in documents(name) if body["kind"] == kind]
    return {body["metadata"]["name"]: body for body in found}


@pytest.fixture(scope="module")
def model() -> ThinkRecModel:
    return ThinkRecModel.model_validate(documents("model.yaml")[0])


@pytest.fixture(scope="module")
def children() -> list[Child]:
    world, found = World(spec=documents("model.yaml")[0]["spec"]), list[Child]()
    for _ in range(14):
        found += world.step().children
        for name in world.active:
            world.succeed(name)
    return found


def test_every_name_that_the_model_uses_is_set_up(model: ThinkRecModel) -> None:
    training, serving = model.spec.training, model.spec.serving
    accounts = of_kind("ServiceAccount")
    for name in (training.service_account_name, serving.service_account_name):
        assert name is not None
        assert accounts[name]["metadata"]["namespace"] == model.metadata.namespace
    assert training.priority_class_name in of_kind("PriorityClass")
    assert serving.pod_template is not None
    assert serving.pod_template.spec is not None
    assert serving.pod_template.spec["priorityClassName"] in of_kind("PriorityClass")
    assert model.metadata.namespace in of_kind("Namespace")
    queue = of_kind("LocalQueue")[training.queue_name or ""]
    assert queue["metadata"]["namespace"] == model.metadata.namespace
    flavour = next(iter(of_kind("ResourceFlavor").values()))
    assert training.node_selector == flavour["spec"]["nodeLabels"] == serving.node_selector
    assert model.spec.artifacts.secret_ref is None


def test_the_quota_holds_the_largest_stage(children: list[Child]) -> None:
    group = next(iter(of_kind("ClusterQueue").values()))["spec"]["resourceGroups"][0]
    quota = {item["name"]: quantity(item["nominalQuota"]) for item in group["flavors"][0]["resources"]}
    assert set(group["coveredResources"]) == set(quota)
    for child in children:
        if isinstance(child, JobChild):
            wanted = {**child.settings.resources.requests, **child.settings.resources.limits}
            assert set(wanted) <= set(quota), "Kueue refuses what its queue does not cover"
            assert all(child.layout.pods * quantity(value) <= quota[name] for name, value in wanted.items())


def test_each_stage_is_spread_as_written(children: list[Child]) -> None:
    jobs = {child.title: child for child in children if isinstance(child, JobChild)}
    assert (jobs["adapter"].layout.nodes, jobs["adapter"].layout.processes) == (2, 4)
    assert (jobs["expert-0"].layout.nodes, jobs["expert-0"].layout.processes) == (1, 2)
    assert jobs["traces"].layout.shards == 4
    body = render(jobs["adapter"])
    pod = body["spec"]["template"]["spec"]
    assert body["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "recommenders"
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert {"name": "shm", "emptyDir": {"medium": "Memory"}} in pod["volumes"]
    assert pod["serviceAccountName"] == "films-training"
    assert "tolerations" not in render(jobs["dataset"])["spec"]["template"]["spec"]


def test_serving_scales_on_the_gauge_that_the_adapter_offers(children: list[Child]) -> None:
    scaler = render(next(child for child in children if isinstance(child, AutoscalerChild)))
    named = [metric["pods"]["metric"]["name"] for metric in scaler["spec"]["metrics"]]
    rule = documents("prometheus-adapter.yaml")[0]["rules"]["custom"][0]
    assert named == [PENDING_REQUESTS] == [rule["name"]["as"]]
    pod = render(next(child for child in children if isinstance(child, DeploymentChild)))["spec"]["template"]["spec"]
    assert pod["priorityClassName"] == "recommender-serving"
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
