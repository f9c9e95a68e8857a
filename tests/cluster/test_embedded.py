# SPDX-License-Identifier: Apache-2.0
"""The embedded cluster itself: starts quickly, resists other contexts, leaves nothing behind however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from embedded_cluster import choose, cluster, dependencies, network, processes, programs, teardown
from embedded_cluster.api import ApiError
from embedded_cluster.cluster import Cluster
from embedded_cluster.dependencies import Dependency
from embedded_cluster.errors import ClusterError
from embedded_cluster.paths import State
from support import kube
from support.waiting import allowed_seconds, wait_for

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
START_SECONDS = 5.0
"""Promised for a control plane on an idle machine."""


@pytest.fixture
def built() -> None:
    kube.require_programs(programs.CONTROL_PLANE)


def marked(folder: Path) -> list[int]:
    """Return the processes whose environment says they belong to the cluster in `folder`."""
    mark = f"{processes.MARK}={folder}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (path / "environ").read_bytes().split(b"\0"):
                found.append(int(path.name))
        except OSError:
            continue
    return found


def command(*arguments: str, cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run scripts/cluster with a cache of its own that shares the built programs."""
    cache.mkdir(exist_ok=True)
    if not (cache / "kube").exists():
        (cache / "kube").symlink_to(programs.folder().parent)
    inherited = {name: value for name, value in os.environ.items() if name != "THINKREC_KUBE_CONTEXT"}
    return subprocess.run(
        [str(SCRIPTS / "cluster"), *arguments],
        env={**inherited, "THINKREC_CACHE": str(cache), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def fake_programs(folder: Path, scripts: Mapping[str, str]) -> str:
    """Write shell scripts that stand for programs, and return the PATH that finds them first."""
    folder.mkdir()
    for name, body in scripts.items():
        (folder / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{folder}/calls\n{body}\n')
        (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.mark.usefixtures("built")
def test_a_control_plane_starts_in_seconds_and_leaves_nothing(tmp_path: Path) -> None:
    began = time.monotonic()
    running = cluster.start(tmp_path / "state")
    assert time.monotonic() - began < allowed_seconds(START_SECONDS)
    assert running.api.get("/version")["gitVersion"] == programs.kubernetes_version()
    assert running.kubeconfig.stat().st_mode & 0o077 == 0, "the kubeconfig holds a token"
    running.stop()
    assert not (tmp_path / "state").exists()
    assert marked(tmp_path / "state") == []


def test_flags_reach_the_api_server(tmp_path: Path, built: None) -> None:
    running = cluster.start(tmp_path / "state", flags=["--anonymous-auth=false"])
    try:
        with running.client("no-such-token") as stranger, pytest.raises(ApiError) as refused:
            stranger.get("/version")
        assert refused.value.code == 401
    finally:
        running.stop()


def test_a_start_that_fails_says_why_and_leaves_no_process(tmp_path: Path, built: None) -> None:
    with pytest.raises(ClusterError, match="kube-apiserver has ended") as failure:
        cluster.start(tmp_path / "state", flags=["--no-such-flag=1"])
    assert "unknown flag: --no-such-flag" in str(failure.value)
    assert marked(tmp_path / "state") == []
    assert "no-such-flag" in (tmp_path / "state" / "logs" / "kube-apiserver.log").read_text()


def test_the_api_server_keeps_port_and_data_over_a_restart(control_plane: Cluster, namespace: str) -> None:
    before = control_plane.processes.get("kube-apiserver")
    control_plane.restart_apiserver()
    assert control_plane.processes.get("kube-apiserver").pid != before.pid
    assert control_plane.api.get(f"/api/v1/namespaces/{namespace}")["metadata"]["name"] == namespace


def test_down_works_when_processes_were_killed_and_their_starter_too(tmp_path: Path, built: None) -> None:
    """A starter is killed in the middle; what it has recorded and what it has not must both go."""
    state = State(tmp_path / "state")
    code = f"from pathlib import Path; from embedded_cluster import cluster; cluster.start(Path({str(state.folder)!r}))"
    starter = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(SCRIPTS)})
    wait_for(lambda: (state.processes / "kube-controller-manager.json").exists(), "the start to get half way")
    starter.kill()
    starter.wait()
    os.kill(processes.Processes(state).get("etcd").pid, signal.SIGKILL)
    (state.processes / "kube-apiserver.json").unlink()
    assert marked(state.folder), "the test needs something that is left over"
    assert teardown.down(state)
    assert marked(state.folder) == []
    assert not state.folder.exists()
    assert not teardown.down(state), "a second time there is nothing to do"


def test_a_cluster_of_a_test_goes_when_the_test_process_is_killed(tmp_path: Path, built: None) -> None:
    state = State(tmp_path / "state")
    code = (
        "import time; from pathlib import Path; from embedded_cluster import cluster;"
        f"cluster.start(Path({str(state.folder)!r}), owned=True); print('up', flush=True); time.sleep(600)"
    )
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
    owner = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    with owner.stdout:
        assert owner.stdout.readline() == "up\n"
    owner.kill()
    owner.wait()
    wait_for(lambda: not state.folder.exists() and not marked(state.folder), "the guardian to remove the cluster")


def test_down_never_deletes_a_folder_that_is_no_cluster(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("irreplaceable")
    with pytest.raises(ClusterError, match=r"is no cluster's state folder .*thesis\.txt"):
        teardown.down(State(tmp_path))
    assert (tmp_path / "thesis.txt").exists()


def test_a_named_context_is_used_and_survives_down(control_plane: Cluster, tmp_path: Path) -> None:
    """The context of a running cluster is adopted: the printed kubeconfig reaches it, down leaves it alone."""
    cache, user_config = tmp_path / "cache", str(control_plane.kubeconfig)
    up = command("up", "--kube-context", "thinkrec-embedded", cache=cache, KUBECONFIG=user_config)
    assert up.returncode == 0, up.stderr
    written = Path(up.stdout.strip().removeprefix("export KUBECONFIG="))
    assert control_plane.url in written.read_text()
    refused = command("down", "--kube-context", "production", cache=cache, KUBECONFIG=user_config)
    assert refused.returncode == 1
    assert "'production' is not what `up` made or was given" in refused.stderr
    down = command("down", cache=cache)
    assert "thinkrec-embedded itself is untouched" in down.stderr
    assert not written.exists()
    assert control_plane.api.text("/readyz") == "ok"


def test_a_context_that_was_not_named_is_never_used(control_plane: Cluster, tmp_path: Path, built: None) -> None:
    """KUBECONFIG points at somebody's cluster: `up` neither uses nor writes it."""
    before = control_plane.kubeconfig.read_bytes()
    up = command("up", "--control-plane-only", cache=tmp_path / "cache", KUBECONFIG=str(control_plane.kubeconfig))
    try:
        assert up.returncode == 0, up.stderr
        assert control_plane.url not in Path(up.stdout.strip().removeprefix("export KUBECONFIG=")).read_text()
        assert control_plane.kubeconfig.read_bytes() == before
        assert "is up already" in command("up", "--control-plane-only", cache=tmp_path / "cache").stderr
        status = command("status", cache=tmp_path / "cache").stdout
        assert status.count(" runs ") == 4
    finally:
        assert command("down", cache=tmp_path / "cache").returncode == 0
    assert "dev is not up" in command("status", cache=tmp_path / "cache").stderr


def test_a_context_that_does_not_exist_is_named(tmp_path: Path) -> None:
    done = command("up", "--kube-context", "nowhere", cache=tmp_path / "cache", KUBECONFIG=str(tmp_path / "none"))
    assert done.returncode == 1
    assert "nowhere" in done.stderr


def test_kind_is_used_where_an_engine_runs(tmp_path: Path) -> None:
    write = 'while [ $# -gt 0 ]; do [ "$1" = --kubeconfig ] && echo "from: kind" >"$2"; shift; done'
    path = fake_programs(tmp_path / "bin", {"kind": write, "docker": "exit 0"})
    up = command("up", cache=tmp_path / "cache", PATH=path)
    assert up.returncode == 0, up.stderr
    assert Path(up.stdout.strip().removeprefix("export KUBECONFIG=")).read_text() == "from: kind\n"
    assert command("down", cache=tmp_path / "cache", PATH=path).returncode == 0
    calls = (tmp_path / "bin" / "calls").read_text()
    assert "kind create cluster --name thinkrec-dev --kubeconfig" in calls
    assert "kind delete cluster --name thinkrec-dev" in calls


@pytest.mark.parametrize(("engine", "source"), [("exit 0", "kind"), ("exit 1", "embedded")])
def test_kind_needs_a_running_engine(engine: str, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("docker", "podman", "nerdctl")
    monkeypatch.setenv("PATH", fake_programs(tmp_path / "bin", {"kind": "exit 0", **dict.fromkeys(names, engine)}))
    monkeypatch.delenv(choose.CONTEXT_VARIABLE, raising=False)
    assert choose.choose(None, name="dev", embedded=False).source == source
    assert choose.choose(None, name="dev", embedded=True).source == "embedded"
    monkeypatch.setenv(choose.CONTEXT_VARIABLE, "mine")
    assert choose.choose(None, name="dev", embedded=False) == choose.Choice(choose.Source.CONTEXT, "mine")
    with pytest.raises(ClusterError, match="'mine' and an option that only the embedded cluster has"):
        choose.choose(None, name="dev", embedded=True)


@pytest.mark.parametrize("name", ["Dev", "a_b", "-a", "a" * 33, "../etc", ""])
def test_a_name_that_cannot_be_a_folder_is_refused(name: str, tmp_path: Path) -> None:
    done = command("up", f"--name={name}", cache=tmp_path / "cache")
    assert done.returncode == 1
    assert f"--name {name!r}" in done.stderr


def test_missing_packages_are_named_with_the_line_that_installs_them() -> None:
    wanted = [Dependency("no-such-runtime", "containerd"), Dependency("sh", "dash"), Dependency("no-such-tool", "runc")]
    with pytest.raises(ClusterError) as error:
        dependencies.require(wanted, what="a node")
    assert "a node needs no-such-runtime, no-such-tool" in str(error.value)
    assert "scripts/cluster deps" in str(error.value)
    assert "apt-get install --no-install-recommends containerd runc" in str(error.value)


def test_a_missing_build_is_skipped_on_a_laptop_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-program not built yet; run `scripts/cluster build`"):
        kube.require_programs(("no-such-program",))
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="never skipped under CI=true"):
        kube.require_programs(("no-such-program",))


def test_a_subnet_in_use_is_not_chosen() -> None:
    """The route of a running node's network keeps a second cluster away from it."""
    chosen = network.choose()
    routes = subprocess.run(["ip", "-4", "-o", "route"], capture_output=True, text=True, check=True).stdout
    assert chosen.pods.split("/")[0] not in routes
    assert len({chosen.machine, chosen.node}) == 2


def test_ports_of_one_call_differ() -> None:
    ports = network.free_ports("127.0.0.1", 20)
    assert len(set(ports)) == 20
