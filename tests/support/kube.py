# SPDX-License-Identifier: Apache-2.0
"""Fixtures with a real Kubernetes, and a fresh namespace on each for every test.

control_plane, namespace        no node: everyone can run it, four seconds
node_cluster, node_namespace    with a node that runs pods: needs root and containerd, ten seconds
"""

from __future__ import annotations

import functools
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from embedded_cluster import cluster, dependencies, programs
from embedded_cluster.api import Api
from embedded_cluster.cluster import Cluster
from support import seaweed
from support.seaweed import Seaweed
from support.waiting import wait_for

CRDS = Path(__file__).resolve().parents[2] / "crds"
_CRD_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def unavailable(reason: str) -> None:
    """Skip the test, saying why; under CI=true a missing part is a failure instead."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason} (never skipped under CI=true)", pytrace=False)
    pytest.skip(reason)


def require_programs(names: tuple[str, ...]) -> None:
    """Skip where programs are not built yet: a build takes longer than a test may."""
    missing = [name for name in names if programs.find(name) is None]
    if missing:
        unavailable(f"{', '.join(missing)} not built yet; run `scripts/cluster build`")


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane without a node, thinkrec's CRDs installed; shared by the whole session."""
    require_programs(programs.CONTROL_PLANE)
    yield from _running(tmp_path_factory.mktemp("control-plane"), node=False)


@pytest.fixture(scope="session")
def node_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane with a real node, thinkrec's CRDs installed; shared by the whole session."""
    if reason := dependencies.why_no_node():
        unavailable(reason)
    require_programs((*programs.CONTROL_PLANE, *programs.NODE))
    yield from _running(tmp_path_factory.mktemp("node-cluster"), node=True)


def _running(folder: Path, *, node: bool) -> Iterator[Cluster]:
    running = cluster.start(folder / "state", node=node, owned=True)
    try:
        install_crds(running.api)
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def node_store(node_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """An S3 server that this machine and the pods of `node_cluster` reach at the same address."""
    with seaweed.running(tmp_path_factory.mktemp("node-store"), address=node_cluster.network.machine) as server:
        yield server


def create_store_secret(api: Api, namespace: str, name: str = "store") -> None:
    """Put the credentials of the S3 server into a Secret, as a user of thinkrec would."""
    data = {"AWS_ACCESS_KEY_ID": seaweed.ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": seaweed.SECRET_KEY}
    api.create(f"/api/v1/namespaces/{namespace}/secrets", {"metadata": {"name": name}, "stringData": data})


@pytest.fixture
def node_namespace(node_cluster: Cluster) -> Iterator[str]:
    """A namespace for one test on `node_cluster`."""
    yield from fresh_namespace(node_cluster.api)


@pytest.fixture
def namespace(control_plane: Cluster) -> Iterator[str]:
    """A namespace for one test on `control_plane`; its deletion is started, not waited for."""
    yield from fresh_namespace(control_plane.api)


def fresh_namespace(api: Api) -> Iterator[str]:
    """Make a namespace, yield its name, delete it."""
    name = f"test-{secrets.token_hex(4)}"
    api.create("/api/v1/namespaces", {"metadata": {"name": name}})
    account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
    wait_for(lambda: api.find(account), f"the default service account of {name}")  # without it no pod is admitted
    yield name
    api.delete(f"/api/v1/namespaces/{name}")


def install_crds(api: Api) -> None:
    """Install crds/*.yaml and wait until the API server serves them."""
    names = []
    for path in sorted(CRDS.glob("*.yaml")):
        for body in yaml.safe_load_all(path.read_text("utf-8")):
            names.append(body["metadata"]["name"])
            api.apply(f"{_CRD_PATH}/{names[-1]}", body, manager="thinkrec-tests")
    for name in names:
        wait_for(functools.partial(_established, api, name), f"CRD {name} to be served")


def _established(api: Api, name: str) -> bool:
    body = api.get(f"{_CRD_PATH}/{name}")
    conditions = {item["type"]: item["status"] for item in body.get("status", {}).get("conditions") or []}
    if conditions.get("Established") != "True":
        return False
    group, plural, versions = body["spec"]["group"], body["spec"]["names"]["plural"], body["spec"]["versions"]
    return all(api.find(f"/apis/{group}/{version['name']}/{plural}") is not None for version in versions)
