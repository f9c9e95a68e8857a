# SPDX-License-Identifier: Apache-2.0
"""`python -m thinkrec_trainer clean clean.json`: artifacts that nobody needs leave the store.

Of each artifact the manifest goes first, so that a reader never trusts what is half gone; then its files, its
checkpoints and its shares. Whatever is missing counts as removed: a clean-up may be repeated, or begin where an
interrupted one stopped. Only `<rootUri>/<kind>/<key>` of known kinds and whole keys can be named, never a folder
above, and nothing else below the root is looked at.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pydantic

from thinkrec_crds.artifact import MANIFEST_NAME, ExitCode
from thinkrec_crds.clean import ArtifactName, CleanMessage, CleanProgress, CleanSpec
from thinkrec_trainer import termination
from thinkrec_trainer.errors import BadInput, Interrupted, StageError
from thinkrec_trainer.progress import INTERVAL_SECONDS
from thinkrec_trainer.protocol import DEFECT, described
from thinkrec_trainer.store import Blobs, FileLocation, join, open_blobs, parse_location

_log = logging.getLogger(__name__)


def run_clean(path: Path, write: Callable[[str], None]) -> int:
    """Clean as the file says; progress lines go to `write`. Return the exit code. Never raises."""
    counts: dict[str, int] = {}
    try:
        spec = read_clean(path)
        with _stopping() as stopped:
            remove_all(spec, counts, _reporter(write), stopped)
    except StageError as error:
        _log.error("%s", error)
        _terminate(counts, str(error))
        return error.exit_code
    except Exception as error:  # the last line of defence: a defect must reach the log and the termination message
        _log.exception("the clean-up failed unexpectedly")
        _terminate(counts, f"unexpected {type(error).__name__}: {error}; see the log's traceback")
        return DEFECT
    _terminate(counts, None)
    return ExitCode.DONE


def read_clean(path: Path) -> CleanSpec:
    """Parse clean.json; raise BadInput listing every wrong field, and for a root that is a whole disk."""
    try:
        spec = CleanSpec.from_json(path.read_bytes())
    except OSError as error:
        raise BadInput(f"clean file {path} cannot be read: {error.strerror}") from error
    except pydantic.ValidationError as error:
        raise BadInput(described(f"clean file {path}", error)) from error
    for uri in (spec.root_uri, spec.checkpoint_uri):
        if uri is not None:
            _require_narrow(uri)
    return spec


def remove_all(
    spec: CleanSpec, counts: dict[str, int], report: Callable[[int, int], None], stopped: Callable[[], bool]
) -> None:
    """Remove artifact by artifact, counting into `counts`; raise Interrupted between two when asked to stop."""
    counts |= {"artifacts": len(spec.artifacts), "removed": 0, "absent": 0, "files": 0}
    report(0, len(spec.artifacts))
    for number, name in enumerate(spec.artifacts, start=1):
        if stopped():
            raise Interrupted(
                f"stopped by a signal after {number - 1} of {len(spec.artifacts)} artifacts: run it again"
            )
        files = remove(spec, name)
        counts["removed" if files else "absent"] += 1
        counts["files"] += files
        report(number, len(spec.artifacts))


def remove(spec: CleanSpec, name: ArtifactName) -> int:
    """Remove one artifact with its checkpoints and shares; return how many files there were."""
    return sum(_emptied(blobs) for blobs in _places(spec, name))


def _places(spec: CleanSpec, name: ArtifactName) -> Iterator[Blobs]:
    kind = join(spec.root_uri, name.kind.value)
    checkpoints = join(spec.checkpoint_uri, name.key) if spec.checkpoint_uri else join(kind, ".checkpoints", name.key)
    for uri in (join(kind, name.key), checkpoints, join(kind, ".shards", name.key)):
        yield _inside(uri, open_blobs(uri, spec.store))


def _inside(uri: str, blobs: Blobs) -> Blobs:
    """Return the blobs; raise BadInput where a link leads the folder out of its store."""
    if blobs.folder is not None and blobs.folder.resolve() != blobs.folder.parent.parent.resolve().joinpath(
        *blobs.folder.parts[-2:]
    ):
        raise BadInput(f"{uri} is a link to another place: remove it by hand, nothing behind it is touched")
    return blobs


def _emptied(blobs: Blobs) -> int:
    """Remove everything below a folder, manifests first; return how many files there were."""
    names = [blob.name for blob in blobs.list()]
    last = [name for name in names if not name.endswith(MANIFEST_NAME)]
    blobs.delete([name for name in names if name.endswith(MANIFEST_NAME)])
    blobs.delete(last)
    blobs.prune()
    return len(names)


def _require_narrow(uri: str) -> None:
    location = parse_location(uri)
    if ".." in uri.split("/"):
        raise BadInput(f"storage URI {uri!r} leads upwards: name the store's folder itself, without '..'")
    if isinstance(location, FileLocation) and location.path.parent == location.path:
        raise BadInput(f"storage URI {uri!r} is the whole file system: name the folder of the store")


def _reporter(write: Callable[[str], None]) -> Callable[[int, int], None]:
    """Return a function that writes a progress line: the first, the last, and at most one a second between."""
    written = -INTERVAL_SECONDS

    def report(step: int, total: int) -> None:
        nonlocal written
        now = time.monotonic()
        if step == total or now - written >= INTERVAL_SECONDS:
            written = now
            write(CleanProgress(step=step, total=total, message="removing artifacts").to_json())

    return report


@contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether SIGTERM or SIGINT has arrived."""
    arrived: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        arrived.append(number)

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(arrived)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _terminate(counts: dict[str, int], error: str | None) -> None:
    told = None if error is None else termination.one_line(error)
    termination.write(CleanMessage(counts=counts, error=told).to_json())
