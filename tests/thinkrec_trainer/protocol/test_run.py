# SPDX-License-Identifier: Apache-2.0
"""The stage protocol as a caller sees it: a process with a file, an exit code, a termination message, JSON lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.stages import make_spec
from thinkrec_crds.artifact import TERMINATION_MESSAGE_BYTES, Progress, TerminationMessage
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_crds.stages import DatasetParameters, InputRef, ItemSource, KeywordsParameters, StageSpec, StoreOptions
from thinkrec_trainer import registry
from thinkrec_trainer.logs import configure_logs
from thinkrec_trainer.protocol import run_stage
from thinkrec_trainer.store import open_blobs, read_manifest
from thinkrec_trainer.termination import fitted

RATINGS = "user_id,item_id,rating,timestamp\n" + "".join(f"u{n % 5},i{n % 7},{n % 5 + 1},{n}\n" for n in range(35))
ITEMS = "item_id,title,genres\n" + "".join(f"i{n},Title {n},Drama|War\n" for n in range(7))


@dataclass
class Ended:
    """A finished stage process."""

    code: int
    out: str
    err: str
    message: TerminationMessage | None

    def logs(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.err.splitlines()]


@dataclass
class Runner:
    """Runs `python -m thinkrec_trainer` with everything below one folder."""

    folder: Path

    def environment(self, **extra: str) -> dict[str, str]:
        own = {
            "THINKREC_TERMINATION_PATH": str(self.folder / "termination"),
            "THINKREC_CACHE": str(self.folder / "cache"),
        }
        return {**os.environ, **own, "TMPDIR": str(self.temporary), "OMP_NUM_THREADS": "1", **extra}

    @property
    def temporary(self) -> Path:
        path = self.folder / "tmp"
        path.mkdir(exist_ok=True)
        return path

    def command(self, *arguments: str, **extra: str) -> Ended:
        (self.folder / "termination").unlink(missing_ok=True)
        done = subprocess.run(
            [sys.executable, "-m", "thinkrec_trainer", *arguments],
            env=self.environment(**extra),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr, self.message())

    def message(self) -> TerminationMessage | None:
        path = self.folder / "termination"
        return TerminationMessage.from_json(path.read_bytes()) if path.is_file() else None

    def stage(self, spec: StageSpec | str, **extra: str) -> Ended:
        path = self.folder / "stage.json"
        path.write_text(spec if isinstance(spec, str) else spec.to_json())
        return self.command("run", str(path), **extra)


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    (tmp_path / "ratings.csv").write_text(RATINGS)
    (tmp_path / "items.csv").write_text(ITEMS)
    return Runner(tmp_path)


def dataset_spec(folder: Path, storage: Path | str | None = None, **fields: Any) -> StageSpec:
    items = ItemSource(storage_uri=str(folder / "items.csv"), format="CSV")
    ratings = fields.pop("storage_uri", str(folder / "ratings.csv"))
    parameters = DatasetParameters(storage_uri=ratings, revision="1", format="CSV", items=items, **fields)
    return make_spec(parameters, storage or folder / "store")


def test_stage_publishes_reports_and_cleans_up(runner: Runner) -> None:
    spec = dataset_spec(runner.folder)
    ended = runner.stage(spec)
    assert ended.code == 0, ended.err
    published = read_manifest(open_blobs(spec.output_uri))
    assert published is not None
    assert ended.message == TerminationMessage(
        key=spec.key,
        kind=StageKind.DATASET,
        digest=published.digest,
        uri=spec.output_uri,
        counts=published.manifest.counts,
    )
    lineage = published.manifest.lineage
    assert set(lineage.source_digests) == {"ratings", "items"}
    assert (lineage.seed, lineage.device, lineage.precision) == (0, "cpu", "Float32")
    assert lineage.created_time.endswith("Z")
    progress = [Progress.from_json(line) for line in ended.out.splitlines()]
    assert (progress[-1].step, progress[-1].total, progress[-1].eta_seconds) == (5, 5, 0.0)
    assert list(runner.temporary.iterdir()) == []


def test_published_key_is_not_run_again(runner: Runner) -> None:
    """The second run succeeds although its source is gone: nothing was read."""
    spec = dataset_spec(runner.folder)
    first = runner.stage(spec)
    (runner.folder / "ratings.csv").unlink()
    second = runner.stage(spec)
    assert second.code == 0
    assert second.message == first.message
    assert second.out == ""


def test_next_stage_reads_the_verified_artifact(runner: Runner) -> None:
    dataset = dataset_spec(runner.folder)
    message = runner.stage(dataset).message
    assert message is not None
    keywords = keywords_spec(runner, dataset, message.digest)
    ended = runner.stage(keywords)
    assert ended.code == 0, ended.err
    published = read_manifest(open_blobs(keywords.output_uri))
    assert published is not None
    assert published.manifest.lineage.inputs == {"dataset": message.digest}


def keywords_spec(runner: Runner, dataset: StageSpec, digest: str | None, **changes: Any) -> StageSpec:
    assert digest is not None
    ref = InputRef(name="dataset", kind=StageKind.DATASET, key=dataset.key, uri=dataset.output_uri, digest=digest)
    spec = make_spec(KeywordsParameters(), runner.folder / "store")
    return spec.model_copy(update={"inputs": (ref.model_copy(update=changes),)})


def test_changed_input_is_refused(runner: Runner) -> None:
    dataset = dataset_spec(runner.folder)
    message = runner.stage(dataset).message
    assert message is not None
    items = Path(dataset.output_uri.removeprefix("file://")) / "items.parquet"
    items.chmod(0o644)
    items.write_bytes(items.read_bytes()[:-1] + b"?")
    ended = runner.stage(keywords_spec(runner, dataset, message.digest))
    assert ended.code == 64
    assert ended.message is not None
    assert ended.message.digest is None
    assert "items.parquet has sha256" in (ended.message.error or "")


def test_input_of_another_key_is_refused(runner: Runner) -> None:
    dataset = dataset_spec(runner.folder)
    message = runner.stage(dataset).message
    assert message is not None
    ended = runner.stage(keywords_spec(runner, dataset, message.digest, key="f" * 40))
    assert ended.code == 64
    assert f"expected dataset {'f' * 40}" in ended.err


def test_every_wrong_field_is_listed(runner: Runner) -> None:
    body = json.loads(dataset_spec(runner.folder).to_json())
    body["seed"] = "many"
    body["parameters"]["format"] = "Excel"
    body["surplus"] = 1
    ended = runner.stage(json.dumps(body))
    assert ended.code == 64
    text = ended.logs()[-1]["message"]
    assert "3 wrong field(s)" in text
    assert 'seed: Input should be a valid integer, unable to parse string as an integer (got "many")' in text
    assert '(got "Excel")' in text
    assert "surplus" in text


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_stage_file_that_is_no_stage(runner: Runner, content: str) -> None:
    assert runner.stage(content).code == 64


def test_stage_file_that_does_not_exist(runner: Runner) -> None:
    ended = runner.command("run", str(runner.folder / "none.json"))
    assert ended.code == 64
    assert "cannot be read" in ended.err


def test_bad_input_of_a_stage(runner: Runner) -> None:
    ended = runner.stage(dataset_spec(runner.folder, storage_uri=str(runner.folder / "none.csv")))
    assert ended.code == 64
    assert ended.message is not None
    assert "does not exist" in (ended.message.error or "")
    assert ended.message.reason == "DatasetNotFound"
    assert list(runner.temporary.iterdir()) == []
    assert not (runner.folder / "store").exists()


def test_store_out_of_reach_is_temporary(runner: Runner) -> None:
    spec = dataset_spec(runner.folder, "s3://bucket/x").model_copy(
        update={"store": StoreOptions(endpoint="http://127.0.0.1:9")}
    )
    ended = runner.stage(spec, AWS_ACCESS_KEY_ID="test-key-id", AWS_SECRET_ACCESS_KEY="test-secret")
    assert ended.code == 75
    assert ended.message is not None
    assert "out of reach" in (ended.message.error or "")


def test_file_where_the_store_folder_must_be(runner: Runner) -> None:
    (runner.folder / "store").mkdir()
    (runner.folder / "store" / "dataset").write_text("in the way")
    ended = runner.stage(dataset_spec(runner.folder))
    assert ended.code == 64
    assert "is in the way" in ended.err


def test_defect_ends_with_one_a_traceback_and_no_secret(
    runner: Runner, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stage with a bug that quotes a secret in its error."""
    monkeypatch.setitem(registry.MODULES, StageKind.DATASET, "support.broken_stage")
    monkeypatch.setenv("THINKREC_TERMINATION_PATH", str(runner.folder / "termination"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    (runner.folder / "stage.json").write_text(dataset_spec(runner.folder).to_json())
    configure_logs()
    assert run_stage(runner.folder / "stage.json") == 1
    message = runner.message()
    assert message is not None
    assert message.error == "unexpected ZeroDivisionError: *** divided; see the log's traceback"
    log = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert "broken_stage.py" in log["traceback"]
    assert "sk-very-secret" not in json.dumps(log)


def test_termination_message_fits_by_dropping_counts_first() -> None:
    counts = {f"count_{n}_{'x' * 60}": n for n in range(60)}
    message = TerminationMessage(key="0" * 40, kind=StageKind.EVALUATE, metrics={"auc": 0.5}, counts=counts)
    text = fitted(message)
    assert 3000 < len(text.encode()) <= TERMINATION_MESSAGE_BYTES
    back = TerminationMessage.from_json(text)
    assert back.metrics == {"auc": 0.5}
    assert 0 < len(back.counts) < 60


def test_long_error_fits_too() -> None:
    message = TerminationMessage(key="0" * 40, kind=StageKind.EVALUATE, error="é" * 5000)
    assert len(fitted(message).encode()) <= TERMINATION_MESSAGE_BYTES


def test_output_that_holds_another_key_is_refused(runner: Runner) -> None:
    spec = dataset_spec(runner.folder)
    runner.stage(spec)
    other = dataset_spec(runner.folder, max_users=2).model_copy(update={"output_uri": spec.output_uri})
    ended = runner.stage(other)
    assert ended.code == 64
    assert "give every key a folder of its own" in ended.err


def test_s3_end_to_end(runner: Runner, storage: tuple[str, StoreOptions]) -> None:
    """Both stages through either store; with S3 the second reads through the cache."""
    uri, options = storage
    dataset = dataset_spec(runner.folder, uri).model_copy(update={"store": options})
    message = runner.stage(dataset).message
    assert message is not None
    assert message.error is None
    keywords = keywords_spec(runner, dataset, message.digest)
    keywords = keywords.model_copy(update={"store": options, "output_uri": f"{uri}/keywords/{keywords.key}"})
    assert runner.stage(keywords).code == 0
    again = runner.stage(keywords.model_copy(update={"output_uri": f"{uri}/again/{keywords.key}"}))
    assert again.code == 0
    blobs = [blob.name for blob in open_blobs(uri, options).list()]
    assert sum(name.endswith("manifest.json") for name in blobs) == 3
    endpoint = ["--endpoint", options.endpoint] if options.endpoint else []
    fetched = runner.command("fetch", keywords.output_uri, "--to", str(runner.folder / "got"), *endpoint)
    assert fetched.code == 0, fetched.err
    assert (runner.folder / "got" / "keywords.parquet").is_file()
