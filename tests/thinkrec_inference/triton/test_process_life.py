# SPDX-License-Identifier: Apache-2.0
"""What happens when a process dies, and what is left behind: nothing, said clearly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from support.waiting import has_ended, wait_for
from thinkrec_inference.processes import start, stop
from thinkrec_inference.supervisor import ServeError, Stack

STARTUP_SECONDS = 120


def serve_command(bundle: Path, base: Path, work: Path) -> list[str]:
    folders = ["--bundle", str(bundle), "--base-model", str(base), "--work-dir", str(work)]
    return [sys.executable, "-m", "thinkrec_inference", "serve", *folders, "--precision", "Float32", "--threads", "1"]


def all_ended(pids: list[int]) -> bool:
    return all(has_ended(pid) for pid in pids)


@pytest.fixture
def served(bundle: Path, tiny_llama_dir: Path, tmp_path: Path) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        serve_command(bundle, tiny_llama_dir, tmp_path),
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    endpoints = tmp_path / "endpoints.json"
    wait_for(lambda: endpoints.is_file() or process.poll() is not None, "endpoints.json", seconds=STARTUP_SECONDS)
    return process, endpoints


def family(process: subprocess.Popen[str]) -> list[int]:
    return [child.pid for child in psutil.Process(process.pid).children(recursive=True)]


def test_sigterm_stops_everything_in_order_and_leaves_nothing(served: tuple[subprocess.Popen[str], Path]) -> None:
    process, endpoints = served
    found = json.loads(endpoints.read_text())
    assert httpx.get(f"{found['gateway']}/readyz", timeout=10).status_code == 200
    pids = family(process)
    assert len(pids) >= 5, "engine, Triton with two stubs, gateway"
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=60)
    assert process.returncode == 0, log
    places = [log.index(f"stopping {name}") for name in ("gateway", "triton", "engine")]
    assert places == sorted(places)
    wait_for(lambda: all_ended(pids), "all processes gone", seconds=5)
    assert not endpoints.exists()
    assert not Path(found["engineSocket"]).parent.exists()


def test_a_dead_engine_is_noticed_by_callers_and_answers_again_after_a_restart(stack: Stack) -> None:
    gateway = stack.addresses.as_json()["gateway"]
    old = stack.child("engine")
    old.process.kill()
    old.process.wait()
    try:
        ready = httpx.get(f"{gateway}/readyz", timeout=10)
        scored = httpx.post(f"{gateway}/v1/score", json={"userId": "u0", "itemIds": ["i1"]}, timeout=10)
        for answer in (ready, scored):
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["retry-after"]) >= 1
            assert "engine process does not answer" in answer.json()["error"]
            assert answer.json()["remedy"]
        assert httpx.get(f"{gateway}/healthz", timeout=10).status_code == 200
        with pytest.raises(ServeError, match="engine ended with signal SIGKILL"):
            stack.check_alive()
    finally:
        stack.children.remove(old)
        stack.start_engine()
        stack.wait_engine()
    assert httpx.get(f"{gateway}/readyz", timeout=10).status_code == 200


@pytest.mark.parametrize(
    ("name", "file", "text"), [("--bundle", "index.json", "--bundle"), ("--base-model", "config.json", "--base-model")]
)
def test_a_folder_that_is_not_one_is_named(
    tmp_path: Path, bundle: Path, tiny_llama_dir: Path, name: str, file: str, text: str
) -> None:
    folders = {"--bundle": bundle, "--base-model": tiny_llama_dir, name: tmp_path / "empty"}
    command = serve_command(folders["--bundle"], folders["--base-model"], tmp_path)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"error: {text}: " in done.stderr
    assert file in done.stderr
    assert "Traceback" not in done.stderr


def test_a_killed_supervisor_takes_engine_triton_and_stubs_with_it(tmp_path: Path) -> None:
    tests = str(Path(__file__).parents[2])
    parent = subprocess.Popen(
        [sys.executable, "-m", "support.arithmetic_stack", str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": tests},
    )
    assert parent.stdout is not None
    children = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(children) == 2
    pids = family(parent)
    assert len(pids) >= 4, "engine, Triton and its two stubs"
    parent.kill()
    parent.communicate()
    wait_for(lambda: all_ended(pids), "nothing is left", seconds=10)


def test_a_child_is_killed_with_its_parent(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from thinkrec_inference.processes import start; import os\n"
        "sleep = [sys.executable, '-c', 'import time; time.sleep(300)']\n"
        "child = start('sleeper', sleep, environment=os.environ, log=None)\n"
        "print(child.pid, flush=True); time.sleep(300)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert not has_ended(pid)
    parent.kill()
    parent.communicate()
    wait_for(lambda: has_ended(pid), "the child dies with its parent", seconds=5)


def test_stopping_ends_the_whole_group_even_one_that_ignores_sigterm(tmp_path: Path) -> None:
    script = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "inner = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'])\n"
        "print(inner.pid, flush=True); time.sleep(300)"
    )
    log = tmp_path / "log"
    child = start("stubborn", [sys.executable, "-c", script], environment=os.environ, log=log)
    wait_for(lambda: log.read_text().strip().isdigit(), "the inner process", seconds=20)
    inner = int(log.read_text())
    stop(child, grace_seconds=0.5)
    wait_for(lambda: all_ended([child.pid, inner]), "both gone", seconds=5)
    assert child.exit_code() == -signal.SIGKILL


def test_the_last_words_of_a_child_are_kept(tmp_path: Path) -> None:
    child = start(
        "talker",
        [sys.executable, "-c", "print('why I died'); raise SystemExit(3)"],
        environment=os.environ,
        log=tmp_path / "log",
    )
    child.process.wait()
    assert child.exit_code() == 3
    assert "why I died" in child.last_words()
