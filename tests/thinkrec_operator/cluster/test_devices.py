# SPDX-License-Identifier: Apache-2.0
"""GPUs on the real scheduler: the node advertises the extended resource, and Pods wait, start, and share it out."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from support.models import condition
from support.scene import Scene, stage
from support.waiting import wait_for

GPU = "nvidia.com/gpu"
MIG = "nvidia.com/mig-1g.10gb"


def one(resource: str) -> dict[str, Any]:
    return {"resources": {"limits": {resource: 1}}}


@pytest.mark.parametrize("resource", [GPU, MIG])
def test_too_few_devices_are_told_and_enough_are_used(scene: Scene, resource: str) -> None:
    scene.apply(training=one(resource))
    scene.wait(
        lambda model: stage(model, "dataset").get("reason") == "Unschedulable", "the dataset to be unschedulable"
    )
    model = scene.api.get(scene.path)
    assert resource in stage(model, "dataset")["message"]
    assert condition(model, "TrainingSucceeded", "reason") == "Unschedulable"
    assert condition(model, "Stalled") == "", "waiting for a node is no mistake of the user"
    scene.kubelet.set_capacity(**{resource: "1"})
    scene.wait_ready()
    assert scene.ran_once()


def test_experts_run_beside_each_other_up_to_the_number_of_devices(scene: Scene) -> None:
    scene.kubelet.set_capacity(**{GPU: "2"})
    scene.stages.delay_seconds = 1.5
    seen, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.1):
            pods = [
                pod for pod in scene.items("pods") if pod["metadata"]["labels"].get("thinkrec.io/stage") == "expert"
            ]
            seen.append(sum(pod["status"].get("phase") == "Running" for pod in pods))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    scene.apply(training=one(GPU), experts={"count": 4})
    try:
        scene.wait_ready()
    finally:
        stop.set()
        watcher.join(10)
    assert max(seen) == 2


def test_unset_means_cpu_and_a_toleration_comes_with_a_device(scene: Scene) -> None:
    scene.apply(training={"stages": [{"name": "traces", **one(GPU)}]})
    scene.wait_stage("keywords")
    wait_for(lambda: any("traces" in job["metadata"]["name"] for job in scene.items("jobs", "batch/v1")), "the Job")
    pods = {
        job["metadata"]["labels"]["thinkrec.io/stage"]: job["spec"]["template"]["spec"]
        for job in scene.items("jobs", "batch/v1")
    }
    assert "tolerations" not in pods["dataset"]
    assert pods["dataset"]["containers"][0].get("resources") in (None, {})
    assert {"key": GPU, "operator": "Exists", "effect": "NoSchedule"} in pods["traces"]["tolerations"]


def test_serving_waits_for_its_device(scene: Scene) -> None:
    scene.apply(serving=one(GPU))
    scene.wait(lambda model: condition(model, "ServingReady", "reason") == "Unschedulable", "serving to wait")
    time.sleep(0.5)
    assert condition(scene.api.get(scene.path), "Available") == "False"
    scene.kubelet.set_capacity(**{GPU: "1"})
    scene.wait_ready()
