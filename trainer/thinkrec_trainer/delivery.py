# SPDX-License-Identifier: Apache-2.0
"""Bringing an artifact or an outside source into a given folder, for the serving pod's init container.

The folder may be a mount point, so nothing is written beside it; it may hold an earlier delivery, which a restarted
container replaces.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from thinkrec_crds.artifact import MANIFEST_NAME
from thinkrec_crds.stages import SOURCE_PREFIX, StoreOptions
from thinkrec_trainer.errors import BadInput
from thinkrec_trainer.fetch import fetch_source
from thinkrec_trainer.store import Blobs, copy_artifact, open_blobs, read_manifest

MARKER = ".thinkrec-delivery"
"""Marks a folder as ours to replace; holds the URI. Ends with a line `complete` once everything is in place."""
_BUILDING = ".thinkrec-building"


def deliver(uri: str, to: Path, options: StoreOptions, manifest_digest: str | None = None) -> None:
    """Put the files of `uri` into the folder `to`.

    An artifact is verified file by file; with `manifest_digest` anything but that artifact is refused. What has no
    manifest (a base model, a data file) is copied as it is. Errors: BadInput (also when `to` holds files that no
    earlier delivery put there), Corrupt, Temporary.
    """
    _claim(to, uri)
    building = to / _BUILDING
    if _is_artifact(uri, options, manifest_digest):
        copy_artifact(_open(uri, options, manifest_digest), building, manifest_digest)
    else:
        _copy_source(fetch_source(uri, options), building)
    _move_up(building, to)
    (to / MARKER).write_text(f"{uri}\ncomplete\n")


def _claim(to: Path, uri: str) -> None:
    to.mkdir(parents=True, exist_ok=True)
    found = [path for path in to.iterdir() if path.name != "lost+found"]
    if found and not (to / MARKER).is_file():
        raise BadInput(f"folder {to} holds {found[0].name!r}, which no earlier fetch put there: give an empty folder")
    (to / MARKER).write_text(f"{uri}\n")
    for path in found:
        if path.name != MARKER:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _is_artifact(uri: str, options: StoreOptions, manifest_digest: str | None) -> bool:
    if not uri.startswith("hf://") and read_manifest(_open(uri, options, manifest_digest)) is not None:
        return True
    if manifest_digest is not None:
        raise BadInput(f"nothing is published at {uri}, so nothing has the digest {manifest_digest}")
    return False


def _open(uri: str, options: StoreOptions, manifest_digest: str | None) -> Blobs:
    """Open with the store's credentials where an artifact of ours is asked for, else with those of outside sources."""
    return open_blobs(uri, options, credentials="" if manifest_digest else SOURCE_PREFIX)


def _copy_source(source: Path, building: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, building)
        return
    building.mkdir()
    shutil.copyfile(source, building / source.name)


def _move_up(building: Path, to: Path) -> None:
    for path in sorted(building.iterdir(), key=lambda child: child.name == MANIFEST_NAME):
        path.rename(to / path.name)
    building.rmdir()
