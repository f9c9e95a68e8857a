# SPDX-License-Identifier: Apache-2.0
"""What is accepted and has no effect is said: one sentence for each field, none for a plain model."""

from __future__ import annotations

from typing import Any

import pytest

from support.model_world import SPEC, World, merged, model
from thinkrec_operator.unsupported import unsupported_fields


def told(changes: dict[str, Any], *, local: bool = False) -> list[str]:
    return unsupported_fields(model(merged(SPEC, changes)).spec, local=local)


@pytest.mark.parametrize("local", [False, True])
def test_nothing_is_said_of_a_model_that_asks_for_nothing_special(local: bool) -> None:
    assert told({"training": {"nodes": 1, "backend": "Job"}, "serving": {"replicas": 1}}, local=local) == []


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"training": {"backend": "JobSet"}}, []),
        ({"training": {"runtimeRef": {"name": "torch"}}}, ["spec.training.runtimeRef"]),
        ({"training": {"backend": "TrainJob", "runtimeRef": {"name": "torch"}}}, []),
        (
            {"training": {"backend": "TrainJob", "runtimeRef": {"name": "torch"}, "priorityClassName": "high"}},
            ["spec.training.priorityClassName"],
        ),
        ({"training": {"nodes": 2, "parallelism": 4}}, []),
        (
            {"training": {"stages": [{"name": "expert", "nodes": 2, "parallelism": 3}]}},
            ["spec.training.stages[expert].parallelism"],
        ),
        ({"training": {"stages": [{"name": "traces", "nodes": 2}]}}, ["spec.training.stages[traces].nodes"]),
        ({"training": {"args": ["--x"]}}, ["spec.training.args"]),
        ({"training": {"args": ["--x"], "image": "own:1"}}, []),
        ({"serving": {"gatewayImage": "gateway:1"}}, []),
        ({"serving": {"autoscaling": {"minReplicas": 2, "maxReplicas": 3}}}, []),
        (
            {"serving": {"autoscaling": {"maxReplicas": 3, "metrics": [{"name": "CPUUtilization", "target": 70}]}}},
            ["spec.serving.autoscaling"],
        ),
        ({"schedule": {"cron": "0 3 * * *"}}, []),
        ({"schedule": {"maxStalenessSeconds": 3600}}, []),
        ({"artifacts": {"deletionPolicy": "Delete"}}, []),
    ],
)
def test_each_field_without_effect_is_named_once(changes: dict[str, Any], fields: list[str]) -> None:
    found = told(changes)
    assert [line.split("`")[1] for line in found] == fields
    assert all(line.endswith(".") for line in found)


def test_on_a_laptop_images_and_replicas_are_left_out() -> None:
    changes = {
        "artifacts": {"deletionPolicy": "Delete"},
        "schedule": {"cron": "0 3 * * *"},
        "training": {
            "image": "own:1",
            "nodes": 2,
            "backend": "JobSet",
            "parallelism": 3,
            "stages": [{"name": "gate", "image": "gate:1"}],
        },
        "serving": {"image": "triton:1", "replicas": 3},
    }
    assert told(changes) == []
    named = [line.split("`")[1] for line in told(changes, local=True)]
    assert named == [
        "spec.training.backend",
        "spec.training.nodes",
        "spec.training.parallelism",
        "spec.artifacts.deletionPolicy",
        "spec.schedule.cron",
        "spec.training.image",
        "spec.serving.image",
        "spec.training.stages[gate].image",
        "spec.serving.replicas",
    ]


def test_the_first_visit_warns_once() -> None:
    world = World()
    world.edit({"training": {"stages": [{"name": "gate", "nodes": 2}]}})
    world.run()
    warnings = [event for event in world.events if event.reason == "FieldWithoutEffect"]
    assert [(event.type, "spec.training.stages[gate].nodes" in event.message) for event in warnings] == [
        ("Warning", True)
    ]
