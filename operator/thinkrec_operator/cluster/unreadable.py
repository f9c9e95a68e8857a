# SPDX-License-Identifier: Apache-2.0
"""The status of a model that this operator cannot read: Stalled, with what is wrong. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from thinkrec_crds import group
from thinkrec_crds.conditions import ConditionType, Reason
from thinkrec_operator.cluster.objects import Unreadable


def unreadable_status(model: Unreadable, now: datetime) -> dict[str, Any]:
    """Return the manifest that tells it; fields of the old status that are not told keep their owner's values."""
    reason = Reason.INVALID_SPEC
    message = f"{model.message}. Upgrade both together, or correct the field."

    def condition(kind: ConditionType, status: str) -> dict[str, Any]:
        return {
            "type": kind.value,
            "status": status,
            "reason": reason.value,
            "message": message,
            "observedGeneration": model.generation,
            "lastTransitionTime": now.isoformat(timespec="seconds").replace("+00:00", "Z"),
        }

    return {
        "apiVersion": group.API_VERSION,
        "kind": group.MODEL_KIND,
        "metadata": {"name": model.name, "namespace": model.namespace, "uid": model.uid},
        "status": {
            "observedGeneration": model.generation,
            "conditions": [condition(ConditionType.READY, "False"), condition(ConditionType.STALLED, "True")],
        },
    }
