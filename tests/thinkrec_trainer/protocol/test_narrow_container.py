# SPDX-License-Identifier: Apache-2.0
"""A stage in a container as the operator makes it: another user, nothing writable but the scratch folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.stages import make_spec
from thinkrec_crds.artifact import TerminationMessage
from thinkrec_crds.stages import CollaborativeParameters, DatasetParameters, InputRef, ItemSource, StageSpec

USER = 65532
WRITABLE = ("scratch", "store")
"""/scratch, and the mounted store where it is a folder; /dev/termination-log is a single file."""
_NAMESPACES = shutil.which("unshare") and shutil.which("setpriv")
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not _NAMESPACES, reason="needs root, unshare and setpriv to make everything else read-only"
)

SCRIPT = """
set -e
mount --make-rprivate /
for place in {kept}; do mount --bind "$place" "$place"; done
mount -o remount,bind,ro / || mount --rbind / / && mount -o remount,bind,ro /
awk '$5 != "/" {{print $5}}' /proc/self/mountinfo | while read -r place; do
  case "$place" in {kept_patterns}) ;; *) mount -o remount,bind,ro "$place" 2>/dev/null || true;; esac
done
exec setpriv --reuid={user} --regid={user} --clear-groups --no-new-privs --inh-caps=-all "$@"
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that another user may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="narrow-") as name:
        made = Path(name)
        made.chmod(0o755)
        for folder in WRITABLE:
            (made / folder).mkdir()
            os.chown(made / folder, USER, USER)
        (made / "message").touch()
        os.chown(made / "message", USER, USER)
        yield made


def narrow(place: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as uid 65532 where only the scratch folder, the store and the message can be written."""
    kept = [str(place / name) for name in (*WRITABLE, "message")]
    script = SCRIPT.format(kept=" ".join(kept), kept_patterns="|".join([*kept, "/proc*"]), user=USER)
    scratch = str(place / "scratch")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": scratch,
        "TMPDIR": scratch,
        "THINKREC_CACHE": f"{scratch}/cache",
        "THINKREC_TERMINATION_PATH": str(place / "message"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        ["unshare", "--mount", "bash", "-c", script, "narrow", *command],
        env=environment,
        cwd=place,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def stage(place: Path, spec: StageSpec) -> TerminationMessage:
    (place / "stage.json").write_text(spec.to_json())
    done = narrow(place, sys.executable, "-m", "thinkrec_trainer", "run", str(place / "stage.json"))
    assert done.returncode == 0, done.stderr
    return TerminationMessage.from_json((place / "message").read_bytes())


def test_nothing_else_can_be_written(place: Path) -> None:
    """Or the next test would prove nothing."""
    wanted = [place / "new", Path("/tmp/narrow-new"), Path(__file__).parent / "new", place / "scratch" / "new"]
    tried = "".join(f"touch {path} 2>/dev/null && echo {path}; " for path in wanted)
    done = narrow(place, "bash", "-c", f"{tried} id -u")
    assert done.stdout.split() == [str(place / "scratch" / "new"), str(USER)], done.stderr


def test_stages_with_and_without_torch(place: Path) -> None:
    rows = "".join(f"u{n % 12},i{(n * 5) % 9},{n % 5 + 1},{n}\n" for n in range(90))
    (place / "ratings.csv").write_text("user_id,item_id,rating,timestamp\n" + rows)
    (place / "items.csv").write_text("item_id,title\n" + "".join(f"i{n},Title {n}\n" for n in range(9)))
    items = ItemSource(storage_uri=str(place / "items.csv"), format="CSV")
    parameters = DatasetParameters(storage_uri=str(place / "ratings.csv"), revision="1", format="CSV", items=items)
    dataset = make_spec(parameters, place / "store")
    message = stage(place, dataset)
    assert message.digest is not None
    ref = InputRef(name="dataset", kind=dataset.kind, key=dataset.key, uri=dataset.output_uri, digest=message.digest)
    vectors = make_spec(CollaborativeParameters(dimension=4, epochs=1), place / "store")
    assert stage(place, vectors.model_copy(update={"inputs": (ref,)})).digest is not None
