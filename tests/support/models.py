# SPDX-License-Identifier: Apache-2.0
"""Models for tests against a real apiserver."""

from __future__ import annotations

import copy
from typing import Any

from support.manifests import MINIMAL_MODEL

Body = dict[str, Any]


def models_path(namespace: str) -> str:
    """Return the collection of models in a namespace."""
    return f"/apis/thinkrec.io/v1alpha1/namespaces/{namespace}/thinkrecmodels"


def model_manifest(name: str = "movies", **spec: Any) -> Body:
    """Return the smallest model, with members of its spec replaced."""
    body = copy.deepcopy(dict(MINIMAL_MODEL))
    body["metadata"]["name"] = name
    body["spec"] |= spec
    return body


def condition(model: Body, type_: str, part: str = "status") -> str:
    """Return the status (or reason, message) of a condition; empty where there is none."""
    conditions: list[Body] = model.get("status", {}).get("conditions", [])
    return next((str(item.get(part, "")) for item in conditions if item["type"] == type_), "")
