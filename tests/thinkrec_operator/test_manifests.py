# SPDX-License-Identifier: Apache-2.0
"""Children as Kubernetes objects: accepted by the API's own types, named for life, and the same every time.

The golden files hold one object of each kind; after a wanted change: `THINKREC_UPDATE_GOLDEN=1 pytest <this file>`.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client import ApiClient

from support.model_world import World
from thinkrec_crds.fields import Resources
from thinkrec_operator.manifests import render
from thinkrec_operator.manifests.common import merged
from thinkrec_operator.manifests.quantities import cpu_threads, memory_bytes, quantity
from thinkrec_operator.manifests.revision import record_of
from thinkrec_operator.names import child_name
from thinkrec_operator.plan import (
    AutoscalerChild,
    Child,
    ConfigMapChild,
    ControllerRevisionChild,
    DeploymentChild,
    DisruptionBudgetChild,
    JobChild,
    PeersServiceChild,
    ServiceChild,
)

GOLDEN = Path(__file__).parent / "golden"
TYPES = {
    ConfigMapChild: "V1ConfigMap",
    JobChild: "V1Job",
    ControllerRevisionChild: "V1ControllerRevision",
    DeploymentChild: "V1Deployment",
    DisruptionBudgetChild: "V1PodDisruptionBudget",
    PeersServiceChild: "V1Service",
    ServiceChild: "V1Service",
}
DNS_LABEL = re.compile(r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
FULL: dict[str, Any] = {
    "training": {
        "image": "registry.example/trainer:1",
        "nodes": 2,
        "parallelism": 4,
        "args": ["--verbose"],
        "resources": {"limits": {"cpu": "1500m", "memory": "2Gi", "nvidia.com/gpu": 1}},
        "activeDeadlineSeconds": 3600,
        "serviceAccountName": "trainer",
        "priorityClassName": "batch",
        "queueName": "gpus",
        "nodeSelector": {"gpu": "true"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "podTemplate": {
            "metadata": {"annotations": {"a": "b"}},
            "spec": {
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
                "containers": [{"name": "stage", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
            },
        },
    },
    "artifacts": {"secretRef": {"name": "store"}, "endpoint": "http://s3.example:8333", "region": "eu"},
    "serving": {
        "resources": {"requests": {"cpu": 2}, "limits": {"cpu": 4, "memory": "8Gi", "nvidia.com/gpu": 1}},
        "replicas": 2,
        "nodeSelector": {"gpu": "small"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
    },
}


def children_of(changes: dict[str, Any], *, kinds: frozenset[str] = frozenset()) -> list[Child]:
    """Return every child that one whole run creates."""
    world = World(kinds=kinds)
    world.edit(changes)
    found: dict[str, Child] = {}
    for _ in range(12):
        for child in world.step().children:
            name = child.record.name if isinstance(child, ControllerRevisionChild) else child.name
            found[f"{type(child).__name__}/{name}"] = child
        for name in world.active:
            world.succeed(name)
    return list(found.values())


@pytest.fixture(scope="module")
def every_child() -> list[Child]:
    return children_of(FULL)


def one(children: list[Child], kind: type[Child]) -> dict[str, Any]:
    return render(next(child for child in children if isinstance(child, kind)))


def test_the_api_clients_own_types_read_every_object_without_loss(every_child: list[Child]) -> None:
    client = ApiClient()
    for child in every_child:
        body = render(child)
        typed = client.deserialize(json.dumps(body), TYPES[type(child)], "application/json")
        again = client.sanitize_for_serialization(typed)  # type: ignore[no-untyped-call]
        assert again == json.loads(json.dumps(body)), body["metadata"]["name"]
    assert {type(child) for child in every_child} == set(TYPES)


def test_names_and_labels_keep_to_their_limits(every_child: list[Child]) -> None:
    for child in every_child:
        body = render(child)
        labels = body["metadata"]["labels"]
        assert DNS_LABEL.match(body["metadata"]["name"])
        assert all(len(value) <= 63 for value in labels.values())
        assert body["metadata"]["ownerReferences"][0]["uid"] == "u-1"
        assert body["metadata"]["namespace"] == "team"
        assert labels["thinkrec.io/model"] == "movies"


def test_the_longest_model_name_still_gives_distinct_names() -> None:
    model = "m" * 52
    names = {child_name(model, stage, key) for stage in ("collaborative", "projector") for key in ("1" * 8, "2" * 8)}
    assert len(names) == 4
    assert all(DNS_LABEL.match(name) for name in names)
    assert child_name("movies", "gate", "12345678") == "movies-gate-12345678"


def test_a_job_is_safe_and_ends_as_the_protocol_says(every_child: list[Child]) -> None:
    body = one(every_child, JobChild)
    spec, pod = body["spec"], body["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert pod["restartPolicy"] == "Never"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert spec["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [2, 64]
    assert spec["podFailurePolicy"]["rules"][0]["action"] == "FailJob"
    assert [rule["action"] for rule in spec["podFailurePolicy"]["rules"][1:]] == ["Ignore", "Ignore"]
    assert spec["activeDeadlineSeconds"] == 3600
    assert body["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert {"name": "OMP_NUM_THREADS", "value": "1"} in container["env"]
    assert {"name": "OMP_WAIT_POLICY", "value": "PASSIVE"} in container["env"]
    assert container["envFrom"] == [{"secretRef": {"name": "store"}}]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_the_pod_template_is_merged_by_name(every_child: list[Child]) -> None:
    template = one(every_child, JobChild)["spec"]["template"]
    assert template["metadata"]["annotations"] == {"a": "b"}
    assert {volume["name"] for volume in template["spec"]["volumes"]} == {"stage", "scratch", "data"}
    assert len(template["spec"]["containers"]) == 1
    mounts = {mount["name"] for mount in template["spec"]["containers"][0]["volumeMounts"]}
    assert mounts == {"stage", "scratch", "data"}


def test_the_job_reads_the_config_map_that_was_created_with_it(every_child: list[Child]) -> None:
    maps = {child.name: child for child in every_child if isinstance(child, ConfigMapChild)}
    for child in every_child:
        if isinstance(child, JobChild):
            stage = dict(maps[child.config_map].data)["stage.json"]
            assert json.loads(stage)["key"] == child.stage.key


def test_a_config_maps_name_follows_its_content() -> None:
    names = [
        {c.name for c in children_of({"training": {"seed": seed}}) if isinstance(c, ConfigMapChild)} for seed in (1, 2)
    ]
    stage_maps = [{name for name in found if "stage" in name} for found in names]
    assert len(stage_maps[0]) == len(stage_maps[1]) == 11
    assert not stage_maps[0] & stage_maps[1]


def test_autoscaling_leaves_the_number_of_replicas_to_the_autoscaler() -> None:
    body = one(children_of({"serving": {"autoscaling": {"maxReplicas": 3}}}), DeploymentChild)
    assert "replicas" not in body["spec"]


def test_serving_pods_stand_where_they_are_told_and_fetch_with_an_identity(every_child: list[Child]) -> None:
    pod = one(every_child, DeploymentChild)["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "trainer"
    assert pod["nodeSelector"] == {"gpu": "small"}
    assert pod["tolerations"][0] == {"key": "gpu", "operator": "Exists"}
    other = one(children_of({**FULL, "serving": {"serviceAccountName": "server"}}), DeploymentChild)
    assert other["spec"]["template"]["spec"]["serviceAccountName"] == "server"
    assert "serviceAccountName" not in one(children_of({}), DeploymentChild)["spec"]["template"]["spec"]


def test_fetching_uses_what_the_pod_may_use_but_no_device(every_child: list[Child]) -> None:
    pod = one(every_child, DeploymentChild)["spec"]["template"]["spec"]
    expected = {"requests": {"cpu": "2"}, "limits": {"cpu": "4", "memory": "8Gi"}}
    fetching = [container for container in pod["initContainers"] if container["name"].startswith("fetch-")]
    assert [container["resources"] for container in fetching] == [expected, expected]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_arguments_reach_only_an_image_of_the_users_own(every_child: list[Child]) -> None:
    own = one(every_child, JobChild)["spec"]["template"]["spec"]["containers"][0]
    assert (own["image"], own["args"]) == ("registry.example/trainer:1", ["--verbose"])
    ours = one(children_of({"training": {"args": ["--verbose"]}}), JobChild)["spec"]["template"]["spec"]["containers"][
        0
    ]
    assert "args" not in ours
    stages = [{"name": "gate", "image": "registry.example/gate:1"}]
    mixed = children_of({"training": {"args": ["--verbose"], "stages": stages}})
    given = {c.title: c.settings.args for c in mixed if isinstance(c, JobChild)}
    assert given == {**dict.fromkeys(given, ()), "gate": ("--verbose",)}


def test_a_rolling_update_loses_no_replica(every_child: list[Child]) -> None:
    spec = one(every_child, DeploymentChild)["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
    container = spec["template"]["spec"]["containers"][0]
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    command = " ".join(spec["template"]["spec"]["initContainers"][0]["command"])
    assert "thinkrec_trainer fetch s3://store/movies/bundle/" in command
    assert "--manifest-digest sha256:" in command


def test_a_revision_survives_the_way_through_the_api(every_child: list[Child]) -> None:
    child = next(child for child in every_child if isinstance(child, ControllerRevisionChild))
    assert record_of(json.loads(json.dumps(render(child)))) == child.record


def test_a_revision_is_rendered_in_the_order_in_which_it_comes_back(every_child: list[Child]) -> None:
    child = next(child for child in every_child if isinstance(child, ControllerRevisionChild))
    data = render(child)["data"]
    assert json.dumps(data) == json.dumps(data, sort_keys=True)


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.__name__)
def test_golden(every_child: list[Child], kind: type[Child]) -> None:
    same_as_golden(kind.__name__.removesuffix("Child").lower(), one(every_child, kind))


BACKENDS: dict[str, dict[str, Any]] = {
    "jobset": {"backend": "JobSet"},
    "trainjob": {"backend": "TrainJob", "runtimeRef": {"name": "torch-distributed"}},
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("title", ["adapter", "traces"])
def test_golden_of_other_backends(backend: str, title: str) -> None:
    changes = {**FULL, "training": {**FULL["training"], **BACKENDS[backend]}}
    found = children_of(changes, kinds=frozenset({"JobSet", "TrainJob"}))
    same_as_golden(f"{backend}-{title}", render(job_of(found, title)))


@pytest.mark.parametrize("title", ["adapter", "traces"])
def test_golden_of_several_pods(every_child: list[Child], title: str) -> None:
    same_as_golden(f"job-{title}", render(job_of(every_child, title)))


SCALED: dict[str, Any] = {
    "serving": {
        "autoscaling": {
            "minReplicas": 2,
            "maxReplicas": 6,
            "metrics": [{"name": "PendingRequests", "target": 8}, {"name": "CPUUtilization", "target": 70}],
        },
        "resources": {"requests": {"cpu": 4}},
        "gatewayImage": "registry.example/gateway:1",
        "limits": {"deadlineMilliseconds": 2500},
        "podTemplate": {
            "metadata": {"labels": {"team": "films"}},
            "spec": {
                "priorityClassName": "online",
                "containers": [{"name": "triton", "env": [{"name": "A", "value": "b"}]}],
            },
        },
    }
}


@pytest.fixture(scope="module")
def scaled() -> list[Child]:
    return children_of(SCALED)


@pytest.mark.parametrize("kind", [AutoscalerChild, DeploymentChild])
def test_golden_of_scaled_serving(scaled: list[Child], kind: type[Child]) -> None:
    same_as_golden(f"scaled-{kind.__name__.removesuffix('Child').lower()}", one(scaled, kind))


def test_the_autoscaler_is_what_the_api_reads_and_follows_our_own_gauge(scaled: list[Child]) -> None:
    body, client = one(scaled, AutoscalerChild), ApiClient()
    typed = client.deserialize(json.dumps(body), "V2HorizontalPodAutoscaler", "application/json")
    assert client.sanitize_for_serialization(typed) == body  # type: ignore[no-untyped-call]
    assert body["spec"]["scaleTargetRef"]["name"] == one(scaled, DeploymentChild)["metadata"]["name"]
    named = {metric["pods"]["metric"]["name"] for metric in body["spec"]["metrics"] if metric["type"] == "Pods"}
    assert named == {"thinkrec_gateway_pending_requests"}


def test_a_gateway_of_ones_own_takes_the_place_of_the_bundled_one(scaled: list[Child]) -> None:
    pod = one(scaled, DeploymentChild)["spec"]["template"]["spec"]
    triton, gateway = pod["containers"]
    ports = [port["containerPort"] for container in pod["containers"] for port in container["ports"]]
    assert len(ports) == len(set(ports))
    assert {"name": "http", "containerPort": 8080, "protocol": "TCP"} in gateway["ports"]
    assert gateway["image"] == "registry.example/gateway:1"
    assert ("--gateway-port", "8081") in zip(triton["command"], triton["command"][1:], strict=False)
    for container in pod["containers"]:
        known = {port["name"] for port in container["ports"]}
        assert container["readinessProbe"]["httpGet"]["port"] in known


def test_a_serving_pod_template_is_merged_by_name(scaled: list[Child]) -> None:
    template = one(scaled, DeploymentChild)["spec"]["template"]
    assert template["metadata"]["labels"]["team"] == "films"
    assert template["spec"]["priorityClassName"] == "online"
    assert {"name": "A", "value": "b"} in template["spec"]["containers"][0]["env"]
    assert {"name": "HOME", "value": "/scratch"} in template["spec"]["containers"][0]["env"]


@pytest.mark.parametrize("deadline", [10, 2500, 600_000])
def test_a_pod_has_time_to_answer_its_last_request(deadline: int) -> None:
    body = one(children_of({"serving": {"limits": {"deadlineMilliseconds": deadline}}}), DeploymentChild)
    pod = body["spec"]["template"]["spec"]
    stop = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= stop + deadline / 1000 + 30
    assert body["spec"]["minReadySeconds"] > 0
    probe = pod["containers"][0]["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= body["spec"]["progressDeadlineSeconds"]


def test_a_budget_lets_one_pod_go_at_a_time(every_child: list[Child]) -> None:
    body = one(every_child, DisruptionBudgetChild)
    assert body["spec"]["maxUnavailable"] == 1
    labels = one(every_child, DeploymentChild)["spec"]["template"]["metadata"]["labels"]
    assert body["spec"]["selector"]["matchLabels"].items() <= labels.items()


def gpu_tolerations(training: dict[str, Any]) -> list[str]:
    pod = one(children_of({"training": training}), JobChild)["spec"]["template"]["spec"]
    return [toleration.get("key", "*") for toleration in pod.get("tolerations", [])]


@pytest.mark.parametrize(
    ("limits", "given", "keys"),
    [
        ({"cpu": 2, "memory": "1Gi"}, [], []),
        ({"nvidia.com/gpu": 1}, [], ["nvidia.com/gpu"]),
        ({"amd.com/gpu": 1}, [], ["amd.com/gpu"]),
        ({"nvidia.com/mig-1g.10gb": 1}, [], ["nvidia.com/mig-1g.10gb", "nvidia.com/gpu"]),
        ({"nvidia.com/gpu": 1}, [{"key": "nvidia.com/gpu", "value": "a100"}], ["nvidia.com/gpu"]),
        ({"nvidia.com/gpu": 1}, [{"operator": "Exists"}], ["*"]),
        ({"nvidia.com/gpu": 1}, [{"key": "spot", "operator": "Exists"}], ["spot", "nvidia.com/gpu"]),
    ],
)
def test_devices_bring_the_toleration_of_their_taint(
    limits: dict[str, Any], given: list[dict[str, Any]], keys: list[str]
) -> None:
    assert gpu_tolerations({"resources": {"limits": limits}, "tolerations": given}) == keys


def job_of(children: list[Child], title: str) -> JobChild:
    return next(child for child in children if isinstance(child, JobChild) and child.title == title)


def same_as_golden(name: str, body: dict[str, Any]) -> None:
    path = GOLDEN / f"{name}.yaml"
    text = yaml.safe_dump(body, sort_keys=True, width=120)
    if os.environ.get("THINKREC_UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("text", "number"),
    [(2, 2), ("2", 2), ("500m", 0.5), ("1.5", 1.5), ("8Gi", 8 * 2**30), ("1k", 1000), ("1e3", 1000), ("+2Mi", 2**21)],
)
def test_quantities(text: int | str, number: float) -> None:
    assert float(quantity(text)) == number


@pytest.mark.parametrize("text", ["", "Gi", "-1", "1 Gi", "1Ti2", "two"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="no Kubernetes quantity"):
        quantity(text)


def test_threads_and_memory() -> None:
    assert cpu_threads(Resources(limits={"cpu": "2500m"})) == 2
    assert cpu_threads(Resources(limits={"cpu": "100m"})) == 1
    assert cpu_threads(Resources(requests={"cpu": 3})) == 3
    assert cpu_threads(Resources()) is None
    assert memory_bytes(Resources(limits={"memory": "1Gi"})) == 2**30
    assert memory_bytes(Resources(requests={"memory": "1Gi"})) is None


def test_merging_replaces_what_has_no_names() -> None:
    assert merged({"a": [1], "b": {"c": 1}}, {"a": [2], "b": {"d": 2}}) == {"a": [2], "b": {"c": 1, "d": 2}}
