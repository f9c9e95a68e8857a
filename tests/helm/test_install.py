# SPDX-License-Identifier: Apache-2.0
"""The chart on a real API server: installed, tested, upgraded, uninstalled, under enforced restricted pod security.

Kubernetes' own controllers make the pods; a pretended kubelet says how they end. The release of finalizers is run for
real, as a process with the environment and the ServiceAccount of its pod.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from embedded_cluster.cluster import Cluster
from support import chart
from support.chart import Body
from support.kube import fresh_namespace
from support.model_world import SPEC
from support.operator_process import OperatorProcess
from support.pretend_kubelet import Outcome, PretendKubelet, succeed_or_run
from support.rights import CONTRACT, FORBIDDEN
from support.waiting import wait_for
from thinkrec_crds.group import API_VERSION, FINALIZER

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
TAKE_OVER = ("--take-ownership", "--force-conflicts")
"""The definitions are in the cluster already, as after `kubectl apply`, perhaps of another version."""
RESTRICTED = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}


class Release:
    """One release of the chart, and the objects that it made."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster, self.api, self.namespace = cluster, cluster.api, namespace
        self.account = f"system:serviceaccount:{namespace}:{chart.RELEASE}"

    def helm(self, *arguments: str, values: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
        """Run helm against the cluster."""
        where = ("--kubeconfig", str(self.cluster.kubeconfig), "--namespace", self.namespace)
        given = ("--values", "-") if values is not None else ()
        return chart.helm(*arguments, *where, *given, given=json.dumps(values or {}))

    def done(self, *arguments: str, values: dict[str, Any] | None = None) -> str:
        """Run helm and demand that it ends well."""
        ended = self.helm(*arguments, values=values)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def install(self, values: dict[str, Any]) -> str:
        """Install it and wait until its pods are ready."""
        options = (*TAKE_OVER, "--wait", "--timeout", "60s")
        return self.done("install", chart.RELEASE, str(chart.CHART), *options, values=values)

    def deployed(self) -> list[Body]:
        """Return what the release says it is."""
        return [body for body in yaml.safe_load_all(self.done("get", "manifest", chart.RELEASE)) if body]

    def path(self, body: Body) -> str:
        """Return the path of an object in the API."""
        version, kind = body["apiVersion"], body["kind"]
        plural = "networkpolicies" if kind == "NetworkPolicy" else f"{kind.lower()}s"
        root = f"/api/{version}" if version == "v1" else f"/apis/{version}"
        namespace = body["metadata"].get("namespace")
        return f"{root}/{f'namespaces/{namespace}/' if namespace else ''}{plural}/{body['metadata']['name']}"

    def versions(self) -> dict[str, str]:
        """Return the resource version of each object; a Deployment's is its generation, for its status moves too."""
        found = {}
        for body in self.deployed():
            meta = self.api.get(self.path(body))["metadata"]
            counted = meta["generation"] if body["kind"] == "Deployment" else meta["resourceVersion"]
            found[f"{body['kind']}/{body['metadata']['name']}"] = str(counted)
        return found

    def may(self, api: str, resource: str, verb: str, namespace: str, account: str = "") -> bool:
        """Ask the API server what an account may do; empty means the operator's."""
        name, _, sub = resource.partition("/")
        what = {"group": api, "resource": name, "subresource": sub, "verb": verb, "namespace": namespace}
        review = {"spec": {"user": account or self.account, "resourceAttributes": what}}
        answer = self.api.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
        return bool(answer["status"]["allowed"])

    def left(self) -> list[str]:
        """Return what still carries the release's labels."""
        places = [
            *(f"/api/v1/namespaces/{self.namespace}/{kind}" for kind in ("pods", "services", "serviceaccounts")),
            f"/apis/apps/v1/namespaces/{self.namespace}/deployments",
            f"/apis/batch/v1/namespaces/{self.namespace}/jobs",
            *(f"{RBAC}/{kind}" for kind in ("clusterroles", "clusterrolebindings", "roles", "rolebindings")),
        ]
        ours = f"app.kubernetes.io/instance={chart.RELEASE},app.kubernetes.io/part-of=thinkrec"
        found = [(place, item["metadata"]) for place in places for item in self.api.items(place, labelSelector=ours)]
        here = [
            (place, meta)
            for place, meta in found
            if meta["name"].startswith(self.namespace) or meta.get("namespace") == self.namespace
        ]
        return [f"{place}/{meta['name']}" for place, meta in here if "deletionTimestamp" not in meta]


class Uninstall:
    """What the pretended kubelet does with pods: the uninstall's runs for real, all others as they always do."""

    def __init__(self, release: Release, folder: Path) -> None:
        self.release, self.folder = release, folder
        self.operator_could: bool | None = None
        """Whether the operator could still write models when the release of finalizers began."""
        self.log = ""

    def __call__(self, pod: Body) -> Outcome:
        name = f"{chart.RELEASE}-uninstall"
        if pod["metadata"].get("labels", {}).get("app.kubernetes.io/component") == "test":
            return Outcome()
        if pod["spec"].get("serviceAccountName") != name:
            return succeed_or_run(pod)
        (container,) = pod["spec"]["containers"]
        namespace = pod["metadata"]["namespace"]
        self.operator_could = self.release.may("thinkrec.io", "thinkrecmodels", "patch", "any")
        token = self.release.cluster.service_account_token(namespace, name)
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("KUBE", "THINKREC_"))},
            **{item["name"]: item.get("value", "") for item in container["env"]},
            "KUBECONFIG": str(self.release.cluster.kubeconfig_of(self.folder / "uninstall.yaml", token)),
        }
        command = [sys.executable, *container["command"][1:]]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        self.log = ended.stdout + ended.stderr
        return Outcome(exit_code=ended.returncode)


@pytest.fixture
def release(control_plane: Cluster, namespace: str) -> Release:
    control_plane.api.patch(f"/api/v1/namespaces/{namespace}", RESTRICTED)
    return Release(control_plane, namespace)


@pytest.fixture
def team(control_plane: Cluster) -> Iterator[str]:
    yield from fresh_namespace(control_plane.api)


@pytest.fixture
def uninstall(release: Release, tmp_path: Path) -> Uninstall:
    return Uninstall(release, tmp_path)


@pytest.fixture
def node(control_plane: Cluster, uninstall: Uninstall) -> Iterator[PretendKubelet]:
    with PretendKubelet(control_plane, uninstall) as running:
        yield running


def model(api: Any, namespace: str, *, finalizers: list[str]) -> str:
    """Create a model that cleans up after itself; return its path."""
    body = {
        "apiVersion": API_VERSION,
        "kind": "ThinkRecModel",
        "metadata": {"name": "movies", "finalizers": finalizers},
        "spec": {**SPEC, "artifacts": {**SPEC["artifacts"], "deletionPolicy": "Delete"}},
    }
    folder = f"/apis/{API_VERSION}/namespaces/{namespace}/thinkrecmodels"
    api.create(folder, body)
    return f"{folder}/movies"


@pytest.mark.usefixtures("node")
class TestLife:
    def test_install_test_upgrade_uninstall(self, release: Release, uninstall: Uninstall, team: str) -> None:
        api = release.api
        assert "watches every namespace" in release.install({})
        assert all(api.find(release.path(body)) for body in release.deployed())
        assert "Phase:          Succeeded" in release.done("test", chart.RELEASE)
        bystander = self.training(api, team)
        before = release.versions()
        self.an_upgrade_changes_only_what_it_should(release, before)
        assert self.meta(api, bystander)["resourceVersion"] == self.bystander_version
        assert len(release.left()) >= 7, "what is looked for below is there now"
        released = model(api, team, finalizers=[FINALIZER, "example.com/other"])
        release.done("uninstall", chart.RELEASE, "--wait", "--timeout", "60s")
        assert uninstall.operator_could is False, "else it could put a finalizer back"
        assert self.meta(api, released)["finalizers"] == ["example.com/other"], uninstall.log
        assert self.meta(api, bystander)["resourceVersion"] == self.bystander_version
        assert len([body for body in api.items(CRDS) if body["spec"]["group"] == "thinkrec.io"]) == 2
        wait_for(lambda: release.left() == [], "the release's objects to go")
        api.patch(released, {"metadata": {"finalizers": []}})

    def an_upgrade_changes_only_what_it_should(self, release: Release, before: dict[str, str]) -> None:
        chart_folder = str(chart.CHART)
        release.done("upgrade", chart.RELEASE, chart_folder, "--wait", "--timeout", "60s", values={})
        assert release.versions() == before, "the same chart with the same values is no change at all"
        values = {"operator": {"workers": 3}}
        release.done("upgrade", chart.RELEASE, chart_folder, "--wait", "--timeout", "60s", values=values)
        after = release.versions()
        assert {name for name in before if before[name] != after[name]} == {"Deployment/thinkrec"}

    def training(self, api: Any, namespace: str) -> str:
        """Make a Job as the operator labels its own; return its path."""
        container = {"name": "stage", "image": "example/stage:1"}
        labels = {"app.kubernetes.io/managed-by": "thinkrec-operator", "app.kubernetes.io/part-of": "thinkrec"}
        spec = {"suspend": True, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}
        folder = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        api.create(folder, {"metadata": {"name": "stage", "labels": labels}, "spec": spec})
        path = f"{folder}/stage"
        wait_for(lambda: api.get(path).get("status", {}).get("conditions"), "the Job to be seen as suspended")
        self.bystander_version = self.meta(api, path)["resourceVersion"]
        return path

    def meta(self, api: Any, path: str) -> Body:
        found: Body = api.get(path)["metadata"]
        return found

    def test_in_one_namespace(self, release: Release, uninstall: Uninstall, team: str) -> None:
        values = {"namespaces": [team], "rbac": {"aggregateToUserRoles": False}}
        release.install(values)
        assert release.may("batch", "jobs", "create", team)
        elsewhere = [release.may(api, res, verb, "default") for (api, res), verbs in CONTRACT.items() for verb in verbs]
        assert not any(elsewhere), "no right outside the namespaces that are watched"
        released = model(release.api, team, finalizers=[FINALIZER])
        release.done("uninstall", chart.RELEASE, "--wait", "--timeout", "60s")
        assert "finalizers" not in self.meta(release.api, released), uninstall.log
        assert uninstall.operator_could is False


class TestTheOperator:
    """It runs here as a process, with the environment and the ServiceAccount that the chart gives its pod."""

    @pytest.mark.parametrize("everywhere", [False, True], ids=["namespaced", "cluster-wide"])
    def test_its_rights_are_enough(self, release: Release, team: str, tmp_path: Path, everywhere: bool) -> None:
        values: dict[str, Any] = {} if everywhere else {"namespaces": [team]}
        release.done("install", chart.RELEASE, str(chart.CHART), *TAKE_OVER, values=values)
        token = release.cluster.service_account_token(release.namespace, chart.RELEASE)
        kubeconfig = release.cluster.kubeconfig_of(tmp_path / "operator.yaml", token)
        told = {"THINKREC_NAMESPACES": "" if everywhere else team, "THINKREC_LOG_FORMAT": "json"}
        operator = OperatorProcess(kubeconfig, tmp_path / "operator.log", told)
        path = model(release.api, team, finalizers=[])
        operator.start()
        try:
            operator.wait_ready()
            wait_for(lambda: release.api.items(f"/apis/batch/v1/namespaces/{team}/jobs"), "the first Job")
            wait_for(lambda: release.api.get(path)["metadata"].get("finalizers") == [FINALIZER], "the finalizer")
            wait_for(lambda: release.api.get(path)["status"].get("conditions"), "the status")
        finally:
            operator.stop()
            release.api.patch(path, {"metadata": {"finalizers": []}})
            release.done("uninstall", chart.RELEASE, "--no-hooks")
        assert [line for line in operator.log.read_text().splitlines() if "403" in line or "orbidden" in line] == []


class TestRights:
    """The API server's own word on the two tables."""

    def test_what_it_may_do_and_what_it_may_not(self, release: Release, team: str) -> None:
        release.done("install", chart.RELEASE, str(chart.CHART), *TAKE_OVER, values={})
        denied = [
            (api, res, v) for (api, res), verbs in CONTRACT.items() for v in verbs if not release.may(api, res, v, team)
        ]
        allowed = [row for row in FORBIDDEN if release.may(*row, team)]
        release.done("uninstall", chart.RELEASE, "--no-hooks")
        assert (denied, allowed) == ([], [])

    def test_people(self, release: Release, team: str) -> None:
        release.done("install", chart.RELEASE, str(chart.CHART), *TAKE_OVER, values={})
        for person in ("view", "edit"):
            subject = {"kind": "User", "name": f"{team}-{person}", "apiGroup": "rbac.authorization.k8s.io"}
            role = {"kind": "ClusterRole", "name": person, "apiGroup": "rbac.authorization.k8s.io"}
            body = {"metadata": {"name": person}, "roleRef": role, "subjects": [subject]}
            release.api.create(f"{RBAC}/namespaces/{team}/rolebindings", body)

        def can(person: str, verb: str, resource: str = "thinkrecmodels") -> bool:
            return release.may("thinkrec.io", resource, verb, team, f"{team}-{person}")

        wait_for(lambda: can("edit", "create"), "aggregation")
        found = {person: [can(person, verb) for verb in ("get", "create", "delete")] for person in ("view", "edit")}
        status = [can(person, "patch", "thinkrecmodels/status") for person in ("view", "edit")]
        release.done("uninstall", chart.RELEASE, "--no-hooks")
        assert found == {"view": [True, False, False], "edit": [True, True, True]}
        assert status == [False, False]


class TestRefusals:
    def test_definitions_that_are_there_are_not_taken_over_unasked(self, release: Release) -> None:
        ended = release.helm("install", chart.RELEASE, str(chart.CHART))
        assert ended.returncode != 0
        assert "thinkrecexperiments.thinkrec.io" in ended.stderr
        assert "invalid ownership metadata" in ended.stderr

    def test_a_namespace_that_is_not_there(self, release: Release) -> None:
        values = {"namespaces": ["no-such-namespace"], "crds": {"install": False}}
        ended = release.helm("install", chart.RELEASE, str(chart.CHART), values=values)
        assert ended.returncode != 0
        assert 'namespaces "no-such-namespace" not found' in ended.stderr


@pytest.mark.parametrize("name", ["default", "namespaced", "everything"])
def test_the_api_server_accepts_every_object(release: Release, team: str, name: str) -> None:
    """A dry run on the server: schemas, names and quantities are checked by Kubernetes itself."""
    path = Path(__file__).parent / "values" / f"{name}.yaml"
    text = path.read_text("utf-8") if name != "default" else "{}"
    for placeholder in ("team-a", "team-b", "team-c"):
        text = text.replace(f"{placeholder}]", f"{team}]").replace(f"{placeholder},", f"{release.namespace},")
    options = ("--dry-run=server", *TAKE_OVER)
    told = release.done("install", chart.RELEASE, str(chart.CHART), *options, values=yaml.safe_load(text))
    assert "kind: Deployment" in told
