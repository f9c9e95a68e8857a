# SPDX-License-Identifier: Apache-2.0
"""The small interface that every kind of storage fills: named blobs below one root URI.

What artifacts, checkpoints and caches are made of is in their own modules; nothing here knows them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from thinkrec_trainer.errors import BadInput


@dataclass(frozen=True, slots=True)
class Blob:
    """One stored blob."""

    name: str
    """Relative to the root, forward slashes."""
    size: int
    """Bytes."""
    version: str = ""
    """Changes whenever the content does (ETag, modification time); not comparable between stores."""


class MissingBlob(BadInput):
    """There is no blob of that name."""


class Blobs(Protocol):
    """Named blobs below `uri`. A blob is either whole or absent, never half written.

    Errors: BadInput (no such bucket, no credentials, not allowed), Temporary (endpoint out of reach).
    """

    @property
    def uri(self) -> str:
        """The root."""

    @property
    def folder(self) -> Path | None:
        """The root as a local folder whose files may be read in place, or None for remote storage."""

    def read(self, name: str) -> bytes | None:
        """Return the content, or None when there is no such blob."""

    def download(self, name: str, to: Path) -> None:
        """Write the content to the local file `to`; raise BadInput when there is no such blob."""

    def upload(self, name: str, source: Path) -> None:
        """Store a local file, replacing what was there."""

    def create(self, name: str, data: bytes) -> bool:
        """Store `data` unless the blob exists; return whether this call created it (atomic among racing callers)."""

    def list(self, prefix: str = "") -> Sequence[Blob]:
        """Return the blobs whose name starts with `prefix`, sorted by name."""

    def delete(self, names: Sequence[str]) -> None:
        """Remove blobs; those that do not exist are ignored."""

    def prune(self) -> None:
        """Remove what is left of the root itself once no blob is: an empty folder."""

    def publish(self, files: Sequence[tuple[str, Path]], manifest_name: str, manifest: bytes) -> bool:
        """Store `files`, then `manifest` last and exclusively; return False when another writer's manifest was first.

        A reader that sees the manifest sees every file it names. A loser's files never replace a winner's.
        """

    def object_name(self, path: str, sha256: str) -> str | None:
        """Return the name under which `publish` expects a file with that content, or None for `path` itself."""


def safe_name(name: str) -> str:
    """Return `name`; raise BadInput when it could lead outside its root (absolute, `..`, empty parts, backslash)."""
    parts = name.split("/")
    wrong = not name or "\\" in name or "\0" in name or any(part in ("", ".", "..") for part in parts)
    if wrong or PurePosixPath(name).is_absolute():
        raise BadInput(f"file name {name!r} is not allowed: names are relative, without '..' or empty parts")
    return name
