# SPDX-License-Identifier: Apache-2.0
"""The `thinkrec` command as a person meets it: good input, every kind of bad input, and one clear message for each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from typer.testing import CliRunner, Result

from support.local_run import SPEC, drive, state_of, write_manifest
from thinkrec_crds.exit_codes import Exit
from thinkrec_inference.gateway import schemas
from thinkrec_operator.cli import app
from thinkrec_operator.local.records import ProcessRecord, ServingRecord
from thinkrec_operator.local.state import State, utc_now

COMMANDS = [command.name or command.callback.__name__.replace("_", "-") for command in app.registered_commands]  # type: ignore[union-attr]


def thinkrec(*arguments: str | Path, answer: str | None = None) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=answer)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return write_manifest(tmp_path, SPEC)


@pytest.fixture
def trained(manifest: Path) -> Path:
    control = manifest.parent / "control"
    control.mkdir()
    drive(manifest, control)
    return manifest


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    found = thinkrec(command, "--help")
    assert found.exit_code == Exit.DONE
    assert f"thinkrec {command}" in found.stdout
    assert "Example" in found.stdout


def test_the_first_help_lists_the_commands_and_the_exit_codes() -> None:
    found = thinkrec("--help")
    assert found.exit_code == Exit.DONE
    assert all(command in found.stdout for command in COMMANDS)
    for code in (64, 65, 66, 69, 70, 75, 130):
        assert str(code) in found.stdout


class TestManifest:
    def test_a_good_one(self, manifest: Path) -> None:
        assert thinkrec("validate", "-f", manifest).exit_code == Exit.DONE

    def test_every_problem_at_once(self, tmp_path: Path) -> None:
        spec = {**SPEC, "experts": {"count": 0}, "gate": {"temperatur": "0.1"}}
        found = thinkrec("validate", "-f", write_manifest(tmp_path, spec))
        assert found.exit_code == Exit.BAD_INPUT
        assert "spec.experts.count" in found.stderr
        assert "spec.gate.temperatur" in found.stderr
        assert "did you mean `temperature`" in found.stderr.lower()

    @pytest.mark.parametrize("command", ["run", "serve", "plan", "status", "report"])
    def test_nothing_is_started_with_a_bad_one(self, command: str, tmp_path: Path) -> None:
        bad = write_manifest(tmp_path, {**SPEC, "experts": {}})
        found = thinkrec(command, "-f", bad)
        assert found.exit_code == Exit.BAD_INPUT
        assert "has 1 problem; nothing was started" in found.stderr
        assert not (tmp_path / ".thinkrec").exists()

    @pytest.mark.parametrize("command", ["validate", "run", "plan"])
    def test_a_file_that_is_not_there(self, command: str, tmp_path: Path) -> None:
        found = thinkrec(command, "-f", tmp_path / "no.yaml")
        assert found.exit_code == Exit.NOT_FOUND
        assert "there is no such file" in found.stderr
        assert "Traceback" not in found.output

    def test_a_folder_and_a_binary(self, tmp_path: Path) -> None:
        (tmp_path / "x.bin").write_bytes(b"\xff\xfe\x00")
        for path, sentence in ((tmp_path, "is a folder"), (tmp_path / "x.bin", "is not UTF-8 text")):
            found = thinkrec("validate", "-f", path)
            assert found.exit_code == Exit.BAD_INPUT
            assert sentence in found.stderr

    def test_a_field_without_effect_is_warned_of(self, tmp_path: Path) -> None:
        path = write_manifest(tmp_path, {**SPEC, "suspend": True, "training": {"nodes": 2, "image": "own:1"}})
        found = thinkrec("run", "-f", path)
        assert found.exit_code == Exit.DONE
        warnings = [line for line in found.stderr.splitlines() if line.startswith("warning: ")]
        assert [line.split("`")[1] for line in warnings] == ["spec.training.nodes", "spec.training.image"]

    def test_a_missing_option_is_a_usage_error(self) -> None:
        assert thinkrec("run").exit_code == Exit.USAGE
        assert thinkrec("run", "-f", "x", "--cpus", "0").exit_code == Exit.USAGE


class TestLook:
    def test_plan_writes_nothing(self, manifest: Path) -> None:
        found = thinkrec("plan", "-f", manifest, "--json")
        rows = [json.loads(line) for line in found.stdout.splitlines()]
        assert len(rows) == 11
        assert not any(row["done"] for row in rows)
        assert not (manifest.parent / ".thinkrec").exists()

    def test_plan_after_a_run(self, trained: Path) -> None:
        rows = [json.loads(line) for line in thinkrec("plan", "-f", trained, "--json").stdout.splitlines()]
        assert all(row["done"] for row in rows)
        table = thinkrec("plan", "-f", trained)
        assert "evaluate" in table.stdout

    def test_explain_key_says_what_it_is_made_of(self, manifest: Path) -> None:
        found = json.loads(thinkrec("explain-key", "adapter", "-f", manifest).stdout)
        rows = [json.loads(line) for line in thinkrec("plan", "-f", manifest, "--json").stdout.splitlines()]
        keys = {row["name"]: row["key"] for row in rows}
        assert found["key"] == keys["adapter"]
        assert found["inputs"] == {name: keys[name] for name in ("dataset", "keywords", "traces")}
        assert found["parameters"]["baseModel"]["storageUri"] == "file:base"

    def test_explain_key_of_an_unknown_stage_names_the_known(self, manifest: Path) -> None:
        found = thinkrec("explain-key", "adaptor", "-f", manifest)
        assert found.exit_code == Exit.NOT_FOUND
        assert "'adaptor'" in found.stderr
        assert "adapter" in found.stderr

    @pytest.mark.parametrize("command", ["status", "report"])
    def test_before_the_first_run(self, command: str, manifest: Path) -> None:
        found = thinkrec(command, "-f", manifest)
        assert found.exit_code == Exit.NOT_FOUND
        assert f"thinkrec run -f {manifest}" in found.stderr

    def test_status_after_a_run(self, trained: Path) -> None:
        found = thinkrec("status", "-f", trained)
        assert found.exit_code == Exit.DONE
        assert "GatesPassed" in found.stdout
        assert "0.7" in found.stdout
        body = yaml.safe_load(thinkrec("status", "-f", trained, "-o", "yaml").stdout)
        assert body["kind"] == "ThinkRecModel"
        assert body["status"]["latestRevision"].startswith("movies-")

    def test_logs(self, trained: Path) -> None:
        assert thinkrec("logs", "adapter", "-f", trained).exit_code == Exit.DONE
        found = thinkrec("logs", "adaptor", "-f", trained)
        assert found.exit_code == Exit.NOT_FOUND
        assert "adapter" in found.stderr

    def test_report_is_the_page_of_the_evaluation(self, trained: Path) -> None:
        key = next(row.key for row in state_of(trained).status().stages if row.name == "evaluate")
        page = trained.parent / ".thinkrec" / "store" / "evaluate" / key / "report" / "index.html"
        assert thinkrec("report", "-f", trained).exit_code == Exit.NOT_FOUND
        page.parent.mkdir()
        page.write_text("<html></html>")
        assert thinkrec("report", "-f", trained).stdout.strip() == str(page)

    def test_clean_asks_first_and_keeps_the_store_unless_told(self, trained: Path) -> None:
        state, store = state_of(trained).root, trained.parent / ".thinkrec" / "store"
        assert thinkrec("clean", "-f", trained, answer="n\n").exit_code != Exit.DONE
        assert state.exists()
        assert thinkrec("clean", "-f", trained, "--yes").exit_code == Exit.DONE
        assert not state.exists()
        assert list(store.glob("*/*/manifest.json"))
        assert thinkrec("clean", "-f", trained, "--artifacts", "--yes").exit_code == Exit.DONE
        assert not list(store.glob("*/*/manifest.json"))
        assert "nothing to remove" in thinkrec("clean", "-f", trained, "--artifacts").stdout


class TestWork:
    def test_a_second_driver_is_told_who_is_at_work(self, manifest: Path) -> None:
        with state_of(manifest).locked(command="run", now=utc_now()):
            found = thinkrec("run", "-f", manifest)
        assert found.exit_code == Exit.BUSY
        assert f"in use by process {os.getpid()}" in found.stderr

    def test_nothing_to_serve(self, manifest: Path) -> None:
        found = thinkrec("serve", "-f", manifest)
        assert found.exit_code == Exit.NOT_FOUND
        assert f"thinkrec run -f {manifest}" in found.stderr

    def test_nothing_to_stop(self, manifest: Path) -> None:
        assert "nothing is at work" in thinkrec("stop", "-f", manifest).stdout

    def test_a_chosen_state_folder_is_used(self, manifest: Path, tmp_path: Path) -> None:
        (tmp_path / "ratings").mkdir()
        found = thinkrec("run", "-f", manifest, "--state-dir", tmp_path / "elsewhere", "--cpus", "1")
        assert found.exit_code == Exit.BAD_INPUT  # the real dataset stage finds no ratings
        assert (tmp_path / "elsewhere" / "default" / "movies" / "status.yaml").is_file()


@pytest.fixture
def ratings(tmp_path: Path, movielens_dir: Path) -> dict[str, Any]:
    """A spec over the real ratings; the base model is missing, so that no stage with an LLM can work."""
    (tmp_path / "data").symlink_to(movielens_dir)
    columns = {"title": "movie_title", "attributes": ["class"]}
    items = {"storageUri": "file:data", "format": "RecBole", "columns": columns}
    dataset = {"storageUri": "file:data", "format": "RecBole", "items": items, "limits": {"maxUsers": 30}}
    return {
        "baseModel": {"storageUri": "file:no-model"},
        "dataset": dataset,
        "keywords": {"source": "Attributes"},
        "collaborative": {"dimension": 8, "epochs": 2},
        "artifacts": {"storageUri": "file:.thinkrec/store"},
    }


class TestRealStages:
    """`python -m thinkrec_trainer` itself, as far as it goes without a base model."""

    def test_a_wrong_column_is_told_in_the_stages_own_words(self, tmp_path: Path, ratings: dict[str, Any]) -> None:
        ratings["dataset"]["columns"] = {"rating": "stars"}
        found = thinkrec("run", "-f", write_manifest(tmp_path, ratings), "--cpus", "1")
        assert found.exit_code == Exit.BAD_INPUT
        assert "stars" in found.stderr
        assert "Traceback" not in found.output
        status = state_of(tmp_path / "model.yaml").status()
        assert status.condition("Stalled").reason == "DatasetInvalid"  # type: ignore[union-attr]

    def test_interrupted_and_run_again_no_finished_stage_is_redone(
        self, tmp_path: Path, ratings: dict[str, Any]
    ) -> None:
        path = write_manifest(tmp_path, ratings)
        command = [sys.executable, "-m", "thinkrec_operator.cli", "run", "-f", str(path), "--cpus", "1", "-o", "json"]
        times: dict[Path, int] = {}
        for stage in ("dataset", "keywords"):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            until = time.monotonic() + 60
            while not list(tmp_path.glob(f".thinkrec/store/{stage}/*/manifest.json")) and time.monotonic() < until:
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=60)
            assert process.returncode == Exit.INTERRUPTED, told
            assert f"thinkrec run -f {path}" in told.replace("\n", "")
            assert {p: p.stat().st_mtime_ns for p in times} == times
            times = {p: p.stat().st_mtime_ns for p in tmp_path.glob(".thinkrec/store/*/*/manifest.json")}
        assert {p.parents[1].name for p in times} >= {"dataset", "keywords"}
        records = {record.title: record for record in state_of(path).job_records()}
        assert records["dataset"].attempts == 1


class Gateway(BaseHTTPRequestHandler):
    """Answers with a body that the gateway's own types made."""

    answer: ClassVar[tuple[int, str]] = (200, "{}")
    asked: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        Gateway.asked.append(json.loads(self.rfile.read(length)))
        status, body = Gateway.answer
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *args: Any) -> None:
        """Stay quiet."""


@pytest.fixture
def gateway() -> Iterator[str]:
    Gateway.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def answer() -> str:
    """Return the example of the gateway's own answer type."""
    examples = schemas.RecommendResponse.model_config["json_schema_extra"]["examples"]  # type: ignore[index]
    return schemas.RecommendResponse.model_validate(examples[0]).to_json()  # type: ignore[index]


class TestRecommend:
    def test_the_gateways_own_answer_becomes_a_table(self, gateway: str) -> None:
        Gateway.answer = (200, answer())
        found = thinkrec("recommend", "--url", gateway, "--user", "42", "-k", "3", "--explain")
        assert found.exit_code == Exit.DONE
        for text in ("Star Wars (1977)", "2.410", "new", "expert-0 0.70", "Fused", "seen before: none"):
            assert text in found.stdout
        asked = schemas.RecommendRequest.model_validate(Gateway.asked[0])
        assert (asked.user_id, asked.k, asked.explain, asked.explain_top) == ("42", 3, True, 3)

    def test_json_is_the_answer_itself(self, gateway: str) -> None:
        Gateway.answer = (200, answer())
        found = thinkrec("recommend", "--url", gateway + "/", "--user", "42", "--json")
        assert json.loads(found.stdout) == json.loads(answer())

    def test_seen_items_and_cold_starts_are_said(self, gateway: str) -> None:
        body = json.loads(answer())
        body["items"][0]["seen"] = True
        body["coldStart"] = True
        Gateway.answer = (200, json.dumps(body))
        found = thinkrec("recommend", "--url", gateway, "--user", "42")
        assert "seen before: 1 of 1" in found.stdout
        assert "cold start" in found.stdout

    @pytest.mark.parametrize(("status", "code"), [(422, Exit.BAD_INPUT), (503, Exit.UNAVAILABLE)])
    def test_a_refusal_is_told_in_the_gateways_words(self, gateway: str, status: int, code: Exit) -> None:
        Gateway.answer = (status, schemas.ErrorBody(error="k is too large", remedy="Ask for fewer.").to_json())
        found = thinkrec("recommend", "--url", gateway, "--user", "42")
        assert found.exit_code == code
        assert "k is too large. Ask for fewer." in found.stderr

    @pytest.mark.parametrize("body", ["<html>", "{}", "[]"])
    def test_something_else_answers(self, gateway: str, body: str) -> None:
        Gateway.answer = (200, body)
        found = thinkrec("recommend", "--url", gateway, "--user", "42")
        assert found.exit_code == Exit.UNAVAILABLE
        assert "something else than recommendations" in found.stderr

    @pytest.mark.parametrize("url", ["http://127.0.0.1:9", "nonsense", "http://[::1", "ftp://x"])
    def test_nobody_answers(self, url: str) -> None:
        found = thinkrec("recommend", "--url", url, "--user", "42", "--timeout", "2")
        assert found.exit_code == Exit.UNAVAILABLE
        assert "is `thinkrec serve` running?" in found.stderr

    def test_a_manifest_that_does_not_serve_says_how_to(self, manifest: Path) -> None:
        found = thinkrec("recommend", "--user", "42", "-f", manifest)
        assert found.exit_code == Exit.UNAVAILABLE
        assert "thinkrec serve" in found.stderr

    def test_the_server_of_a_manifest_is_found(self, manifest: Path, gateway: str) -> None:
        Gateway.answer = (200, answer())
        state_of(manifest).write_serving(server_record(gateway))
        assert thinkrec("recommend", "-f", manifest, "--user", "42").exit_code == Exit.DONE


def server_record(url: str) -> ServingRecord:
    process = ProcessRecord(pid=1, created=0)
    return ServingRecord(revision="movies-1", spec_hash="x", url=url, process=process, started=utc_now(), ready=True)


class TestTheOnlyServer:
    """`recommend` without a manifest or an address."""

    @pytest.fixture(autouse=True)
    def here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("THINKREC_URL", raising=False)
        Gateway.answer = (200, answer())

    @contextmanager
    def serving(self, folder: Path, url: str, name: str = "movies") -> Iterator[Path]:
        """A driver at work on a model whose manifest lies in `folder`."""
        state = State(folder / ".thinkrec" / "default" / name)
        state.write_serving(server_record(url))
        with state.locked(command="serve", now=utc_now()):
            yield folder

    @pytest.mark.parametrize("where", [".", "movielens", "examples/movielens"])
    def test_is_found_where_manifests_usually_lie(self, tmp_path: Path, gateway: str, where: str) -> None:
        with self.serving(tmp_path / where, gateway):
            found = thinkrec("recommend", "--user", "42", "-k", "10", "--explain")
        assert found.exit_code == Exit.DONE, found.stderr
        assert "Star Wars (1977)" in found.stdout

    def test_is_found_in_a_state_folder_that_was_named(self, tmp_path: Path, gateway: str) -> None:
        with self.serving(tmp_path / "a" / "b" / "c", gateway) as folder:
            found = thinkrec("recommend", "--user", "42", "--state-dir", folder / ".thinkrec")
            assert found.exit_code == Exit.DONE
            assert thinkrec("recommend", "--user", "42").exit_code == Exit.UNAVAILABLE

    def test_among_several_nobody_guesses(self, tmp_path: Path, gateway: str) -> None:
        with self.serving(tmp_path, gateway), self.serving(tmp_path / "b", "http://127.0.0.1:9", "books"):
            found = thinkrec("recommend", "--user", "42")
            assert found.exit_code == Exit.USAGE
            assert "2 models serve" in found.stderr
            for text in ("default/movies at " + gateway, "default/books at http://127.0.0.1:9", "--file FILE"):
                assert text in found.stderr
            assert thinkrec("recommend", "--user", "42", "--url", gateway).exit_code == Exit.DONE

    def test_one_that_was_killed_does_not_count(self, tmp_path: Path, gateway: str) -> None:
        with self.serving(tmp_path, gateway):
            pass
        found = thinkrec("recommend", "--user", "42")
        assert found.exit_code == Exit.UNAVAILABLE
        assert "default/movies, do not serve" in found.stderr
        assert "thinkrec serve -f FILE --detach" in found.stderr

    def test_without_any_model_the_remedies_are_named(self) -> None:
        found = thinkrec("recommend", "--user", "42")
        assert found.exit_code == Exit.UNAVAILABLE
        assert "there is no model" in found.stderr
        assert "THINKREC_URL" in found.stderr

    def test_the_environment_names_one_and_options_win(
        self, manifest: Path, gateway: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("THINKREC_URL", gateway)
        assert thinkrec("recommend", "--user", "42").exit_code == Exit.DONE
        assert "http://127.0.0.1:9" in thinkrec("recommend", "--user", "42", "--url", "http://127.0.0.1:9").stderr
        assert "nothing serves here" in thinkrec("recommend", "--user", "42", "-f", manifest).stderr
