# SPDX-License-Identifier: Apache-2.0
"""Pods that see this checkout's environment: the trainer and the server start in them as in their real images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from embedded_cluster import mounted_environment
from embedded_cluster.cluster import Cluster
from embedded_cluster.paths import REPOSITORY
from support.kube import create_store_secret
from support.seaweed import Seaweed
from support.waiting import wait_for
from thinkrec_crds.fields import PodTemplate
from thinkrec_operator.manifests import common


def restricted_pod(command: list[str], template: dict[str, Any]) -> dict[str, Any]:
    """Return a pod as the operator writes it (restricted, read-only root), with the template merged over it."""
    container = {
        "name": "stage",
        "image": mounted_environment.IMAGE,
        "command": command,
        "securityContext": common.container_security(),
        "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
        "env": common.environment({"HOME": "/scratch", "TMPDIR": "/scratch", "OMP_NUM_THREADS": "1"}),
    }
    pod = {
        "metadata": {"name": "stage"},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": common.pod_security(),
            "containers": [container],
            "volumes": [{"name": "scratch", "emptyDir": {}}],
        },
    }
    return common.overlaid(pod, PodTemplate.model_validate(template))


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["python", "-m", "thinkrec_trainer", "--help"], "run"),
        (["python", "-c", "import torch, transformers, peft; print(torch.ones(2).sum().item())"], "2.0"),
        (["python", "-c", "from thinkrec_inference import triton_launcher as t; print(t.find())"], "tritonserver"),
    ],
)
def test_the_environment_works_in_a_restricted_pod(
    node_cluster: Cluster, node_namespace: str, command: list[str], expected: str
) -> None:
    pod = restricted_pod(command, mounted_environment.training())
    path = f"/api/v1/namespaces/{node_namespace}/pods"
    node_cluster.api.create(path, pod)
    status = wait_for(
        lambda: (
            node_cluster.api.get(f"{path}/stage")["status"]
            .get("containerStatuses", [{}])[0]
            .get("state", {})
            .get("terminated")
        ),
        "the stage to end",
        seconds=120,
    )
    log = node_cluster.api.text(f"{path}/stage/log")
    assert status["exitCode"] == 0, log
    assert expected in log


def test_a_pod_uses_the_store_with_credentials_from_a_secret(
    node_cluster: Cluster, node_namespace: str, node_store: Seaweed
) -> None:
    create_store_secret(node_cluster.api, node_namespace)
    script = (
        f"import boto3; s3 = boto3.client('s3', endpoint_url={node_store.endpoint!r}, region_name='us-east-1');"
        "s3.create_bucket(Bucket='from-a-pod');"
        "print('from-a-pod' in [b['Name'] for b in s3.list_buckets()['Buckets']])"
    )
    pod = restricted_pod(["python", "-c", script], mounted_environment.training())
    pod["spec"]["containers"][0]["envFrom"] = [{"secretRef": {"name": "store"}}]
    path = f"/api/v1/namespaces/{node_namespace}/pods"
    node_cluster.api.create(path, pod)
    finished = ("Succeeded", "Failed")
    wait_for(lambda: node_cluster.api.get(f"{path}/stage")["status"].get("phase") in finished, "the pod", seconds=120)
    assert node_cluster.api.text(f"{path}/stage/log") == "True\n"


def test_the_checkout_cannot_be_changed_from_a_pod(node_cluster: Cluster, node_namespace: str) -> None:
    script = f"touch {REPOSITORY}/written-by-a-pod"
    path = f"/api/v1/namespaces/{node_namespace}/pods"
    node_cluster.api.create(path, restricted_pod(["sh", "-c", script], mounted_environment.training()))
    wait_for(lambda: node_cluster.api.get(f"{path}/stage")["status"].get("phase") == "Failed", "the write to fail")
    assert "Read-only file system" in node_cluster.api.text(f"{path}/stage/log")
    assert not (REPOSITORY / "written-by-a-pod").exists()


def test_every_folder_is_mounted_once() -> None:
    folders = mounted_environment.folders()
    assert not [(a, b) for a in folders for b in folders if a in b.parents]
    seen = [Path("/usr"), REPOSITORY, Path(sys.prefix), Path(sys.base_prefix).resolve()]
    assert all(any(path == folder or folder in path.parents for folder in folders) for path in seen)


def test_serving_mounts_it_into_the_containers_that_fetch_too() -> None:
    spec = mounted_environment.serving()["spec"]
    names = [container["name"] for container in (*spec["initContainers"], *spec["containers"])]
    assert names == ["fetch-bundle", "fetch-base-model", "ship-events", "triton"]
    assert {volume["name"] for volume in spec["volumes"]} == {m["name"] for m in spec["containers"][0]["volumeMounts"]}
