# SPDX-License-Identifier: Apache-2.0
"""Images from the repository's Dockerfiles: really built, named after their content, run under restricted security."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from embedded_cluster import dependencies, images
from embedded_cluster.cluster import Cluster
from embedded_cluster.images import IMAGES
from embedded_cluster.paths import REPOSITORY
from support import kube
from support.waiting import wait_for
from thinkrec_operator.manifests import common


@pytest.fixture(scope="module")
def operator_image(node_cluster: Cluster) -> str:
    """The operator's image, built unless it is there already, and loaded into the node."""
    if missing := dependencies.missing(dependencies.IMAGES):
        kube.unavailable(f"{', '.join(each.program for each in missing)} missing; run `scripts/cluster deps`")
    image = images.build("operator")
    node_cluster.node.load_image(image.archive)
    return image.name


def run(running: Cluster, namespace: str, image: str, command: list[str]) -> tuple[int, str]:
    """Run a command in a restricted pod and return its exit code and log."""
    container = {"name": "main", "image": image, "command": command, "securityContext": common.container_security()}
    spec = {"restartPolicy": "Never", "securityContext": common.pod_security(), "containers": [container]}
    path = f"/api/v1/namespaces/{namespace}/pods"
    running.api.create(path, {"metadata": {"name": "image"}, "spec": spec})

    def terminated() -> dict[str, Any]:
        statuses = running.api.get(f"{path}/image")["status"].get("containerStatuses", [{}])
        found: dict[str, Any] = statuses[0].get("state", {}).get("terminated", {})
        return found

    state = wait_for(terminated, "the pod to end", seconds=120)
    return state["exitCode"], running.api.text(f"{path}/image/log")


@pytest.mark.timeout(1800)
def test_the_operator_image_has_what_the_operator_needs_and_no_more(
    node_cluster: Cluster, node_namespace: str, operator_image: str
) -> None:
    script = (
        "import importlib.util, os, kopf, kubernetes.aio, thinkrec_crds, thinkrec_operator;"
        "heavy = ('torch', 'transformers', 'boto3', 'thinkrec_trainer', 'thinkrec_inference', 'pytest');"
        "print([name for name in heavy if importlib.util.find_spec(name)], os.getuid(), kopf.__version__)"
    )
    code, log = run(node_cluster, node_namespace, operator_image, ["python", "-c", script])
    assert (code, log.split()[:2]) == (0, ["[]", "65532"]), log


@pytest.mark.timeout(1800)
def test_its_versions_are_those_of_the_lock_file(
    node_cluster: Cluster, node_namespace: str, operator_image: str
) -> None:
    script = "from importlib.metadata import version as v; print(v('kopf'), v('kubernetes'), v('pydantic'))"
    code, log = run(node_cluster, node_namespace, operator_image, ["python", "-c", script])
    lock = (REPOSITORY / "uv.lock").read_text()
    names = ("kopf", "kubernetes", "pydantic")
    locked = [re.search(rf'name = "{name}"\nversion = "([^"]+)"', lock) for name in names]
    assert (code, log.split()) == (0, [found.group(1) for found in locked if found])


@pytest.mark.parametrize("component", sorted(IMAGES))
def test_a_dockerfile_runs_as_nobody_on_any_base(component: str) -> None:
    text = (REPOSITORY / component / "Dockerfile").read_text()
    assert "ARG BASE=python:3.11-slim-bookworm" in text
    assert re.search(r"^USER 65532:65532$", text, re.MULTILINE)
    assert re.search(r'^ENTRYPOINT \["python", "-m", "thinkrec_', text, re.MULTILINE)
    copied = {name for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE) for name in line.split()[:-1]}
    inputs = {*IMAGES[component].inputs, "pyproject.toml", "uv.lock", "README.md", "LICENSE"}
    assert copied <= inputs, "what is copied must be a part of the image's key"


def test_the_tag_changes_with_a_file_that_goes_in(tmp_path: Path) -> None:
    for name in ("operator", "crds", "pyproject.toml", "uv.lock", "README.md", "LICENSE", ".dockerignore"):
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, tmp_path / name)
    first = images.Image("operator", ("crds", "operator"), tmp_path).key
    assert images.Image("operator", ("crds", "operator"), tmp_path).key == first
    (tmp_path / "operator" / "thinkrec_operator" / "new.py").write_text("# another\n")
    assert images.Image("operator", ("crds", "operator"), tmp_path).key != first
