# SPDX-License-Identifier: Apache-2.0
"""Checkpoints, progress lines, outside sources, deliveries, logs: the parts of the protocol one by one."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from support.stages import make_spec
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_crds.stages import BaseModelRef, CheckpointOptions, KeywordsParameters, StoreOptions
from thinkrec_inference.engine import digests
from thinkrec_trainer import fetch, termination
from thinkrec_trainer.checkpoint import Checkpoints, open_checkpoints
from thinkrec_trainer.delivery import deliver
from thinkrec_trainer.errors import BadInput, Interrupted
from thinkrec_trainer.fetch import base_model_uri, fetch_source, source_digest
from thinkrec_trainer.logs import JsonFormatter, secret_values
from thinkrec_trainer.progress import ProgressLines
from thinkrec_trainer.store import Blobs, open_blobs

OpenStore = Callable[[str], Blobs]


class Clock:
    """Time that moves when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def writer(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        assert list(folder.iterdir()) == [], "each checkpoint starts with an empty folder"
        (folder / "sub").mkdir()
        (folder / "sub" / "state.txt").write_text(text)

    return write


def state(folder: Path | None) -> str | None:
    return None if folder is None else (folder / "sub" / "state.txt").read_text()


def test_newest_checkpoint_wins_and_two_are_kept(open_store: OpenStore, tmp_path: Path) -> None:
    first = Checkpoints(open_store("c"), tmp_path / "one", 300)
    assert first.load() is None
    for text in ("a", "b", "c"):
        first.save(writer(text))
    assert state(Checkpoints(open_store("c"), tmp_path / "two", 300).load()) == "c"
    assert sum(blob.name.endswith("checkpoint.json") for blob in open_store("c").list()) == 2


def test_damaged_and_unfinished_checkpoints_are_passed_over(open_store: OpenStore, tmp_path: Path) -> None:
    """The newest lost its bytes, an even newer one was never finished: the one before is taken."""
    blobs = open_store("c")
    checkpoints = Checkpoints(blobs, tmp_path / "one", 300)
    checkpoints.save(writer("whole"))
    checkpoints.save(writer("damaged"))
    newest = max(blob.name for blob in blobs.list() if blob.name.endswith("state.txt"))
    (tmp_path / "x").write_text("????????")
    blobs.upload(newest, tmp_path / "x")
    blobs.upload("00000009-abcdef01/sub/state.txt", tmp_path / "x")
    assert state(checkpoints.load()) == "whole"


def test_a_checkpoint_that_lost_a_file_is_passed_over(open_store: OpenStore, tmp_path: Path) -> None:
    blobs = open_store("c")
    checkpoints = Checkpoints(blobs, tmp_path / "one", 300)
    checkpoints.save(writer("whole"))
    checkpoints.save(writer("robbed"))
    blobs.delete([max(blob.name for blob in blobs.list() if blob.name.endswith("state.txt"))])
    assert state(checkpoints.load()) == "whole"


def test_discard_removes_everything(open_store: OpenStore, tmp_path: Path) -> None:
    checkpoints = Checkpoints(open_store("c"), tmp_path, 300)
    checkpoints.save(writer("a"))
    checkpoints.discard()
    assert open_store("c").list() == []
    assert checkpoints.load() is None


def test_due_counts_from_start_and_last_save(tmp_path: Path) -> None:
    clock = Clock()
    checkpoints = Checkpoints(open_blobs(str(tmp_path / "c")), tmp_path / "w", 300, clock=clock)
    assert not checkpoints.due()
    clock.now += 300
    assert checkpoints.due()
    checkpoints.save(writer("a"))
    assert not checkpoints.due()


def test_interruption_is_seen_and_raised(tmp_path: Path) -> None:
    checkpoints = Checkpoints(open_blobs(str(tmp_path / "c")), tmp_path / "w", 300)
    checkpoints.raise_if_interrupted()
    checkpoints.interrupt()
    assert checkpoints.interrupted
    with pytest.raises(Interrupted):
        checkpoints.raise_if_interrupted()


def test_where_checkpoints_lie_and_whether_they_resume(tmp_path: Path) -> None:
    spec = make_spec(KeywordsParameters(), tmp_path)
    beside = open_checkpoints(spec, tmp_path / "w")
    assert beside.blobs.uri == f"{tmp_path.as_uri()}/keywords/.checkpoints/{spec.key}"
    beside.save(writer("a"))
    never = spec.model_copy(update={"checkpoint": CheckpointOptions(resume_policy="Never")})
    assert open_checkpoints(never, tmp_path / "w").load() is None
    elsewhere = spec.model_copy(update={"checkpoint": CheckpointOptions(storage_uri=str(tmp_path / "other"))})
    assert open_checkpoints(elsewhere, tmp_path / "w").blobs.uri == f"{(tmp_path / 'other').as_uri()}/{spec.key}"


def test_progress_is_throttled_and_the_last_line_always_comes() -> None:
    clock, stream = Clock(), io.StringIO()
    lines = ProgressLines(StageKind.ADAPTER, "0" * 40, stream=stream, clock=clock)
    for step in range(11):
        lines.update(step, 10, metrics={"loss": step / 2})
        clock.now += 0.3
    lines.flush()
    written = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["step"] for line in written] == [0, 4, 8, 10]
    assert written[-1]["metrics"] == {"loss": 5.0}
    assert written[-1]["etaSeconds"] == 0.0


def test_eta_counts_only_this_process() -> None:
    """Resumed at step 50, ten steps took twenty seconds: forty more take eighty."""
    clock, stream = Clock(), io.StringIO()
    lines = ProgressLines(StageKind.ADAPTER, "0" * 40, stream=stream, clock=clock)
    lines.update(50, 100)
    clock.now += 20
    lines.update(60, 100)
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert "etaSeconds" not in first
    assert second["etaSeconds"] == 80.0


def test_sources_in_a_store_are_fetched_once_and_again_when_changed(
    storage: tuple[str, StoreOptions], tmp_path: Path
) -> None:
    uri, options = storage
    blobs = open_blobs(f"{uri}/data", options)
    (tmp_path / "x").write_text("one")
    for name in ("a.csv", "sub/b.csv", "a.csv.bak"):
        blobs.upload(name, tmp_path / "x")
    cache = tmp_path / "cache"
    file = fetch_source(f"{uri}/data/a.csv", options, cache)
    assert (file.name, file.read_text()) == ("a.csv", "one")
    folder = fetch_source(f"{uri}/data", options, cache)
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.csv")) == ["a.csv", "sub/b.csv"]
    assert fetch_source(f"{uri}/data/a.csv", options, cache) == file
    (tmp_path / "x").write_text("two")
    blobs.upload("a.csv", tmp_path / "x")
    assert fetch_source(f"{uri}/data/a.csv", options, cache).read_text() == "two"
    with pytest.raises(BadInput, match="does not exist"):
        fetch_source(f"{uri}/data/none.csv", options, cache)


@pytest.mark.parametrize("uri", ["hf://only-name", "hf://a/b/c", "hf://../x"])
def test_hub_uri_of_the_wrong_form(uri: str) -> None:
    with pytest.raises(BadInput, match=r"hf://organisation/name\[@revision\]"):
        fetch_source(uri)


def test_revision_joins_hub_uris_only() -> None:
    assert base_model_uri(BaseModelRef(storage_uri="hf://a/b", revision="v1")) == "hf://a/b@v1"
    assert base_model_uri(BaseModelRef(storage_uri="hf://a/b@v0", revision="v1")) == "hf://a/b@v0"
    assert base_model_uri(BaseModelRef(storage_uri="file:///m", revision="v1")) == "file:///m"


def test_source_digest_sees_names_and_bytes(tmp_path: Path) -> None:
    def digest(**files: str) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text)
        return source_digest(folder)

    assert digest(a="1", b="2") == digest(b="2", a="1")
    assert len({digest(a="1"), digest(b="1"), digest(a="2"), digest(a="1", b="")}) == 4


def test_delivery_into_a_folder_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "home"
    target.mkdir()
    (target / "thesis.txt").write_text("precious")
    (tmp_path / "model").mkdir()
    with pytest.raises(BadInput, match=r"holds 'thesis\.txt'"):
        deliver(str(tmp_path / "model"), target, StoreOptions())
    assert (target / "thesis.txt").read_text() == "precious"


def test_delivery_replaces_an_earlier_one(tmp_path: Path) -> None:
    """As a restarted init container does, in a folder that cannot be renamed."""
    source, target = tmp_path / "model", tmp_path / "mount"
    source.mkdir()
    for name in ("one.json", "two.json"):
        (source / name).write_text("{}")
    deliver(str(source), target, StoreOptions())
    (source / "one.json").unlink()
    deliver(str(source), target, StoreOptions())
    assert sorted(p.name for p in target.iterdir()) == [".thinkrec-delivery", "two.json"]


@pytest.mark.parametrize("uri", ["model", "hf://organisation/model"])
def test_delivery_with_a_digest_wants_an_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    with pytest.raises(BadInput, match="nothing is published"):
        deliver(uri, tmp_path / "to", StoreOptions(), "sha256:" + "0" * 64)


def test_logs_are_json_and_hide_secrets() -> None:
    secrets = secret_values({"AWS_SECRET_ACCESS_KEY": "hunter22", "HF_TOKEN": "abc", "PATH": "/usr/bin:/bin"})
    assert secrets == ("hunter22",)
    record = logging.LogRecord("x", logging.WARNING, "f", 1, "key %s\nis wrong", ("hunter22",), None)
    line = JsonFormatter(secrets).format(record)
    assert "\n" not in line
    assert json.loads(line)["message"] == "key ***\nis wrong"
    assert json.loads(line)["level"] == "warning"


@pytest.mark.parametrize("secret", ['pass"word', "back\\slash", "new\nline-x", "pässwörd", "sl/ash+sign"])
def test_secrets_are_found_however_they_are_written(secret: str) -> None:
    secrets = secret_values({"S3_PASSWORD": secret})
    record = logging.LogRecord("x", logging.INFO, "f", 1, "%s %r s3://u:%s@h %s", written(secret), None)
    body = json.loads(JsonFormatter(secrets).format(record))
    assert body["message"] == "*** '***' s3://u:***@h \"***\""


def written(secret: str) -> tuple[str, ...]:
    return (secret, secret, quote(secret, safe=""), json.dumps(secret))


def test_a_secret_in_a_traceback_is_hidden() -> None:
    try:
        raise KeyError('pass"word\\')
    except KeyError:
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "failed", (), sys.exc_info())
    body = json.loads(JsonFormatter(secret_values({"TOKEN": 'pass"word\\'})).format(record))
    assert body["traceback"].splitlines()[-1] == "KeyError: '***'"


def test_progress_messages_hide_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_AWS_SECRET_ACCESS_KEY", 'pass"word')
    stream = io.StringIO()
    ProgressLines(StageKind.DATASET, "0" * 40, stream=stream).update(1, 2, 's3://u:pass"word@host is here')
    assert json.loads(stream.getvalue())["message"] == "s3://u:***@host is here"


def test_a_secret_with_line_breaks_does_not_reach_the_termination_message(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The message is one line; the secret must be found before its white space is collapsed."""
    monkeypatch.setenv("STORE_PASSWORD", "first line\nsecond  part")
    message = termination.failure(make_spec(KeywordsParameters(), tmp_path), "refused:\n first line\nsecond  part")
    assert message.error == "refused: ***"


def test_trainer_and_engine_share_one_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A home given as ~ is the user's own in both."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("THINKREC_CACHE", "~/shelf")
    assert fetch.cache_folder() == digests.cache_folder() == tmp_path / "shelf"
    monkeypatch.setenv("THINKREC_CACHE", "")
    assert fetch.cache_folder() == tmp_path / ".cache" / "thinkrec"


def test_a_digest_is_of_the_bytes_and_not_of_the_time_stamp(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("one")
    before, stat = source_digest(path), path.stat()
    path.write_text("two")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert source_digest(path) != before
