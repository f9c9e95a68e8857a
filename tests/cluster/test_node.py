# SPDX-License-Identifier: Apache-2.0
"""The embedded node: pods run, log, answer under the names of their Services, and nothing of it stays."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from embedded_cluster import base_images, cgroups, cluster, dependencies, link, node, programs, teardown
from embedded_cluster.cluster import Cluster
from embedded_cluster.paths import State
from embedded_cluster.processes import children
from support import kube
from support.waiting import allowed_seconds, wait_for

START_SECONDS = 25.0
"""Promised for control plane and node together on an idle machine."""


def run_pod(running: Cluster, namespace: str, name: str, script: str, **spec: Any) -> None:
    container = {"name": "main", "image": base_images.BUSYBOX, "command": ["sh", "-c", script], **spec}
    body = {
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [container], "restartPolicy": "Never", "terminationGracePeriodSeconds": 1},
    }
    running.api.create(f"/api/v1/namespaces/{namespace}/pods", body)


def phase(running: Cluster, namespace: str, name: str) -> str:
    return str(running.api.get(f"/api/v1/namespaces/{namespace}/pods/{name}")["status"].get("phase"))


def ended(running: Cluster, namespace: str, name: str) -> dict[str, Any]:
    """Wait for the end of a pod and return the terminated state of its container."""
    path = f"/api/v1/namespaces/{namespace}/pods/{name}"
    wait_for(lambda: phase(running, namespace, name) in ("Succeeded", "Failed"), f"the end of {name}", seconds=60)
    [status] = running.api.get(path)["status"]["containerStatuses"]
    found: dict[str, Any] = status["state"]["terminated"]
    return found


def log_of(running: Cluster, namespace: str, name: str) -> str:
    return running.api.text(f"/api/v1/namespaces/{namespace}/pods/{name}/log")


def kubectl(running: Cluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["kubectl", f"--kubeconfig={running.kubeconfig}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def web(node_cluster: Cluster, node_namespace: str) -> str:
    """A pod with a web server behind the Service `web`, ready to answer."""
    run_pod(
        node_cluster,
        node_namespace,
        "web",
        "echo started; mkdir /www; echo it works >/www/index.html; httpd -f -p 8000 -h /www",
    )
    ports = [{"port": 80, "targetPort": 8000}]
    body = {"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": ports}}
    service = node_cluster.api.create(f"/api/v1/namespaces/{node_namespace}/services", body)
    wait_for(lambda: phase(node_cluster, node_namespace, "web") == "Running", "the web server", seconds=60)
    return str(service["spec"]["clusterIP"])


def test_a_pod_runs_logs_and_can_be_entered(node_cluster: Cluster, node_namespace: str, web: str) -> None:
    def page() -> str:
        return kubectl(node_cluster, "-n", node_namespace, "exec", "web", "--", "cat", "/www/index.html").stdout

    wait_for(lambda: page() == "it works\n", "the page to be written", every=0.5)
    assert log_of(node_cluster, node_namespace, "web") == "started\n"


@pytest.mark.parametrize("host", ["web", "web.{namespace}.svc", "web.{namespace}.svc.cluster.local"])
def test_a_service_answers_under_its_names_from_a_pod(
    node_cluster: Cluster, node_namespace: str, web: str, host: str
) -> None:
    url = f"http://{host.format(namespace=node_namespace)}/"
    script = f"for i in 1 2 3 4 5; do timeout 5 wget -qO- {url} && exit 0; sleep 1; done; exit 1"
    run_pod(node_cluster, node_namespace, "caller", script)
    assert ended(node_cluster, node_namespace, "caller")["exitCode"] == 0
    assert log_of(node_cluster, node_namespace, "caller").endswith("it works\n")


def test_a_service_answers_to_this_machine_and_to_its_own_pod(
    node_cluster: Cluster, node_namespace: str, web: str
) -> None:
    def own() -> str:
        return kubectl(node_cluster, "-n", node_namespace, "exec", "web", "--", "wget", "-qO-", f"http://{web}/").stdout

    def outside() -> str:
        command = [str(base_images.busybox()), "wget", "-qO-", f"http://{web}/"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    # kube-proxy writes its rules a moment after the pod is there
    wait_for(lambda: own() == "it works\n", "the Service to answer its own pod", every=0.5)
    wait_for(lambda: outside() == "it works\n", "the Service to answer this machine", every=0.5)


def test_a_pod_reaches_the_api_server_with_its_own_identity(node_cluster: Cluster, node_namespace: str) -> None:
    script = (
        "T=$(cat /var/run/secrets/kubernetes.io/serviceaccount/token); wget --no-check-certificate -qO- "
        '--header "Authorization: Bearer $T" https://kubernetes.default.svc/version'
    )
    run_pod(node_cluster, node_namespace, "client", script)
    assert ended(node_cluster, node_namespace, "client")["exitCode"] == 0
    assert programs.kubernetes_version() in log_of(node_cluster, node_namespace, "client")


def test_exit_code_and_termination_message_arrive(node_cluster: Cluster, node_namespace: str) -> None:
    run_pod(node_cluster, node_namespace, "bad", 'echo \'{"reason": "bad input"}\' >/dev/termination-log; exit 64')
    state = ended(node_cluster, node_namespace, "bad")
    assert (state["exitCode"], state["message"]) == (64, '{"reason": "bad input"}\n')


def test_the_memory_limit_holds(node_cluster: Cluster, node_namespace: str) -> None:
    limits = {"resources": {"limits": {"memory": "24Mi"}}}
    run_pod(node_cluster, node_namespace, "greedy", "tail /dev/zero", **limits)
    state = ended(node_cluster, node_namespace, "greedy")
    assert (state["reason"], state["exitCode"]) == ("OOMKilled", 137)


def test_the_node_comes_back_after_its_kubelet_was_killed(node_cluster: Cluster, node_namespace: str, web: str) -> None:
    node_cluster.stop_kubelet()
    assert not node_cluster.processes.get("kubelet").alive
    node_cluster.start_kubelet()
    run_pod(node_cluster, node_namespace, "later", "exit 0")
    assert ended(node_cluster, node_namespace, "later")["exitCode"] == 0
    assert phase(node_cluster, node_namespace, "web") == "Running", "its containers went on"


def test_pods_work_after_a_restart_of_the_api_server(node_cluster: Cluster, node_namespace: str) -> None:
    node_cluster.restart_apiserver()
    run_pod(node_cluster, node_namespace, "later", "exit 0")
    assert ended(node_cluster, node_namespace, "later")["exitCode"] == 0


def leftovers(state: State) -> list[str]:
    """Return what a node has left on this machine outside its folder."""
    links = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout
    mounts = Path("/proc/self/mountinfo").read_text()
    found = [str(path) for path in cgroups.ROOT.glob(f"*/{cgroups.name(state)}")]
    found += [f"link {link.name(state)}"] if link.name(state) in links else []
    found += ["mounts"] if str(state.folder) in mounts else []
    programs_left = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return found + [line for line in programs_left.splitlines() if str(state.folder) in line]


@pytest.mark.parametrize("killed", [None, "node", "containerd", "kubelet"])
def test_down_leaves_nothing_whatever_was_killed_before(tmp_path: Path, killed: str | None) -> None:
    """A second cluster beside the session's one: its own subnet, its own rules, and gone without a trace."""
    if reason := dependencies.why_no_node():
        kube.unavailable(reason)
    kube.require_programs((*programs.CONTROL_PLANE, *programs.NODE))
    rules = subprocess.run(["iptables-save"], capture_output=True, text=True, check=False).stdout
    assert "KUBE-" not in rules, "the test needs a machine without another Kubernetes"
    began = time.monotonic()
    running = cluster.start(tmp_path / "state", node=True)
    assert time.monotonic() - began < allowed_seconds(START_SECONDS)
    wait_for(lambda: running.api.find("/api/v1/namespaces/default/serviceaccounts/default"), "the default account")
    run_pod(running, "default", "sleeper", "sleep 600")
    wait_for(lambda: phase(running, "default", "sleeper") == "Running", "the pod", seconds=60)
    assert leftovers(running.state), "the check must see a running node"
    if killed:
        process = running.processes.get(killed)
        for pid in (*children(process.pid), process.pid):
            os.kill(pid, signal.SIGKILL)
    running.api.close()
    running.processes.stop_all()
    assert teardown.down(running.state)
    assert leftovers(running.state) == []
    after = subprocess.run(["iptables-save"], capture_output=True, text=True, check=False).stdout
    assert "KUBE-" not in after
    assert not (tmp_path / "state").exists()


def test_the_node_offers_what_this_machine_has(node_cluster: Cluster) -> None:
    status = node_cluster.api.get(f"/api/v1/nodes/{node.NAME}")["status"]
    assert int(status["capacity"]["cpu"]) == os.cpu_count()
    assert status["nodeInfo"]["kubeletVersion"] == programs.kubernetes_version()
