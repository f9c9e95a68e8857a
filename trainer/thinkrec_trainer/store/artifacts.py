# SPDX-License-Identifier: Apache-2.0
"""Artifacts on top of blobs: published once, read only through a manifest, every byte verified."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydantic

from thinkrec_crds.artifact import MANIFEST_NAME, ArtifactManifest, FileEntry
from thinkrec_trainer.context import LocalArtifact
from thinkrec_trainer.errors import BadInput, Corrupt, Temporary
from thinkrec_trainer.store.blobs import Blobs, MissingBlob, safe_name


@dataclass(frozen=True, slots=True)
class Published:
    """A manifest as it stands in the store."""

    manifest: ArtifactManifest
    digest: str
    """`sha256:<hex>` of the manifest's bytes."""
    won: bool = True
    """False when another writer's manifest was there first."""


def sha256_of(path: Path) -> str:
    """Return the hex sha256 of a file's bytes as they are now.

    Not the engine's `file_sha256`, which remembers: what was damaged on the disk must not pass by its time stamp.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def describe_files(folder: Path, blobs: Blobs) -> tuple[FileEntry, ...]:
    """Return the manifest entries of every file below `folder`, sorted by path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple(_describe(path, path.relative_to(folder).as_posix(), blobs) for path in paths)


def read_manifest(blobs: Blobs) -> Published | None:
    """Return the artifact's manifest, or None when nothing was published there. Corrupt when it does not parse."""
    data = blobs.read(MANIFEST_NAME)
    if data is None:
        return None
    try:
        manifest = ArtifactManifest.from_json(data)
    except pydantic.ValidationError as error:
        raise Corrupt(
            f"{blobs.uri}/{MANIFEST_NAME} is not a manifest of this version: {error.errors()[0]['msg']}. If no newer "
            f"thinkrec wrote it, {_make_again(blobs.uri)}"
        ) from error
    for entry in manifest.files:
        safe_name(entry.path)
        safe_name(entry.object or entry.path)
    return Published(manifest, _digest(data))


def publish(blobs: Blobs, folder: Path, manifest: ArtifactManifest) -> Published:
    """Store the files that `manifest` names (from `folder`), then the manifest; return the one that stands.

    When another writer was first, its manifest is returned with `won=False` and objects that only this call stored are
    removed.
    """
    data = manifest.to_json(indent=1).encode()
    files = [(entry.object or entry.path, folder / entry.path) for entry in manifest.files]
    if blobs.publish(files, MANIFEST_NAME, data):
        return Published(manifest, _digest(data))
    winner = read_manifest(blobs)
    if winner is None:
        raise Temporary(f"{blobs.uri}/{MANIFEST_NAME} appeared and vanished again; try again")
    _remove_unnamed(blobs, manifest, winner.manifest)
    return Published(winner.manifest, winner.digest, won=False)


def fetch_artifact(blobs: Blobs, cache: Path, expected_digest: str | None = None) -> LocalArtifact:
    """Return the artifact with every file verified: in place when it is local, else in `cache/<manifest digest>`.

    Errors: BadInput when nothing is published there, Corrupt naming the file whose size or sha256 differs, or when the
    manifest's digest is not the expected one.
    """
    published = _expected_manifest(blobs, expected_digest)
    entries = published.manifest.files
    if blobs.folder is not None and all(entry.object is None for entry in entries):
        with _explaining_damage(blobs):
            verify(blobs.folder, entries)
        return LocalArtifact(blobs.folder, published.manifest, published.digest)
    target = cache / published.digest.removeprefix("sha256:")
    if not _intact(target, entries):
        with _explaining_damage(blobs):
            download_files(blobs, entries, target)
    return LocalArtifact(target, published.manifest, published.digest)


def copy_artifact(blobs: Blobs, target: Path, expected_digest: str | None = None) -> LocalArtifact:
    """Bring files and manifest into the folder `target`, verified; what was there is replaced as a whole."""
    published = _expected_manifest(blobs, expected_digest)
    with _explaining_damage(blobs):
        download_files(blobs, published.manifest.files, target, manifest=blobs.read(MANIFEST_NAME))
    return LocalArtifact(target, published.manifest, published.digest)


def verify(folder: Path, entries: Sequence[FileEntry]) -> None:
    """Raise Corrupt naming the first file below `folder` that is missing or differs from its entry."""
    for entry in entries:
        path = folder / safe_name(entry.path)
        if not path.is_file():
            raise Corrupt(f"{path} is missing although the manifest names it")
        size = path.stat().st_size
        if size != entry.size:
            raise Corrupt(f"{path} has {size} bytes, the manifest says {entry.size}: it is damaged")
        if (found := sha256_of(path)) != entry.sha256:
            raise Corrupt(f"{path} has sha256 {found}, the manifest says {entry.sha256}: it is damaged")


def download_files(blobs: Blobs, entries: Sequence[FileEntry], target: Path, manifest: bytes | None = None) -> None:
    """Download beside `target`, verify, then take its place: a half-fetched folder is never seen under that name."""
    with replacing_folder(target) as building:
        for entry in entries:
            try:
                _download(blobs, entry.object or entry.path, building / safe_name(entry.path))
            except MissingBlob as error:
                raise Corrupt(f"{error} although the manifest names it") from error
        verify(building, entries)
        if manifest is not None:
            (building / MANIFEST_NAME).write_bytes(manifest)


def fetch_blobs(blobs: Blobs, names: Sequence[str], target: Path) -> None:
    """Download blobs that no manifest describes (outside sources) into the folder `target`, as a whole."""
    with replacing_folder(target) as building:
        for name in names:
            _download(blobs, name, building / safe_name(name))


def _describe(path: Path, name: str, blobs: Blobs) -> FileEntry:
    sha256 = sha256_of(path)
    return FileEntry(path=name, sha256=sha256, size=path.stat().st_size, object=blobs.object_name(name, sha256))


def _expected_manifest(blobs: Blobs, expected_digest: str | None) -> Published:
    published = read_manifest(blobs)
    if published is None:
        raise BadInput(f"nothing is published at {blobs.uri}: its {MANIFEST_NAME} does not exist")
    if expected_digest is not None and published.digest != expected_digest:
        raise Corrupt(
            f"{blobs.uri}/{MANIFEST_NAME} has digest {published.digest}, expected {expected_digest}: it was made again "
            "since; run again (thinkrec run), so that its readers ask for the new one"
        )
    return published


def _make_again(uri: str) -> str:
    """Return the remedy for a damaged artifact; nothing mends it in place: a published key is never written again."""
    return f"remove everything below {uri} and run again (thinkrec run): the stage is then made again"


@contextlib.contextmanager
def _explaining_damage(blobs: Blobs) -> Iterator[None]:
    """Add to what is damaged where it lies in the store and what to do."""
    try:
        yield
    except Corrupt as error:
        raise Corrupt(f"{error}; {_make_again(blobs.uri)}") from error


def _intact(folder: Path, entries: Sequence[FileEntry]) -> bool:
    if not folder.is_dir():
        return False
    try:
        verify(folder, entries)
    except Corrupt:
        return False
    return True


def _download(blobs: Blobs, name: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    blobs.download(name, path)


@contextlib.contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target` that takes the place of `target` when the body succeeds."""
    building = target.with_name(f".{target.name[:40]}-{uuid.uuid4().hex[:12]}")
    building.mkdir(parents=True)
    try:
        yield building
        _replace_folder(building, target)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _replace_folder(building: Path, target: Path) -> None:
    old = building.with_name(f"{building.name}-old")
    if target.exists():
        target.rename(old)
    try:
        building.rename(target)
    except OSError:
        if not target.is_dir():  # else another process put the same verified files there first
            raise
    shutil.rmtree(old, ignore_errors=True)


def _remove_unnamed(blobs: Blobs, mine: ArtifactManifest, winner: ArtifactManifest) -> None:
    kept = {entry.object for entry in winner.files}
    blobs.delete([entry.object for entry in mine.files if entry.object and entry.object not in kept])


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
