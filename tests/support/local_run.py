# SPDX-License-Identifier: Apache-2.0
"""The local driver with fake stages, in this process or in one of its own that a test may kill.

Usage: `python local_run.py MANIFEST CONTROL CPUS serve|train`; ends with the outcome's name on standard output
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import yaml

from thinkrec_crds.model import ThinkRecModel
from thinkrec_crds.validation import load_model
from thinkrec_operator.local.driver import Driver, DriverOptions
from thinkrec_operator.local.jobs import JobOptions
from thinkrec_operator.local.outcome import Outcome
from thinkrec_operator.local.serving import ServingOptions
from thinkrec_operator.local.state import State, state_folder, utc_now
from thinkrec_operator.local.view import JsonLines

FAKE_STAGE = Path(__file__).with_name("fake_stage.py")
FAKE_SERVER = Path(__file__).with_name("fake_server.py")
SPEC: dict[str, Any] = {
    "baseModel": {"storageUri": "file:base"},
    "dataset": {
        "storageUri": "file:ratings",
        "revision": "1",
        "items": {"storageUri": "file:items", "columns": {"attributes": ["genre"]}},
    },
    "keywords": {"source": "Attributes"},
    "experts": {"count": 2},
    "artifacts": {"storageUri": "file:.thinkrec/store"},
}


def write_manifest(folder: Path, spec: dict[str, Any], name: str = "movies") -> Path:
    """Write a manifest with this spec; return its path."""
    body = {"apiVersion": "thinkrec.io/v1alpha1", "kind": "ThinkRecModel", "metadata": {"name": name}, "spec": spec}
    path = folder / ("model.yaml" if name == "movies" else f"{name}.yaml")
    path.write_text(yaml.safe_dump(body))
    return path


def state_of(manifest: Path) -> State:
    """Return the state folder of a manifest's model."""
    return State(state_folder(load(manifest), manifest, None))


def load(manifest: Path) -> ThinkRecModel:
    """Return the manifest's model."""
    return load_model(manifest.read_text(), str(manifest))


def drive(
    manifest: Path, control: Path, *, cpus: int = 2, retry_base_seconds: float = 0.05, serve: bool = False
) -> Outcome:
    """Run the driver until it ends."""
    folder = manifest.resolve().parent
    environment = {**os.environ, "FAKE_STAGE_CONTROL": str(control)}
    jobs = JobOptions(
        folder, cpus, retry_base_seconds, command=(sys.executable, "-I", "-S", str(FAKE_STAGE)), environment=environment
    )
    state = state_of(manifest)
    with state.locked(command="run", now=utc_now()):
        driver = Driver(
            lambda: load(manifest),
            state,
            DriverOptions(manifest, cpus, serve=serve, max_serving_failures=3),
            jobs=jobs,
            serving=ServingOptions(
                folder, environment, cpus, command=(sys.executable, str(FAKE_SERVER)), restart_seconds=(0.05, 0.1)
            ),
            view=JsonLines(sys.stderr),
        )
        return driver.run()


if __name__ == "__main__":
    found = drive(Path(sys.argv[1]), Path(sys.argv[2]), cpus=int(sys.argv[3]), serve=sys.argv[4] == "serve")
    sys.stdout.write(found.value + "\n")
