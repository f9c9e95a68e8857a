# SPDX-License-Identifier: Apache-2.0
"""The status of a model that this operator cannot read: what it was, with Stalled and what is wrong. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from thinkrec_crds import group
from thinkrec_crds.conditions import ConditionType, Reason
from thinkrec_operator.cluster.objects import Unreadable


def unreadable_status(body: Mapping[str, Any], model: Unreadable, now: datetime) -> dict[str, Any] | None:
    """Return the manifest that tells it, or None where the status says it already.

    Everything else of the status is written again as it is: what server-side apply leaves out, it removes.
    """
    before = dict(body.get("status") or {})
    conditions = list(before.get("conditions") or ())
    told = [
        _condition(conditions, model, now, ConditionType.READY, "False"),
        _condition(conditions, model, now, ConditionType.STALLED, "True"),
    ]
    replaced = {item["type"] for item in told} | {ConditionType.RECONCILING.value}
    kept = [item for item in conditions if item["type"] not in replaced]
    after = {**before, "observedGeneration": model.generation, "conditions": [*told, *kept]}
    if _by_type(after) == _by_type(before):
        return None
    meta = {"name": model.name, "namespace": model.namespace, "uid": model.uid}
    return {"apiVersion": group.API_VERSION, "kind": model.kind, "metadata": meta, "status": after}


def _condition(
    conditions: list[dict[str, Any]], model: Unreadable, now: datetime, kind: ConditionType, status: str
) -> dict[str, Any]:
    old = next((item for item in conditions if item["type"] == kind and item["status"] == status), None)
    moment = old["lastTransitionTime"] if old else now.isoformat(timespec="seconds").replace("+00:00", "Z")
    return {
        "type": kind.value,
        "status": status,
        "reason": Reason.INVALID_SPEC.value,
        "message": f"{model.message}. Upgrade both together, or correct the field.",
        "observedGeneration": model.generation,
        "lastTransitionTime": moment,
    }


def _by_type(status: Mapping[str, Any]) -> dict[str, Any]:
    return {**status, "conditions": {item["type"]: item for item in status.get("conditions") or ()}}
