# SPDX-License-Identifier: Apache-2.0
"""kubectl on our kinds: columns, explain, wait, scale, diff, and apply by several managers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from embedded_cluster.cluster import Cluster
from support.kubectl import Kubectl
from support.manifests import MINIMAL_EXPERIMENT, MINIMAL_MODEL, manifest
from support.thinkrec_api import SERVING_STATUS, collection, write_status
from thinkrec_crds import group

NARROW = ["NAME", "READY", "REASON", "SERVING", "LATEST", "SUSPENDED", "AGE"]
WIDE = [*NARROW, "EXPERTS", "PROGRESS", "QUEUE", "URL"]


@pytest.fixture
def kubectl(control_plane: Cluster, namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    return Kubectl(control_plane.kubeconfig, namespace, tmp_path_factory.getbasetemp() / "kubectl")


@pytest.fixture
def model(control_plane: Cluster, namespace: str) -> str:
    """Create a model that serves; return its path."""
    path = collection(group.MODEL_KIND, namespace)
    body = yaml.safe_load(manifest(MINIMAL_MODEL, {"spec/training": {"queueName": "gpus"}, "spec/serving/replicas": 1}))
    control_plane.api.create(path, body)
    write_status(control_plane.api, f"{path}/movies", SERVING_STATUS)
    return f"{path}/movies"


def table(text: str) -> list[dict[str, str]]:
    """Read what `kubectl get` prints, by the places of its headings."""
    heading, *lines = text.splitlines()
    starts = [(found.start(), found.group()) for found in re.finditer(r"\S+", heading)]
    ends = [*(start for start, _ in starts[1:]), None]
    return [{name: line[start:end].strip() for (start, name), end in zip(starts, ends, strict=True)} for line in lines]


def partial(spec: dict[str, Any], name: str = "movies") -> str:
    """Return a manifest that has an opinion about some fields only."""
    head = {"apiVersion": group.API_VERSION, "kind": group.MODEL_KIND, "metadata": {"name": name}}
    return yaml.safe_dump({**head, "spec": spec})


@pytest.mark.usefixtures("model")
def test_columns(kubectl: Kubectl) -> None:
    (row,) = table(kubectl("get", "trm"))
    assert list(row) == NARROW
    assert re.fullmatch(r"\d+s", row.pop("AGE"))
    shown = {"READY": "True", "REASON": "Ready", "SERVING": "movies-7f3a", "LATEST": "movies-7f3a"}
    assert row == {"NAME": "movies", "SUSPENDED": "false"} | shown
    (wide,) = table(kubectl("get", "thinkrecmodels", "-o", "wide"))
    assert list(wide) == WIDE
    assert [wide[name] for name in WIDE[7:]] == ["3", "87", "gpus", "http://movies.default.svc:8080"]


def test_columns_of_what_nobody_has_seen_yet(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=f"{manifest(MINIMAL_MODEL)}---\n{manifest(MINIMAL_EXPERIMENT)}")
    (row,) = table(kubectl("get", "thinkrecmodel/movies"))
    assert [row[name] for name in ("READY", "REASON", "SERVING", "LATEST")] == [""] * 4
    (row,) = table(kubectl("get", "tre"))
    assert list(row) == ["NAME", "READY", "SUCCEEDED", "MODE", "STEP", "WINNER", "AGE"]
    names = kubectl("get", group.CATEGORY, "-o", "name").split()
    assert names == ["thinkrecexperiment.thinkrec.io/fusion-test", "thinkrecmodel.thinkrec.io/movies"]
    assert kubectl("get", "all", "-o", "name") == "", "not in the category of everything"
    assert kubectl("get", "trm/movies", "-o", "jsonpath={.status.observedGeneration}") == "-1"


def test_explain(kubectl: Kubectl) -> None:
    experts = kubectl("explain", "trm.spec.experts")
    assert "GROUP:      thinkrec.io" in experts
    assert re.search(r"count\s+<integer>\s+Fixed number of experts\.", experts)
    assert "Custom" not in kubectl("explain", "thinkrecmodel.status.conditions.reason")
    assert "LightGCN" in kubectl("explain", "trm.spec.collaborative.encoder")
    recursive = kubectl("explain", "tre", "--recursive")
    assert all(name in recursive for name in ("promotionPolicy", "mirrorPercent", "sampleRatioMismatch"))


@pytest.mark.usefixtures("model")
def test_wait(kubectl: Kubectl) -> None:
    kubectl("wait", "--for=condition=Ready", "trm/movies", "--timeout=10s")
    kubectl("wait", "--for=jsonpath={.status.servingRevision}=movies-7f3a", "trm/movies", "--timeout=10s")
    assert "timed out" in kubectl.refused("wait", "--for=condition=Stalled", "trm/movies", "--timeout=1s")


def test_wait_does_not_take_the_word_of_an_older_generation(
    control_plane: Cluster, kubectl: Kubectl, model: str
) -> None:
    control_plane.api.patch(model, {"spec": {"suspend": True}})
    assert "timed out" in kubectl.refused("wait", "--for=condition=Ready", "trm/movies", "--timeout=1s")


def test_scale(control_plane: Cluster, kubectl: Kubectl, model: str) -> None:
    assert "scaled" in kubectl("scale", "trm/movies", "--replicas=2", "--current-replicas=1")
    body = control_plane.api.get(model)
    assert (body["spec"]["serving"]["replicas"], body["metadata"]["generation"]) == (2, 2)
    scale = control_plane.api.get(f"{model}/scale")
    assert scale["spec"] == {"replicas": 2}
    assert scale["status"] == {"replicas": 2, "selector": "thinkrec.io/model=movies"}
    assert "less than or equal to 1000" in kubectl.refused("scale", "trm/movies", "--replicas=1001")


def test_scale_where_nobody_chose_a_number(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=manifest(MINIMAL_MODEL))
    kubectl("scale", "trm/movies", "--replicas=2")
    assert kubectl("get", "trm/movies", "-o", "jsonpath={.spec.serving.replicas}") == "2"


def test_scale_does_not_fight_an_autoscaler(kubectl: Kubectl) -> None:
    text = manifest(MINIMAL_MODEL, {"spec/serving": {"autoscaling": {"maxReplicas": 3}}})
    kubectl("create", "-f", "-", stdin=text)
    refused = kubectl.refused("scale", "trm/movies", "--replicas=2")
    assert "`replicas` and `autoscaling` must not be set together" in refused


def test_two_managers_share_one_object(kubectl: Kubectl) -> None:
    server_side = ("apply", "--server-side", "-f", "-")
    stage = {"name": "adapter", "nodes": 2}
    kubectl(*server_side, "--field-manager=git", stdin=manifest(MINIMAL_MODEL, {"spec/training/stages": [stage]}))
    other = {"suspend": True, "training": {"stages": [{"name": "gate", "backoffLimit": 1}]}}
    kubectl(*server_side, "--field-manager=platform", stdin=partial(other))
    stages = kubectl("get", "trm/movies", "-o", "jsonpath={.spec.training.stages[*].name}")
    assert stages.split() == ["adapter", "gate"]
    kubectl(*server_side, "--field-manager=git", stdin=manifest(MINIMAL_MODEL, {"spec/training/stages": [stage]}))
    assert kubectl("get", "trm/movies", "-o", "jsonpath={.spec.suspend}") == "true"
    taken = partial({"training": {"stages": [{"name": "adapter", "nodes": 3}]}})
    refused = kubectl.refused(*server_side, "--field-manager=platform", stdin=taken)
    assert "conflict" in refused
    assert 'conflict with "git"' in refused
    assert 'stages[name="adapter"].nodes' in refused
    assert kubectl("get", "trm/movies", "-o", "jsonpath={.spec.training.stages[0].nodes}") == "2"


def test_diff_and_client_side_apply(kubectl: Kubectl) -> None:
    first, second = manifest(MINIMAL_MODEL), manifest(MINIMAL_MODEL, {"spec/dataset/revision": "v2"})
    assert "created" in kubectl("apply", "-f", "-", stdin=first)
    assert kubectl("diff", "-f", "-", stdin=first) == ""
    done = kubectl.run("diff", "-f", "-", stdin=second)
    assert done.returncode == 1, done.stderr
    assert re.search(r"^\+ +revision: v2$", done.stdout, re.MULTILINE)
    assert "unchanged" in kubectl("apply", "-f", "-", stdin=first)
    assert "configured" in kubectl("apply", "-f", "-", stdin=second)
    assert kubectl("get", "trm/movies", "-o", "jsonpath={.metadata.generation}") == "2"


def test_the_definitions_can_be_applied_by_a_client(kubectl: Kubectl) -> None:
    """The annotation that it writes must hold the whole definition: 256 KiB at most."""
    for path in sorted((Path(__file__).resolve().parents[2] / "crds").glob("*.yaml")):
        kubectl("apply", "--dry-run=server", "-f", str(path))
        assert path.stat().st_size < 256 * 1024


def test_an_unknown_field(kubectl: Kubectl) -> None:
    text = manifest(MINIMAL_MODEL, {"spec/expert": {"count": 2}})
    assert 'unknown field "spec.expert"' in kubectl.refused("create", "-f", "-", stdin=text)
    done = kubectl.run("create", "--validate=warn", "-f", "-", stdin=text)
    assert done.returncode == 0
    assert 'Warning: unknown field "spec.expert"' in done.stderr


def test_what_a_user_reads_when_a_value_is_wrong(kubectl: Kubectl) -> None:
    text = manifest(MINIMAL_MODEL, {"spec/gate/temperature": "warm", "spec/schedule": {}})
    told = kubectl.refused("create", "-f", "-", stdin=text)
    assert 'spec.gate.temperature: Invalid value: "warm"' in told
    assert "must be a decimal number above zero in quotes" in told
    assert "at least one of `cron` or `maxStalenessSeconds` must be set" in told


@pytest.mark.usefixtures("model")
def test_delete(kubectl: Kubectl) -> None:
    assert "deleted" in kubectl("delete", "trm", "movies", "--timeout=10s")
    assert kubectl("get", "trm", "-o", "name") == ""
