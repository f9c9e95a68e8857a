# SPDX-License-Identifier: Apache-2.0
"""The whole way as a user goes it: run, interrupt, run again, serve with the real Triton, recommend, stop.

MovieLens-100K cut to a few users and a random two-layer Llama keep it short; every process is the product's own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from thinkrec_crds.findings import FINDINGS_NAME, FindingsReport

MANIFEST = """
apiVersion: thinkrec.io/v1alpha1
kind: ThinkRecModel
metadata:
  name: small
spec:
  baseModel: {storageUri: "file:base", revision: "1"}
  dataset:
    storageUri: file:ratings
    revision: "1"
    format: RecBole
    limits: {maxUsers: 40}
    historyLength: 4
    items:
      storageUri: file:ratings
      format: RecBole
      columns: {title: movie_title, attributes: [class]}
  keywords: {source: Attributes}
  collaborative: {encoder: MF, dimension: 8, epochs: 2}
  teacher: {type: Self, maxTokens: 16, maxRounds: 1}
  traces: {poolSize: 16, maxSamples: 2}
  adapter: {steps: 2, historyBlock: 4}
  projector: {steps: 2}
  experts: {count: 2, steps: 1}
  artifacts: {storageUri: "file:store"}
  evaluation: {maxUsers: 6, maxRowsPerUser: 3, sampledExplanations: 2}
  serving: {limits: {maxExplanationTokens: 16}}
"""
STAGES = 11
DEADLINE_SECONDS = 280
pytestmark = pytest.mark.timeout(600)


def thinkrec(folder: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run one command in the model's folder."""
    command = [sys.executable, "-m", "thinkrec_operator.cli", *arguments]
    environment = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env=environment, timeout=DEADLINE_SECONDS, check=False
    )
    assert done.returncode == 0 or not check, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_llama_dir: Path, movielens_dir: Path) -> Iterator[Path]:
    """A model's folder whose training was interrupted once and then finished; nothing of it runs afterwards."""
    path = tmp_path_factory.mktemp("whole-way")
    (path / "model.yaml").write_text(MANIFEST)
    (path / "base").symlink_to(tiny_llama_dir, target_is_directory=True)
    (path / "ratings").symlink_to(movielens_dir, target_is_directory=True)
    interrupt_after_first_stage(path)
    thinkrec(path, "run", "-f", "model.yaml", "-o", "json")
    yield path
    thinkrec(path, "stop", "-f", "model.yaml", check=False)


def interrupt_after_first_stage(path: Path) -> None:
    """Start a run and press Ctrl-C as soon as a stage is published."""
    command = [sys.executable, "-m", "thinkrec_operator.cli", "run", "-f", "model.yaml", "-o", "json"]
    process = subprocess.Popen(command, cwd=path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    until = time.monotonic() + DEADLINE_SECONDS
    while not list(path.glob("store/*/*/manifest.json")):
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        assert time.monotonic() < until, "no stage was published in time"
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 130, output


def test_every_stage_ran_exactly_once(folder: Path) -> None:
    manifests = [json.loads(path.read_text()) for path in folder.glob("store/*/*/manifest.json")]
    assert len(manifests) == STAGES
    assert len({manifest["key"] for manifest in manifests}) == STAGES
    status = yaml.safe_load(next(folder.glob(".thinkrec/*/small/status.yaml")).read_text())
    stages = status.get("status", status)["stages"]
    assert {row["state"] for row in stages} == {"Succeeded"}


def test_running_again_starts_nothing(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.glob("store/*/*/manifest.json")}
    again = thinkrec(folder, "run", "-f", "model.yaml", "-o", "json").stdout
    assert '"Running"' not in again
    assert {path: path.stat().st_mtime_ns for path in folder.glob("store/*/*/manifest.json")} == before


def test_the_report_page_needs_no_other_file(folder: Path) -> None:
    page = Path(thinkrec(folder, "report", "-f", "model.yaml").stdout.strip())
    text = (folder / page).read_text()
    assert "<html" in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert 'src="data:' in text or "<svg" in text


SOFTER = """
---
{model}
---
apiVersion: thinkrec.io/v1alpha1
kind: ThinkRecExperiment
metadata: {{name: softer}}
spec:
  variants:
  - {{name: sharp, modelRef: {{name: small}}}}
  - {{name: soft, modelRef: {{name: soft}}}}
  controlVariantName: sharp
  offline:
    metrics: [{{name: UAUC}}, {{name: NDCG@5}}]
"""


def test_an_experiment_trains_only_what_differs_and_compares_on_the_same_rows(folder: Path) -> None:
    """Two gates of one training: bundle and evaluation of the second, the scores of both, and the comparison."""
    before = {path.parent for path in folder.glob("store/*/*/manifest.json")}
    softer = MANIFEST.replace("name: small", "name: soft").replace(
        "  artifacts:", '  gate: {temperature: "5"}\n  artifacts:'
    )
    (folder / "softer.yaml").write_text(MANIFEST + SOFTER.format(model=softer))
    done = thinkrec(folder, "run", "-f", "softer.yaml", "-o", "json")
    made = [path.parent for path in folder.glob("store/*/*/manifest.json") if path.parent not in before]
    assert sorted(path.parent.name for path in made) == ["bundle", "compare", "evaluate", "score", "score"]
    (comparison,) = [path for path in made if path.parent.name == "compare"]
    found = json.loads((comparison / "comparison.json").read_text())
    assert [variant["name"] for variant in found["variants"]] == ["sharp", "soft"]
    assert found["users"] > 1
    assert "sharp" in (comparison / "report" / "index.html").read_text()
    status = yaml.safe_load(next(folder.glob(".thinkrec/*/experiment.softer/status.yaml")).read_text())["status"]
    conditions = {item["type"]: item["status"] for item in status["conditions"]}
    assert (conditions["Ready"], conditions["Succeeded"], conditions["OfflineEvaluated"]) == ("True", "True", "True")
    assert status["conclusion"]["reason"] in ("SignificantWinner", "NoDifference")
    assert str(comparison / "report" / "index.html") in done.stderr
    again = thinkrec(folder, "run", "-f", "softer.yaml", "-o", "json")
    assert '"Running"' not in again.stdout
    assert status["conclusion"]["reason"] in again.stderr


ON_USERS = """  traffic:
    mode: ABTest
    assignment: {type: HashedHeader, key: x-user}
    durationSeconds: 7200
  analysis:
    metrics: [{name: clicks, event: {name: click}}]
    guardrails: [{name: errors, request: {field: Error}, maximum: "0.1"}]
    periodSeconds: 3600
    minSampleSize: 500
"""


def test_an_experiment_on_simulated_users_ends_with_a_verdict_and_a_page(folder: Path) -> None:
    """Two hours are two looks; what was scored for the test before is not scored again."""
    manifest = (folder / "softer.yaml").read_text().replace("name: softer", "name: liked")
    (folder / "liked.yaml").write_text(manifest.rstrip() + "\n" + ON_USERS)
    before = {path.parent for path in folder.glob("store/*/*/manifest.json")}
    done = thinkrec(folder, "run", "-f", "liked.yaml", "-o", "json")
    made = [path.parent for path in folder.glob("store/*/*/manifest.json") if path.parent not in before]
    kinds = sorted(path.parent.name for path in made)
    assert set(kinds) <= {"analyse", "compare", "simulate"}
    assert kinds.count("analyse") == kinds.count("simulate") >= 2
    status = yaml.safe_load(next(folder.glob(".thinkrec/*/experiment.liked/status.yaml")).read_text())["status"]
    assert status["conclusion"]["metric"] == "clicks"
    assert status["conclusion"]["reason"] in ("SignificantWinner", "NoDifference")
    assert [row["users"] > 500 for row in status["variants"]] == [True, True]
    (page,) = [line.split(": ")[1] for line in done.stderr.splitlines() if line.startswith("report on simulated users")]
    assert "clicks" in Path(page).read_text()
    found = FindingsReport.from_json((Path(page).parents[1] / FINDINGS_NAME).read_bytes())
    experts = [each for each in found.groups if each.group.startswith("expert-")]
    assert sum(each.users for each in experts) > 500, "persons count for the group of the user whose taste they have"


@pytest.fixture(scope="module")
def served(folder: Path) -> str:
    """Address of the gateway."""
    thinkrec(folder, "serve", "-f", "model.yaml", "--detach")
    status = thinkrec(folder, "status", "-f", "model.yaml").stdout
    return next(word for word in status.split() if word.startswith("http://127.0.0.1"))


def test_recommend_with_reasons(folder: Path, served: str) -> None:
    users = next(folder.glob("store/dataset/*/users.parquet"))
    import polars as pl

    user = pl.read_parquet(users)["user_id"][0]
    table = thinkrec(folder, "recommend", "-f", "model.yaml", "--user", user, "-k", "2", "--explain").stdout
    assert "expert-0" in table
    assert "general" in table
    assert "Yes." in table or "No." in table
    body = json.loads(thinkrec(folder, "recommend", "-f", "model.yaml", "--user", user, "-k", "2", "--json").stdout)
    assert len(body["items"]) == 2
    assert not any(item["seen"] for item in body["items"])
    assert body["coldStart"] is False


def test_an_unknown_user_is_a_cold_start(served: str) -> None:
    answer = httpx.post(f"{served}/v1/recommend", json={"user_id": "nobody", "k": 2}, timeout=60)
    assert answer.status_code == 200
    assert answer.json()["cold_start"] is True


def test_bad_requests_say_what_to_do(served: str) -> None:
    unknown = httpx.post(f"{served}/v1/score", json={"user_id": "1", "item_ids": ["no-such-item"]}, timeout=60)
    assert unknown.status_code == 404
    assert "no-such-item" in unknown.text
    greedy = httpx.post(f"{served}/v1/recommend", json={"user_id": "1", "k": 10_000}, timeout=60)
    assert greedy.status_code == 422
    assert greedy.json()["remedy"]


def test_stop_leaves_no_server(folder: Path, served: str) -> None:
    thinkrec(folder, "stop", "-f", "model.yaml")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{served}/healthz", timeout=5)
