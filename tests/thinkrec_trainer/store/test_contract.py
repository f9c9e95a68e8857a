# SPDX-License-Identifier: Apache-2.0
"""What every store must do, run against a folder and against a real S3 server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from thinkrec_crds.artifact import MANIFEST_NAME, ArtifactManifest, Lineage
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_trainer.errors import BadInput, Corrupt
from thinkrec_trainer.store import Blobs, copy_artifact, describe_files, fetch_artifact, publish, read_manifest

OpenStore = Callable[[str], Blobs]
KEY = "0123456789" * 4


def make_files(folder: Path, **contents: str) -> Path:
    for name, text in contents.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def make_manifest(folder: Path, blobs: Blobs, **metrics: float) -> ArtifactManifest:
    lineage = Lineage(
        code_version="1",
        seed=0,
        created_time="2026-01-01T00:00:00Z",
        duration_seconds=1,
        device="cpu",
        precision="Float32",
    )
    files = describe_files(folder, blobs)
    return ArtifactManifest(
        kind=StageKind.DATASET, key=KEY, semantics_version=1, files=files, metrics=metrics, lineage=lineage
    )


def publish_files(blobs: Blobs, folder: Path, **contents: str) -> ArtifactManifest:
    make_files(folder, **contents)
    return publish(blobs, folder, make_manifest(folder, blobs)).manifest


def test_blob_that_does_not_exist_reads_as_none(open_store: OpenStore) -> None:
    assert open_store("a").read("missing/name.bin") is None


def test_upload_replaces_and_download_returns_the_bytes(open_store: OpenStore, tmp_path: Path) -> None:
    blobs, source, target = open_store("a"), tmp_path / "source", tmp_path / "target"
    for content in (b"first", b"second \x00\xff"):
        source.write_bytes(content)
        blobs.upload("deep/er/name.bin", source)
    blobs.download("deep/er/name.bin", target)
    assert target.read_bytes() == b"second \x00\xff"


def test_download_of_a_missing_blob_names_it(open_store: OpenStore, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nothing\.bin does not exist"):
        open_store("a").download("nothing.bin", tmp_path / "target")


def test_create_wins_once(open_store: OpenStore) -> None:
    blobs = open_store("a")
    assert [blobs.create("x", b"one"), blobs.create("x", b"two")] == [True, False]
    assert blobs.read("x") == b"one"


def test_of_racing_creations_exactly_one_wins(open_store: OpenStore) -> None:
    """Eight writers start at once; the content is the winner's."""
    outcomes: dict[int, bool] = {}
    start = threading.Barrier(8)

    def create(number: int) -> None:
        blobs = open_store("race")
        start.wait()
        outcomes[number] = blobs.create("x", str(number).encode())

    threads = [threading.Thread(target=create, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [number for number, won in outcomes.items() if won]
    assert len(outcomes) == 8
    assert len(winners) == 1
    assert open_store("race").read("x") == str(winners[0]).encode()


def test_list_and_delete(open_store: OpenStore) -> None:
    blobs = open_store("a")
    for name in ("b/2", "b/1", "c"):
        blobs.create(name, b"12345")
    assert [(blob.name, blob.size) for blob in blobs.list()] == [("b/1", 5), ("b/2", 5), ("c", 5)]
    assert [blob.name for blob in blobs.list("b/")] == ["b/1", "b/2"]
    blobs.delete(["b/1", "b/2", "never-there"])
    assert [blob.name for blob in blobs.list()] == ["c"]


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "a//b", "", ".", "a\\b", "a/./b"])
def test_names_that_leave_the_root_are_refused(open_store: OpenStore, name: str) -> None:
    blobs = open_store("a")
    with pytest.raises(BadInput, match="not allowed"):
        blobs.read(name)
    with pytest.raises(BadInput, match="not allowed"):
        blobs.create(name, b"")


def test_published_artifact_comes_back_verified(open_store: OpenStore, tmp_path: Path) -> None:
    blobs = open_store(f"dataset/{KEY}")
    assert read_manifest(blobs) is None
    manifest = publish_files(blobs, tmp_path / "out", a="alpha", sub__b="beta")
    found = fetch_artifact(open_store(f"dataset/{KEY}"), tmp_path / "cache")
    assert found.manifest == manifest
    assert found.file("a").read_text() == "alpha"
    assert found.file("sub/b").read_text() == "beta"
    assert [entry.size for entry in manifest.files] == [5, 4]
    with pytest.raises(BadInput, match="has no file 'c'"):
        found.file("c")


def test_a_second_publication_returns_the_first_manifest(open_store: OpenStore, tmp_path: Path) -> None:
    blobs = open_store(f"dataset/{KEY}")
    first = publish_files(blobs, tmp_path / "one", a="alpha")
    make_files(tmp_path / "two", a="other bytes", extra="x")
    second = publish(blobs, tmp_path / "two", make_manifest(tmp_path / "two", blobs))
    assert not second.won
    assert second.manifest == first
    assert fetch_artifact(blobs, tmp_path / "cache").file("a").read_text() == "alpha"
    assert len(blobs.list()) == 2, "the loser's files are gone: one file and the manifest are left"


def test_racing_publishers_end_well_and_nothing_mixes(open_store: OpenStore, tmp_path: Path) -> None:
    """Six writers with different bytes: one manifest, and its files are its own."""
    start = threading.Barrier(6)
    results: dict[int, bool] = {}

    def write(number: int) -> None:
        blobs = open_store(f"dataset/{KEY}")
        folder = make_files(tmp_path / str(number), a=f"a of {number}", b=f"b of {number}")
        manifest = make_manifest(folder, blobs, writer=number)
        start.wait()
        results[number] = publish(blobs, folder, manifest).won

    threads = [threading.Thread(target=write, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results.values()) == [False] * 5 + [True]
    found = fetch_artifact(open_store(f"dataset/{KEY}"), tmp_path / "cache")
    winner = next(number for number, won in results.items() if won)
    assert found.manifest.metrics == {"writer": winner}
    assert (found.file("a").read_text(), found.file("b").read_text()) == (f"a of {winner}", f"b of {winner}")


def test_wrong_digest_of_the_manifest_is_refused(open_store: OpenStore, tmp_path: Path) -> None:
    blobs = open_store(f"dataset/{KEY}")
    publish_files(blobs, tmp_path / "out", a="alpha")
    with pytest.raises(Corrupt, match="expected sha256:ffff"):
        fetch_artifact(blobs, tmp_path / "cache", "sha256:" + "f" * 64)
    with pytest.raises(Corrupt, match="made again since; run again"):
        copy_artifact(blobs, tmp_path / "copy", "sha256:" + "f" * 64)


@pytest.mark.parametrize(("damage", "message"), [(b"alphA", "sha256"), (b"alph", "4 bytes, the manifest says 5")])
def test_damaged_file_is_named(open_store: OpenStore, tmp_path: Path, damage: bytes, message: str) -> None:
    blobs = open_store(f"dataset/{KEY}")
    manifest = publish_files(blobs, tmp_path / "out", a="alpha", b="beta")
    stored = manifest.files[0].object or "a"
    (tmp_path / "damage").write_bytes(damage)
    blobs.upload(stored, tmp_path / "damage")
    with pytest.raises(Corrupt, match=rf"/a has .*{message}") as caught:
        fetch_artifact(blobs, tmp_path / "cache")
    assert str(caught.value).endswith(remedy(blobs))
    with pytest.raises(Corrupt, match="is damaged"):
        copy_artifact(blobs, tmp_path / "copy")


def remedy(blobs: Blobs) -> str:
    return f"; remove everything below {blobs.uri} and run again (thinkrec run): the stage is then made again"


def test_a_file_that_is_gone_is_damage_and_the_remedy_helps(open_store: OpenStore, tmp_path: Path) -> None:
    """Readers fail until someone does what the message says; then the same key is published again."""
    blobs = open_store(f"dataset/{KEY}")
    manifest = publish_files(blobs, tmp_path / "out", a="alpha", b="beta")
    blobs.delete([manifest.files[1].object or "b"])
    with pytest.raises(Corrupt, match="although the manifest names it") as fetched:
        fetch_artifact(blobs, tmp_path / "cache")
    with pytest.raises(Corrupt, match="although the manifest names it") as copied:
        copy_artifact(blobs, tmp_path / "copy")
    assert str(fetched.value).endswith(remedy(blobs))
    assert str(copied.value).endswith(remedy(blobs))
    blobs.delete([blob.name for blob in blobs.list()])
    publish_files(blobs, tmp_path / "out", b="beta")
    assert fetch_artifact(blobs, tmp_path / "cache").file("b").read_text() == "beta"


def test_manifest_that_points_outside_is_refused(open_store: OpenStore, tmp_path: Path) -> None:
    blobs = open_store(f"dataset/{KEY}")
    make_files(tmp_path / "out", a="alpha")
    manifest = make_manifest(tmp_path / "out", blobs)
    evil = manifest.files[0].model_copy(update={"path": "../../evil"})
    blobs.create(MANIFEST_NAME, manifest.model_copy(update={"files": (evil,)}).to_json().encode())
    with pytest.raises(BadInput, match=r"'\.\./\.\./evil' is not allowed"):
        fetch_artifact(blobs, tmp_path / "cache")


def test_manifest_of_another_version_is_corrupt(open_store: OpenStore, tmp_path: Path) -> None:
    blobs = open_store(f"dataset/{KEY}")
    blobs.create(MANIFEST_NAME, b'{"schemaVersion": 99}')
    with pytest.raises(Corrupt, match=r"not a manifest of this version.*If no newer thinkrec wrote it, remove"):
        read_manifest(blobs)


def test_nothing_published_is_bad_input(open_store: OpenStore, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nothing is published at"):
        fetch_artifact(open_store("dataset/none"), tmp_path / "cache")


def test_copy_holds_manifest_and_files(open_store: OpenStore, tmp_path: Path) -> None:
    blobs = open_store(f"dataset/{KEY}")
    publish_files(blobs, tmp_path / "out", sub__a="alpha")
    copy_artifact(blobs, tmp_path / "copy")
    found = sorted(p.relative_to(tmp_path / "copy").as_posix() for p in (tmp_path / "copy").rglob("*") if p.is_file())
    assert found == ["manifest.json", "sub/a"]


def test_failed_publication_leaves_nothing(open_store: OpenStore, tmp_path: Path) -> None:
    """The second file vanishes before it is stored: no manifest appears, and publishing again works."""
    blobs = open_store(f"dataset/{KEY}")
    folder = make_files(tmp_path / "out", a="alpha", b="beta")
    manifest = make_manifest(folder, blobs)
    (folder / "b").unlink()
    with pytest.raises(FileNotFoundError):
        publish(blobs, folder, manifest)
    assert read_manifest(blobs) is None
    make_files(folder, b="beta")
    assert publish(blobs, folder, manifest).won
    assert fetch_artifact(blobs, tmp_path / "cache").file("b").read_text() == "beta"
