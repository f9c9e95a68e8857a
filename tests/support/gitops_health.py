# SPDX-License-Identifier: Apache-2.0
"""How GitOps tools judge an object: Argo CD by our Lua check, Flux and `kubectl` by the rules of kstatus."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lupa.lua51 import LuaRuntime  # type: ignore[import-untyped]  # a compiled module without types

Body = Mapping[str, Any]
CHECK = Path(__file__).resolve().parents[2] / "helm" / "argocd" / "thinkrec-health.lua"
_FORBIDDEN = ("io", "os", "require", "dofile", "loadfile", "load", "loadstring", "package", "debug")
"""What a check must do without: Argo CD runs it with the base, table and string libraries only."""


def argo(body: Body) -> tuple[str, str]:
    """Return Argo CD's health and message of an object.

    Argo CD itself answers for an object that is being deleted, before it asks a check.
    """
    if "deletionTimestamp" in body["metadata"]:
        return "Progressing", "Pending deletion"
    # Lua 5.1 is the language of the interpreter in Argo CD.
    lua = LuaRuntime(unpack_returned_tuples=True, register_eval=False, register_builtins=False)
    for name in _FORBIDDEN:
        lua.globals()[name] = None
    lua.globals()["obj"] = _table(lua, body)
    answer = lua.execute(CHECK.read_text("utf-8"))
    return str(answer["status"]), str(answer["message"])


def _table(lua: Any, value: Any) -> Any:
    if isinstance(value, Mapping):
        return lua.table_from({name: _table(lua, item) for name, item in value.items()})
    if isinstance(value, list | tuple):
        return lua.table_from([_table(lua, item) for item in value])
    return value


def kstatus(body: Body) -> str:
    """Return the status that sigs.k8s.io/cli-utils computes for a custom resource.

    Deletion; then a generation that was not observed; then Reconciling and Stalled, whichever stands first; then Ready.
    An object without conditions counts as Current, which is why the schema has a default for the observed generation.
    """
    if "deletionTimestamp" in body["metadata"]:
        return "Terminating"
    status = body.get("status", {})
    if "observedGeneration" in status and status["observedGeneration"] != body["metadata"]["generation"]:
        return "InProgress"
    conditions = status.get("conditions", [])
    for condition in conditions:
        if condition["status"] == "True" and condition["type"] in ("Reconciling", "Stalled"):
            return "InProgress" if condition["type"] == "Reconciling" else "Failed"
    ready = next((condition["status"] for condition in conditions if condition["type"] == "Ready"), "True")
    return "Current" if ready == "True" else "InProgress"
