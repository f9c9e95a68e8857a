# SPDX-License-Identifier: Apache-2.0
"""The chart's objects: as they were, restricted, labelled, and the definitions word for word.

The golden files hold every object for three sets of values; after a wanted change:
`THINKREC_UPDATE_GOLDEN=1 pytest tests/helm/test_rendered.py`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from support import chart
from support.chart import Body
from thinkrec_crds.schema import KINDS

FOLDER = Path(__file__).parent
SETS = ("default", "namespaced", "everything")
EVERY_SET = pytest.mark.parametrize("name", SETS)
DNS_LABEL = re.compile(r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")


def values_of(name: str) -> dict[str, Any]:
    path = FOLDER / "values" / f"{name}.yaml"
    return yaml.safe_load(path.read_text("utf-8")) if name != "default" else {}


@pytest.fixture(scope="module")
def rendered() -> dict[str, list[Body]]:
    return {name: chart.render(values_of(name), apis=[chart.MONITORING]) for name in SETS}


def identity(body: Body) -> tuple[str, str, str]:
    return body["kind"], body["metadata"].get("namespace", ""), body["metadata"]["name"]


def in_short(body: Body) -> Body:
    """Return an object without the long texts that other files hold already."""
    if body["kind"] == "CustomResourceDefinition":
        return {**body, "spec": "as in crds/"}
    if body["kind"] == "ConfigMap":
        return {**body, "data": dict.fromkeys(body["data"], "as in helm/thinkrec/files")}
    return body


@EVERY_SET
def test_golden(rendered: dict[str, list[Body]], name: str) -> None:
    path = FOLDER / "golden" / f"{name}.yaml"
    objects = [in_short(body) for body in sorted(rendered[name], key=identity)]
    text = yaml.safe_dump_all(objects, sort_keys=True, width=120, allow_unicode=True)
    if os.environ.get("THINKREC_UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert path.read_text("utf-8") == text


def test_lint() -> None:
    done = chart.helm("lint", "--strict", str(chart.CHART))
    assert done.returncode == 0, done.stdout + done.stderr


@EVERY_SET
def test_nothing_is_named_twice(rendered: dict[str, list[Body]], name: str) -> None:
    found = [identity(body) for body in rendered[name]]
    assert sorted(found) == sorted(set(found))


@EVERY_SET
def test_every_object_says_what_it_belongs_to(rendered: dict[str, list[Body]], name: str) -> None:
    for body in rendered[name]:
        labels = body["metadata"]["labels"]
        assert labels["app.kubernetes.io/part-of"] == "thinkrec", identity(body)
        assert labels["app.kubernetes.io/managed-by"] == "Helm", "never the value by which the operator finds its own"
        assert labels["app.kubernetes.io/instance"] == chart.RELEASE
        assert values_of(name).get("commonLabels", {}).items() <= labels.items()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.singular)
def test_definitions_are_those_of_crds(rendered: dict[str, list[Body]], kind: Any) -> None:
    source = yaml.safe_load((chart.ROOT / "crds" / f"{kind.singular}.yaml").read_text("utf-8"))
    body = chart.only(rendered["default"], "CustomResourceDefinition", source["metadata"]["name"])
    assert body["spec"] == source["spec"]
    assert body["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_definitions_go_only_when_told_so(rendered: dict[str, list[Body]]) -> None:
    for body in chart.of_kind(rendered["everything"], "CustomResourceDefinition"):
        assert "annotations" not in body["metadata"]
    assert chart.of_kind(chart.render({"crds": {"install": False}}), "CustomResourceDefinition") == []


@EVERY_SET
def test_pods_keep_to_the_restricted_standard(rendered: dict[str, list[Body]], name: str) -> None:
    found = chart.pods(rendered[name])
    assert len(found) == 3, "operator, uninstall, test"
    for where, spec in found.items():
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True, where
        assert security["runAsUser"] == security["runAsGroup"] == security["fsGroup"] == 65532
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert {next(iter(set(volume) - {"name"})) for volume in spec.get("volumes", [])} <= {"emptyDir"}
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]


def test_only_pods_that_need_a_token_get_one(rendered: dict[str, list[Body]]) -> None:
    found = {where: spec["automountServiceAccountToken"] for where, spec in chart.pods(rendered["default"]).items()}
    assert found == {"Deployment/thinkrec": True, "Job/thinkrec-uninstall": True, "Pod/thinkrec-test": False}
    assert all(
        not body["automountServiceAccountToken"] for body in chart.of_kind(rendered["default"], "ServiceAccount")
    )


def test_one_operator_that_is_replaced_and_leaves_a_lost_node_soon(rendered: dict[str, list[Body]]) -> None:
    deployment = chart.only(rendered["default"], "Deployment")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    seconds = {item["key"]: item["tolerationSeconds"] for item in deployment["spec"]["template"]["spec"]["tolerations"]}
    assert seconds == {"node.kubernetes.io/not-ready": 30, "node.kubernetes.io/unreachable": 30}
    assert chart.of_kind(rendered["everything"], "PodDisruptionBudget") == []


@EVERY_SET
def test_selectors_find_their_pods(rendered: dict[str, list[Body]], name: str) -> None:
    objects = rendered[name]
    deployment, service = chart.only(objects, "Deployment"), chart.only(objects, "Service", "-metrics")
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels
    assert service["spec"]["selector"].items() <= labels
    for monitor in chart.of_kind(objects, "ServiceMonitor"):
        assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        assert {item["port"] for item in monitor["spec"]["endpoints"]} <= {p["name"] for p in service["spec"]["ports"]}


def test_an_upgrade_of_the_chart_keeps_the_selector() -> None:
    """A Deployment's selector is immutable: nothing in it may depend on a version."""
    selector = chart.only(chart.render(), "Deployment")["spec"]["selector"]["matchLabels"]
    assert not [value for value in selector.values() if "0.1.0" in value]


@pytest.mark.parametrize("release", ["a", "v1.2", "a-release-with-a-name-as-long-as-helm-lets-one-be-ab"])
def test_names_fit(release: str) -> None:
    done = chart.helm("template", release, str(chart.CHART), "--namespace", "n" * 63)
    assert done.returncode == 0, done.stderr
    for body in yaml.safe_load_all(done.stdout):
        if body and body["kind"] in ("Service", "Deployment", "Job", "Pod", "ServiceAccount"):
            assert DNS_LABEL.match(body["metadata"]["name"]), identity(body)
        for value in body["metadata"]["labels"].values() if body else ():
            assert len(value) <= 63


def test_what_an_uninstall_runs_comes_after_the_operator_and_its_rights(rendered: dict[str, list[Body]]) -> None:
    """Else the operator would put back the finalizer that the Job takes off."""
    hooks = [body for body in rendered["default"] if chart.is_hook(body) and body["kind"] != "Pod"]
    assert {body["kind"] for body in hooks} == {"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Job"}
    weights = {}
    for body in hooks:
        notes = body["metadata"]["annotations"]
        assert notes["helm.sh/hook"] == "post-delete"
        assert notes["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded", "leaves nothing behind"
        weights[body["kind"]] = int(notes["helm.sh/hook-weight"])
    assert weights.pop("Job") > max(weights.values())
    job = chart.pods(rendered["default"])["Job/thinkrec-uninstall"]
    assert job["containers"][0]["command"] == ["python", "-m", "thinkrec_operator", "release-finalizers"]
    assert job["serviceAccountName"] == chart.only(hooks, "ServiceAccount")["metadata"]["name"]


def test_without_it_nothing_of_it_is_left() -> None:
    assert not [
        b for b in chart.render({"uninstall": {"releaseFinalizers": False}}) if "uninstall" in b["metadata"]["name"]
    ]


def test_an_image_by_digest(rendered: dict[str, list[Body]]) -> None:
    digest = f"sha256:{'a' * 64}"
    images = {c["image"] for spec in chart.pods(rendered["everything"]).values() for c in spec["containers"]}
    assert images == {f"registry.example:5000/thinkrec/operator@{digest}"}


def notes(*options: str) -> str:
    done = chart.helm("install", chart.RELEASE, str(chart.CHART), "--dry-run=client", *options)
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("NOTES:")[2]


class TestNotes:
    def test_say_what_an_uninstall_does(self) -> None:
        assert "The definitions and all models stay" in notes()
        assert "EVERY model of the cluster" in notes("--set", "crds.keep=false")

    def test_warn_of_monitoring_that_could_not_be_made(self) -> None:
        assert "does not know monitoring.coreos.com/v1" in notes("--set", "metrics.serviceMonitor.enabled=true")
        assert "monitoring.coreos.com" not in notes()
