# SPDX-License-Identifier: Apache-2.0
"""The protocol of shares: who publishes what, races, kills, retries, other counts. In folders and in S3."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

import support
from support import shard_stage
from support.stages import make_spec
from thinkrec_crds.artifact import TerminationMessage
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_crds.stages import GateParameters, InputRef, KeywordsParameters, StageSpec, StoreOptions
from thinkrec_trainer.errors import BadInput
from thinkrec_trainer.shards import shard_of
from thinkrec_trainer.store import copy_artifact, open_blobs, read_manifest

EXPECTED = "".join(f"{item}\n" for item in range(shard_stage.ITEMS))
TESTS = Path(next(iter(support.__path__))).parent


@dataclass
class Pods:
    """The pods of one Indexed Job, as processes."""

    folder: Path
    spec: StageSpec

    @property
    def control(self) -> Path:
        made = self.folder / "control"
        made.mkdir(exist_ok=True)
        return made

    def start(self, index: int, count: int) -> subprocess.Popen[bytes]:
        place = self.folder / f"pod-{index}-{count}"
        place.mkdir(exist_ok=True)
        (place / "stage.json").write_text(self.spec.to_json())
        own = {
            "JOB_COMPLETION_INDEX": str(index),
            "THINKREC_SHARD_COUNT": str(count),
            "THINKREC_TERMINATION_PATH": str(place / "message"),
            "PYTHONPATH": str(TESTS),
        }
        (place / "message").unlink(missing_ok=True)
        command = [sys.executable, "-m", "support.shard_stage", str(self.control), str(place / "stage.json")]
        with (place / "log").open("ab") as log:
            return subprocess.Popen(command, env={**os.environ, **own}, stdout=log, stderr=log)

    def run(self, indexes: Iterable[int], count: int) -> list[int]:
        """Run pods at the same time; return their exit codes."""
        started = [self.start(index, count) for index in indexes]
        return [process.wait(timeout=60) for process in started]

    def message(self, index: int, count: int) -> TerminationMessage:
        return TerminationMessage.from_json((self.folder / f"pod-{index}-{count}" / "message").read_bytes())

    def notes(self, prefix: str) -> list[str]:
        return sorted(path.name for path in self.control.glob(f"{prefix}-*"))

    def items(self) -> str:
        return (self.fetched() / "items.txt").read_text()

    def fetched(self) -> Path:
        return copy_artifact(open_blobs(self.spec.output_uri, self.spec.store), self.folder / "fetched").path

    def is_published(self) -> bool:
        return read_manifest(open_blobs(self.spec.output_uri, self.spec.store)) is not None

    def blobs(self) -> list[str]:
        root = self.spec.output_uri.rpartition("/keywords/")[0]
        return [blob.name for blob in open_blobs(root, self.spec.store).list()]


@pytest.fixture
def pods(tmp_path: Path) -> Pods:
    """With a folder as store."""
    return Pods(tmp_path, make_spec(KeywordsParameters(), tmp_path / "store"))


@pytest.fixture
def stored_pods(tmp_path: Path, storage: tuple[str, StoreOptions]) -> Pods:
    """With either store."""
    uri, options = storage
    return Pods(tmp_path, make_spec(KeywordsParameters(), uri).model_copy(update={"store": options}))


def test_the_last_pod_publishes_the_whole_and_leaves_no_share_behind(stored_pods: Pods) -> None:
    pods = stored_pods
    assert pods.run([1], 3) == [0]
    assert pods.run([0], 3) == [0]
    assert not pods.is_published()
    early = pods.message(1, 3)
    assert (early.shard, early.digest, early.error, early.counts) == ("1-of-3", None, None, {"items": 3})
    assert pods.run([2], 3) == [0]
    last = pods.message(2, 3)
    assert (last.shard, last.counts, last.uri) == (None, {"items": shard_stage.ITEMS}, pods.spec.output_uri)
    assert last.digest == read_manifest(open_blobs(pods.spec.output_uri, pods.spec.store)).digest  # type: ignore[union-attr]
    assert pods.items() == EXPECTED
    assert [name for name in pods.blobs() if ".shards" in name] == []


def test_pods_at_the_same_time_publish_once(pods: Pods) -> None:
    assert pods.run(range(4), 4) == [0] * 4
    assert pods.items() == EXPECTED
    digests = {pods.message(index, 4).digest for index in range(4)} - {None}
    assert len(digests) == 1, "at least one pod names the whole, and all that do name the same one"


def test_two_pods_that_merge_at_the_same_time_both_succeed(stored_pods: Pods) -> None:
    """Both are in the middle of their merge before either may publish."""
    pods = stored_pods
    (pods.control / "hold").touch()
    started = [pods.start(index, 2) for index in range(2)]
    _wait(lambda: len(pods.notes("merge")) >= 1)
    late = pods.start(0, 2)  # a second pod of the same index, as after a lost node: its share is there already
    _wait(lambda: len(pods.notes("merge")) >= 2)
    (pods.control / "hold").unlink()
    assert [process.wait(timeout=60) for process in (*started, late)] == [0, 0, 0]
    assert pods.items() == EXPECTED
    assert [name for name in pods.blobs() if ".shards" in name] == []


def test_a_pod_killed_before_its_merge_is_made_up_for_by_any_other(pods: Pods) -> None:
    assert pods.run([0], 2) == [0]
    (pods.control / "kill").touch()
    assert pods.run([1], 2) == [-9]
    assert not pods.is_published()
    assert pods.run([0], 2) == [0]
    assert pods.message(0, 2).digest is not None
    assert pods.items() == EXPECTED
    assert [(pods.control / name).read_text() for name in pods.notes("share")] == ["once\n"] * 2


def test_a_published_share_is_not_made_again(pods: Pods) -> None:
    assert pods.run([1], 3) == pods.run([1], 3) == [0]
    assert (pods.control / "share-1-of-3").read_text() == "once\n"
    assert pods.message(1, 3).shard == "1-of-3"


def test_shares_of_another_count_are_not_mixed_in(pods: Pods) -> None:
    assert pods.run([0], 2) == [0]
    assert pods.run([1, 2], 3) == [0, 0]
    assert not pods.is_published(), "three shares, but not the three of one count"
    assert pods.run([0], 3) == [0]
    assert pods.items() == EXPECTED
    assert [name for name in pods.blobs() if ".shards" in name] == []


def test_shares_of_inputs_made_again_since_are_not_mixed_in(pods: Pods, tmp_path: Path) -> None:
    """An input that was damaged and made again has the same key and another digest."""
    inputs = [_input(tmp_path / str(seed), seed) for seed in range(2)]
    first, second = (Pods(tmp_path, pods.spec.model_copy(update={"inputs": (ref,)})) for ref in inputs)
    assert first.run([0], 2) == [0]
    assert second.run([1], 2) == [0]
    assert not pods.is_published()
    assert second.run([0], 2) == [0]
    assert pods.items() == EXPECTED


def test_a_pod_after_the_publication_says_so_at_once(pods: Pods) -> None:
    pods.run(range(2), 2)
    merges = pods.notes("merge")
    assert pods.run([0, 2], 3) == [0, 0]
    assert pods.message(2, 3).digest is not None
    assert pods.notes("merge") == merges
    assert pods.notes("share") == ["share-0-of-2", "share-1-of-2"]


def test_a_damaged_share_is_bad_input_that_names_its_place(stored_pods: Pods) -> None:
    pods = stored_pods
    pods.run([0], 2)
    shares = open_blobs(pods.spec.output_uri.replace("/keywords/", "/keywords/.shards/"), pods.spec.store)
    [name] = [blob.name for blob in shares.list() if blob.name.endswith("items.txt")]
    (pods.folder / "damaged").write_text("4\n" * 5)
    shares.upload(name, pods.folder / "damaged")
    assert pods.run([1], 2) == [64]
    error = pods.message(1, 2).error or ""
    assert "damaged" in error
    assert "/.shards/" in error


def test_one_pod_is_no_shard() -> None:
    spec = make_spec(KeywordsParameters(), "file:/store")
    assert shard_of(spec, {}) is None
    assert shard_of(spec, {"JOB_COMPLETION_INDEX": "0"}) is None, "an Indexed Job of torchrun has an index too"
    assert shard_of(spec, {"THINKREC_SHARD_COUNT": "1", "JOB_COMPLETION_INDEX": "0"}) is None


@pytest.mark.parametrize(
    ("count", "index", "told"),
    [
        ("3", None, "JOB_COMPLETION_INDEX is '', not a whole number"),
        ("3", "3", "JOB_COMPLETION_INDEX is 3, but THINKREC_SHARD_COUNT is 3: give 0 to 2"),
        ("3", "-1", "JOB_COMPLETION_INDEX is '-1'"),
        ("0", "0", "THINKREC_SHARD_COUNT is 0: give 1 to 1024"),
        ("1025", "0", "THINKREC_SHARD_COUNT is 1025"),
        ("three", "0", "THINKREC_SHARD_COUNT is 'three'"),
    ],
)
def test_numbers_that_make_no_sense(count: str, index: str | None, told: str) -> None:
    environment = {"THINKREC_SHARD_COUNT": count} | ({} if index is None else {"JOB_COMPLETION_INDEX": index})
    with pytest.raises(BadInput, match=told):
        shard_of(make_spec(KeywordsParameters(), "file:/store"), environment)


def test_a_stage_that_cannot_be_shared_out() -> None:
    told = "stage gate runs in one pod; only analyse, evaluate, keywords, score, traces can"
    with pytest.raises(BadInput, match=told):
        shard_of(make_spec(GateParameters(), "file:/store"), {"THINKREC_SHARD_COUNT": "2", "JOB_COMPLETION_INDEX": "0"})


def _input(folder: Path, seed: int) -> InputRef:
    """Publish an artifact whose manifest differs with `seed`, and name it by a key that does not."""
    folder.mkdir()
    spec = make_spec(KeywordsParameters(), folder / "store").model_copy(update={"seed": seed})
    pods = Pods(folder, spec)
    assert pods.run([0], 1) == [0]
    manifest = read_manifest(open_blobs(spec.output_uri))
    assert manifest is not None
    return InputRef(name="dataset", kind=StageKind.KEYWORDS, key=spec.key, uri=spec.output_uri, digest=manifest.digest)


def _wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not until():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
