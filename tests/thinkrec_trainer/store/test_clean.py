# SPDX-License-Identifier: Apache-2.0
"""Artifacts leave a store, whole and alone: in folders and in S3."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from thinkrec_crds.clean import ArtifactName, CleanMessage, CleanProgress, CleanSpec
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_crds.stages import StoreOptions
from thinkrec_trainer.clean import run_clean
from thinkrec_trainer.store import join, open_blobs

Store = tuple[str, StoreOptions]
GONE, KEPT = "a" * 40, "b" * 40
FILES = (
    "{kind}/{key}/manifest.json",
    "{kind}/{key}/part/data.bin",
    "{kind}/.checkpoints/{key}/00000001-00000000/checkpoint.json",
    "{kind}/.shards/{key}/3-0/1/manifest.json",
    "{kind}/.shards/{key}/3-0/board/pool.json",
)


def fill(store: Store, key: str, kind: str = "keywords") -> None:
    blobs = open_blobs(store[0], store[1])
    for name in FILES:
        blobs.create(name.format(kind=kind, key=key), b"x")


def names(store: Store) -> list[str]:
    return [blob.name for blob in open_blobs(store[0], store[1]).list()]


def clean(
    store: Store, folder: Path, artifacts: Sequence[tuple[str, str]], **fields: Any
) -> tuple[int, CleanMessage, list[CleanProgress]]:
    wanted = tuple(ArtifactName(kind=StageKind(kind), key=key) for kind, key in artifacts)
    return run(folder, CleanSpec(root_uri=store[0], store=store[1], artifacts=wanted, **fields).to_json())


def run(folder: Path, spec: str) -> tuple[int, CleanMessage, list[CleanProgress]]:
    (folder / "clean.json").write_text(spec)
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THINKREC_TERMINATION_PATH", str(folder / "message"))
        code = run_clean(folder / "clean.json", lines.append)
    message = CleanMessage.from_json((folder / "message").read_bytes())
    return code, message, [CleanProgress.from_json(line) for line in lines]


def test_an_artifact_goes_with_its_checkpoints_and_shares_and_nothing_else(storage: Store, tmp_path: Path) -> None:
    for key in (GONE, KEPT):
        fill(storage, key)
    fill(storage, GONE, "traces")
    open_blobs(storage[0], storage[1]).create("keywords/.cache/keywords/f/part.parquet", b"x")
    before = names(storage)
    code, message, progress = clean(storage, tmp_path, [("keywords", GONE)])
    assert code == 0
    assert message.counts == {"artifacts": 1, "removed": 1, "absent": 0, "files": len(FILES)}
    assert message.error is None
    assert names(storage) == [name for name in before if not (GONE in name and name.startswith("keywords/"))]
    assert (progress[-1].step, progress[-1].total) == (1, 1)


def test_a_clean_up_may_be_repeated(storage: Store, tmp_path: Path) -> None:
    fill(storage, GONE)
    artifacts = [("keywords", GONE), ("keywords", KEPT)]
    assert clean(storage, tmp_path, artifacts)[1].counts["removed"] == 1
    code, message, _ = clean(storage, tmp_path, artifacts)
    assert (code, message.counts) == (0, {"artifacts": 2, "removed": 0, "absent": 2, "files": 0})
    assert names(storage) == []


def test_checkpoints_that_lie_elsewhere(storage: Store, tmp_path: Path) -> None:
    fill(storage, GONE)
    elsewhere = join(storage[0], "elsewhere")
    blobs = open_blobs(elsewhere, storage[1])
    for key in (GONE, KEPT):
        blobs.create(f"{key}/00000001-00000000/checkpoint.json", b"x")
    clean(storage, tmp_path, [("keywords", GONE)], checkpoint_uri=elsewhere)
    assert [blob.name for blob in blobs.list()] == [f"{KEPT}/00000001-00000000/checkpoint.json"]


def test_a_folder_leaves_no_folder_behind(tmp_path: Path) -> None:
    store = ((tmp_path / "store").as_uri(), StoreOptions())
    fill(store, GONE)
    clean(store, tmp_path, [("keywords", GONE)])
    left = [path.relative_to(tmp_path / "store").as_posix() for path in (tmp_path / "store").rglob("*")]
    assert sorted(left) == ["keywords", "keywords/.checkpoints", "keywords/.shards"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"artifacts": [{"kind": "keywords", "key": "../../etc"}]}, "artifacts.0.key"),
        ({"artifacts": [{"kind": "keywords", "key": "a" * 39}]}, "artifacts.0.key"),
        ({"artifacts": [{"kind": "../x", "key": "a" * 40}]}, "artifacts.0.kind"),
        ({"artifacts": [{"kind": "keywords", "key": "a" * 40}] * 5001}, "at most 5000"),
        ({"rootUri": ""}, "rootUri"),
        ({"rootUri": "file:///"}, "is the whole file system"),
        ({"rootUri": "file:///store/../home"}, "leads upwards"),
        ({"checkpointUri": "/"}, "is the whole file system"),
        ({"rootUri": "ftp://host/store"}, "is not supported"),
        ({"everything": True}, "everything"),
    ],
)
def test_what_is_refused_before_anything_is_touched(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    body = {"rootUri": (tmp_path / "store").as_uri(), "artifacts": [{"kind": "keywords", "key": GONE}]} | change
    code, message, progress = run(tmp_path, json.dumps(body))
    assert code == 64
    assert told in (message.error or "")
    assert progress == []


def test_a_link_out_of_the_store_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("x")
    (tmp_path / "store" / "keywords").mkdir(parents=True)
    (tmp_path / "store" / "keywords" / GONE).symlink_to(tmp_path / "precious")
    code, message, _ = clean(((tmp_path / "store").as_uri(), StoreOptions()), tmp_path, [("keywords", GONE)])
    assert code == 64
    assert "is a link" in (message.error or "")
    assert (tmp_path / "precious" / "thesis.txt").is_file()


def test_a_store_out_of_reach_is_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test-key-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret")
    store = ("s3://bucket/store", StoreOptions(endpoint="http://127.0.0.1:9"))
    code, message, _ = clean(store, tmp_path, [("keywords", GONE)])
    assert code == 75
    assert "out of reach" in (message.error or "")
    assert message.counts["removed"] == 0


def test_the_command_stops_between_two_artifacts_when_asked_to(tmp_path: Path) -> None:
    """A signal that waits for the process from its first line on."""
    store = ((tmp_path / "store").as_uri(), StoreOptions())
    keys = [f"{number:040x}" for number in range(3000)]
    (tmp_path / "clean.json").write_text(
        CleanSpec(
            root_uri=store[0], artifacts=tuple(ArtifactName(kind=StageKind.EXPERT, key=key) for key in keys)
        ).to_json()
    )
    own = {"THINKREC_TERMINATION_PATH": str(tmp_path / "message")}
    command = [sys.executable, "-m", "thinkrec_trainer", "clean", str(tmp_path / "clean.json")]
    with subprocess.Popen(command, env={**os.environ, **own}, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert CleanProgress.from_json(process.stdout.readline()).total == len(keys)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 143
    message = CleanMessage.from_json((tmp_path / "message").read_bytes())
    assert "of 3000 artifacts" in (message.error or "")
    assert message.counts["absent"] < len(keys)
