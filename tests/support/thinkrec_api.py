# SPDX-License-Identifier: Apache-2.0
"""Our two kinds on a real apiserver: where they live, and what it says when it refuses one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from embedded_cluster.api import Api, ApiError
from thinkrec_crds import group
from thinkrec_crds.model_status import ModelStatus
from thinkrec_crds.schema import KINDS

_PLURALS: Final = {kind.kind: kind.plural for kind in KINDS}

SERVING_STATUS: Final = ModelStatus.model_validate(
    {
        "observedGeneration": 1,
        "conditions": [
            {
                "type": kind,
                "status": "True",
                "observedGeneration": 1,
                "reason": reason,
                "message": "Revision movies-7f3a answers requests.",
                "lastTransitionTime": "2026-01-02T12:00:00Z",
            }
            for kind, reason in (("Available", "Serving"), ("Ready", "Ready"), ("TrainingSucceeded", "Trained"))
        ],
        "latestRevision": "movies-7f3a",
        "servingRevision": "movies-7f3a",
        "stages": [{"name": "gate", "kind": "gate", "state": "Succeeded", "startTime": "2026-01-02T11:00:00Z"}],
        "experts": [{"name": "expert-0", "kind": "expert", "state": "Reused", "progressPercent": 100}],
        "expertCount": 3,
        "progressPercent": 87,
        "metrics": [{"name": "UAUC", "value": "0.62", "lower": "0.6", "upper": "0.64"}],
        "lastTrainingTime": "2026-01-02T12:00:00Z",
        "replicas": 2,
        "readyReplicas": 1,
        "selector": "thinkrec.io/model=movies",
        "url": "http://movies.default.svc:8080",
    }
)
"""A status as the operator writes it for a model that serves while it trains again."""


def collection(kind: str, namespace: str) -> str:
    """Return the path of the objects of a kind."""
    return f"/apis/{group.API_VERSION}/namespaces/{namespace}/{_PLURALS[kind]}"


def refusal(api: Api, body: Mapping[str, Any], *, kind: str, namespace: str = "default") -> ApiError | None:
    """Return why the apiserver would not create an object, or None; nothing is stored."""
    try:
        api.create(collection(kind, namespace), body, fieldValidation="Strict", dryRun="All")
    except ApiError as error:
        return error
    return None


def causes(error: ApiError) -> list[tuple[str, str]]:
    """Return the place and the sentence of each cause; a place of the whole object is empty."""
    found = (error.body.get("details") or {}).get("causes") or []
    return [(cause["field"].replace("<nil>", ""), cause["message"]) for cause in found]


def write_status(api: Api, path: str, status: ModelStatus) -> dict[str, Any]:
    """Write a status as the operator does."""
    return api.patch(f"{path}/status", {"status": status.model_dump(mode="json", by_alias=True, exclude_none=True)})
