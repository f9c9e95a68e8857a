# SPDX-License-Identifier: Apache-2.0
"""What a `file:` store already holds: the manifest is the proof that a key is finished.

Any other store is asked by the stage itself, which ends at once when its key is published.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.parse import unquote

from pydantic import ValidationError

from thinkrec_crds.artifact import MANIFEST_NAME, ArtifactManifest, TerminationMessage
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_operator.names import artifact_uri


def local_path(uri: str, base: Path) -> Path | None:
    """Return the path of a `file:` address, a relative one below `base`; None for any other address."""
    if not uri.startswith("file:"):
        return None
    rest = unquote(uri.removeprefix("file:"))
    return base / (f"/{rest.lstrip('/')}" if rest.startswith("/") else rest)


class LocalStore:
    """Looks finished keys up in a folder; answers None for everything when the store is no folder."""

    def __init__(self, root_uri: str, base: Path) -> None:
        """Look below `root_uri`; a relative address counts from `base`."""
        self._root_uri = root_uri
        self._root = local_path(root_uri, base)
        self._seen: dict[str, tuple[int, TerminationMessage]] = {}

    @property
    def is_local(self) -> bool:
        """Return whether this is a folder."""
        return self._root is not None

    def published(self, kind: StageKind, key: str) -> TerminationMessage | None:
        """Return what was published under a key, or None."""
        if self._root is None:
            return None
        path = self._root / kind.value / key / MANIFEST_NAME
        try:
            changed = path.stat().st_mtime_ns
        except (FileNotFoundError, NotADirectoryError):
            return None
        known = self._seen.get(key)
        if known is not None and known[0] == changed:
            return known[1]
        message = _read(path, kind, key, artifact_uri(self._root_uri, kind, key))
        if message is not None:
            self._seen[key] = (changed, message)
        return message


def _read(path: Path, kind: StageKind, key: str, uri: str) -> TerminationMessage | None:
    content = path.read_bytes()
    try:
        manifest = ArtifactManifest.from_json(content)
    except ValidationError:
        return None  # not ours to repair: the stage that wants this key says what is wrong with it
    if manifest.kind is not kind or manifest.key != key:
        return None
    return TerminationMessage(
        key=key,
        kind=kind,
        digest=f"sha256:{hashlib.sha256(content).hexdigest()}",
        uri=uri,
        metrics=manifest.metrics,
        counts=manifest.counts,
    )
