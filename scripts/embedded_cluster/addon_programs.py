# SPDX-License-Identifier: Apache-2.0
"""Controllers of other projects that stages may be given to: found, or built once from their published Go modules.

Beside each program the cache keeps what its project installs with it, read out of the same module.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from embedded_cluster import programs
from embedded_cluster.errors import ClusterError
from embedded_cluster.locks import file_lock
from embedded_cluster.paths import ADDONS_GO_MODULE, cache_folder

Body = dict[str, Any]
_MANIFESTS = "manifests.json"
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a CRD of JobSet takes the other one ten seconds


@dataclass(frozen=True)
class Addon:
    """One controller. `manifests` are globs in its module's folder."""

    program: str
    module: str
    package: str
    manifests: tuple[str, ...]
    configuration: str
    """API version of its configuration file."""
    certificates: str
    """Member of that file which turns the management of its own certificates off."""

    @property
    def version(self) -> str:
        """The version that scripts/kube_addons/go.mod asks for, with its v."""
        found = re.search(rf"^\s*{re.escape(self.module)} (v\S+)", _go_mod().read_text(), re.MULTILINE)
        if found is None:
            raise ClusterError(f"{_go_mod()} names no version of {self.module}")
        return found.group(1)

    @property
    def folder(self) -> Path:
        """The cache folder of this version."""
        return cache_folder() / self.program / self.version

    @property
    def path(self) -> Path:
        """Where the program is once it is built."""
        return self.folder / self.program

    @property
    def built(self) -> bool:
        """Whether it is there already."""
        return os.access(self.path, os.X_OK)

    def bodies(self) -> list[Body]:
        """Return the CRDs, the webhook configurations and, of Trainer, a runtime, all of the built version."""
        found: list[Body] = json.loads((self.folder / _MANIFESTS).read_text())
        return found


JOB_SET = Addon(
    program="jobset",
    module="sigs.k8s.io/jobset",
    package="sigs.k8s.io/jobset",
    manifests=("config/components/crd/bases/*.yaml", "config/components/webhook/manifests.yaml"),
    configuration="config.jobset.x-k8s.io/v1alpha1",
    certificates="internalCertManagement",
)
TRAINER = Addon(
    program="trainer-controller-manager",
    module="github.com/kubeflow/trainer/v2",
    package="github.com/kubeflow/trainer/v2/cmd/trainer-controller-manager",
    manifests=(
        "manifests/base/crds/*_*.yaml",
        "manifests/base/webhook/manifests.yaml",
        "manifests/base/runtimes/torch_distributed.yaml",
    ),
    configuration="config.trainer.kubeflow.org/v1alpha1",
    certificates="certManagement",
)
ALL = (JOB_SET, TRAINER)


def ensure(addons: Iterable[Addon]) -> None:
    """Build those that are not there, one after the other."""
    missing = [addon for addon in addons if not addon.built]
    if not missing:
        return
    lock = cache_folder() / JOB_SET.program / ".lock"
    with file_lock(lock, waiting="Another process builds the controllers of JobSet and Trainer; waiting for it"):
        for addon in missing:
            if not addon.built:
                _build(addon)


def _build(addon: Addon) -> None:
    """Build beside its place; the program moves last, so that one that is there is complete."""
    began = time.monotonic()
    programs.say(f"Building {addon.program} {addon.version} (with the other one 4 to 6 minutes on two cores)")
    addon.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=addon.folder) as scratch:
        built = Path(scratch) / addon.program
        _go("build", "-ldflags", "-s -w", "-o", str(built), addon.package)
        source = Path(_go("list", "-m", "-f", "{{.Dir}}", addon.module).strip())
        shutil.move(_write_manifests(addon, source, Path(scratch)), addon.folder / _MANIFESTS)
        built.rename(addon.path)
    programs.say(f"Built {addon.program} in {time.monotonic() - began:.0f} s")


def _write_manifests(addon: Addon, source: Path, folder: Path) -> Path:
    paths = [path for pattern in addon.manifests for path in sorted(source.glob(pattern))]
    bodies = [body for path in paths for body in yaml.load_all(path.read_text("utf-8"), Loader=_LOADER) if body]
    target = folder / _MANIFESTS
    target.write_text(json.dumps(bodies))
    return target


def _go(*arguments: str) -> str:
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-trimpath"}
    command = [programs.go(), *arguments]
    done = subprocess.run(command, cwd=ADDONS_GO_MODULE, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise ClusterError(
            f"`go {arguments[0]}` failed (its messages are above); Go needs the module proxy: `go env GOPROXY`"
        )
    return done.stdout


def _go_mod() -> Path:
    return ADDONS_GO_MODULE / "go.mod"
