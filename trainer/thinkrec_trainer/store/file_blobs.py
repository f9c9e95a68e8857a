# SPDX-License-Identifier: Apache-2.0
"""Blobs in a local or mounted folder.

Whole or absent: every write goes to a hidden temporary name first, is flushed to disk, and takes its final name in one
step (rename to replace, link to create). An artifact is published by renaming its whole folder.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from thinkrec_trainer.errors import BadInput, Temporary
from thinkrec_trainer.store.blobs import Blob, MissingBlob, safe_name

TEMPORARY_PREFIX = ".thinkrec-tmp-"
STALE_SECONDS = 24 * 3600.0
"""Temporary files of a killed writer are removed after this; no living writer takes that long for one artifact."""


@dataclass(frozen=True, slots=True)
class FileBlobs:
    """Blobs below the folder `root`, which is made when it is first written to."""

    root: Path

    @property
    def uri(self) -> str:
        """The root as a file URI."""
        return self.root.as_uri()

    @property
    def folder(self) -> Path | None:
        """The root itself: its files may be read in place."""
        return self.root

    def read(self, name: str) -> bytes | None:
        """Return the content, or None when there is no such file."""
        try:
            with _explained(self.root):
                return (self.root / safe_name(name)).read_bytes()
        except FileNotFoundError:
            return None

    def download(self, name: str, to: Path) -> None:
        """Copy the file; raise MissingBlob when there is none."""
        try:
            with _explained(self.root):
                shutil.copyfile(self.root / safe_name(name), to)
        except FileNotFoundError as error:
            raise MissingBlob(f"{self.uri}/{name} does not exist") from error

    def upload(self, name: str, source: Path) -> None:
        """Copy a local file in, replacing what was there."""
        with self._temporary(name) as temporary:
            shutil.copyfile(source, temporary)
            _flush(temporary)
            temporary.replace(self.root / name)

    def create(self, name: str, data: bytes) -> bool:
        """Write `data` unless the file exists; link(2) makes that atomic, on NFS too."""
        with self._temporary(name) as temporary:
            temporary.write_bytes(data)
            _flush(temporary)
            try:
                os.link(temporary, self.root / name)
            except FileExistsError:
                return False
            _flush((self.root / name).parent)
            return True

    def list(self, prefix: str = "") -> Sequence[Blob]:
        """Return the files whose name starts with `prefix`, temporary ones left out."""
        start = self.root / prefix.rpartition("/")[0]
        paths = (Path(folder, name) for folder, _, files in os.walk(start) for name in files)
        names = (path.relative_to(self.root).as_posix() for path in paths)
        kept = sorted(name for name in names if name.startswith(prefix) and TEMPORARY_PREFIX not in name)
        return [blob for name in kept if (blob := _blob(self.root, name)) is not None]

    def delete(self, names: Sequence[str]) -> None:
        """Remove files and the folders that this leaves empty."""
        for name in names:
            path = self.root / safe_name(name)
            with _explained(self.root):
                path.unlink(missing_ok=True)
            _remove_empty_parents(path, self.root)

    def prune(self) -> None:
        """Remove the root if it is empty.

        A folder of nothing but a dead writer's temporary files goes too, once they are old.
        """
        if self.root.is_dir():
            _remove_stale(self.root, TEMPORARY_PREFIX)
        with contextlib.suppress(OSError):  # not empty: another process writes there
            self.root.rmdir()

    def publish(self, files: Sequence[tuple[str, Path]], manifest_name: str, manifest: bytes) -> bool:
        """Build the folder beside its final place and rename it there; the first rename wins."""
        with _explained(self.root):
            self.root.parent.mkdir(parents=True, exist_ok=True)
            _remove_stale(self.root.parent, f"{TEMPORARY_PREFIX}{self.root.name}-")
            building = self.root.parent / f"{TEMPORARY_PREFIX}{self.root.name}-{uuid.uuid4().hex}"
            try:
                _build(building, files, manifest_name, manifest)
                return _take_place(building, self.root, manifest_name)
            finally:
                shutil.rmtree(building, ignore_errors=True)

    def object_name(self, path: str, sha256: str) -> str | None:
        """Files keep their own names."""
        return None

    @contextlib.contextmanager
    def _temporary(self, name: str) -> Iterator[Path]:
        folder = (self.root / safe_name(name)).parent
        with _explained(self.root):
            folder.mkdir(parents=True, exist_ok=True)
            _remove_stale(folder, TEMPORARY_PREFIX)
            temporary = folder / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
            try:
                yield temporary
            finally:
                temporary.unlink(missing_ok=True)


def _blob(root: Path, name: str) -> Blob | None:
    """Describe a file; None when another process has removed it meanwhile."""
    try:
        found = (root / name).stat()
    except FileNotFoundError:
        return None
    return Blob(name, found.st_size, str(found.st_mtime_ns))


def _build(building: Path, files: Sequence[tuple[str, Path]], manifest_name: str, manifest: bytes) -> None:
    for name, source in files:
        target = building / safe_name(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        _seal(target)
    building.mkdir(exist_ok=True)
    (building / manifest_name).write_bytes(manifest)
    _seal(building / manifest_name)
    for folder in [*(p for p in building.rglob("*") if p.is_dir()), building]:
        _flush(folder)


def _take_place(building: Path, root: Path, manifest_name: str) -> bool:
    """Rename onto `root`; a folder there without a manifest is nobody's artifact and is set aside."""
    for _ in range(3):
        try:
            building.rename(root)  # POSIX: replaces an empty folder, fails on any other
        except OSError:
            if (root / manifest_name).is_file():
                return False
            aside = root.with_name(f"{TEMPORARY_PREFIX}{root.name}-{uuid.uuid4().hex}")
            with contextlib.suppress(FileNotFoundError):  # another writer set it aside at the same moment
                root.rename(aside)
                shutil.rmtree(aside, ignore_errors=True)
        else:
            _flush(root.parent)
            return True
    raise Temporary(f"{root} cannot be published: another process keeps writing there; try again")


def _seal(path: Path) -> None:
    """Flush to disk and take the write permission away: published files never change."""
    _flush(path)
    path.chmod(0o444)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_stale(folder: Path, prefix: str) -> None:
    for path in folder.glob(f"{prefix}*"):
        with contextlib.suppress(FileNotFoundError):  # its writer may finish meanwhile
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _remove_empty_parents(path: Path, root: Path) -> None:
    for folder in path.parents:
        if folder == root or root not in folder.parents:
            return
        try:
            folder.rmdir()
        except OSError:
            return


@contextlib.contextmanager
def _explained(root: Path) -> Iterator[None]:
    """Turn the operating system's refusals into stage errors; a missing file stays FileNotFoundError."""
    try:
        yield
    except PermissionError as error:
        raise BadInput(f"store folder {root}: no permission for {error.filename}: give the process access") from error
    except FileNotFoundError:
        raise
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise BadInput(f"store folder {root}: {error.filename} is in the way: a folder must be there") from error
    except OSError as error:
        raise Temporary(
            f"store folder {root}: {error.strerror or error} (disk full or file system out of reach?)"
        ) from error
