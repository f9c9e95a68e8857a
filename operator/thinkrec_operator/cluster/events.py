# SPDX-License-Identifier: Apache-2.0
"""Events of a plan as Kubernetes Events, named after what they tell. Pure.

The name comes from the object's version and the words: a decision that is made again after a crash makes the same
name, and the apiserver refuses it, so that each transition is told once.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from thinkrec_crds import group
from thinkrec_crds.experiment import ThinkRecExperiment
from thinkrec_crds.model import ThinkRecModel
from thinkrec_operator.names import short_hash
from thinkrec_operator.plan import Event


def event_manifest(model: ThinkRecModel | ThinkRecExperiment, event: Event, now: datetime) -> dict[str, Any]:
    """Return the Event about a model or an experiment."""
    meta, moment = model.metadata, now.isoformat(timespec="seconds").replace("+00:00", "Z")
    identity = "\0".join((meta.uid, meta.resource_version, event.type, event.reason, event.message))
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{meta.name}.{short_hash(identity, 16)}", "namespace": meta.namespace},
        "involvedObject": {
            "apiVersion": group.API_VERSION,
            "kind": model.kind,
            "name": meta.name,
            "namespace": meta.namespace,
            "uid": meta.uid,
            "resourceVersion": meta.resource_version,
        },
        "type": event.type,
        "reason": event.reason,
        "message": event.message,
        "source": {"component": group.MANAGED_BY},
        "reportingComponent": group.MANAGED_BY,
        "reportingInstance": group.MANAGED_BY,
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }
