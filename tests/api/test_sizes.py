# SPDX-License-Identifier: Apache-2.0
"""The largest objects that the schema allows are accepted: size, time, and the budget of the rules."""

from __future__ import annotations

from typing import Any

import pytest

from embedded_cluster.api import Api, ApiError
from embedded_cluster.cluster import Cluster
from support.manifests import AB_TEST, ANALYSIS, MINIMAL_EXPERIMENT, MINIMAL_MODEL, edited
from support.thinkrec_api import SERVING_STATUS, collection
from thinkrec_crds import group
from thinkrec_crds.model_status import ModelStatus
from thinkrec_crds.stage_kinds import StageKind

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
RESOURCES = {part: {f"example.com/device-{index}": "1" for index in range(16)} for part in ("requests", "limits")}
TOLERATION = {"key": "k" * 256, "operator": "Equal", "value": "v" * 63, "effect": "NoExecute", "tolerationSeconds": 1}
STAGES = [{"name": str(kind), "image": "i" * 512, "resources": RESOURCES} for kind in StageKind][:10]
METRICS = [*(f"NDCG@{index}" for index in range(1, 17))]
LARGE_MODEL: dict[str, Any] = edited(
    MINIMAL_MODEL,
    {
        "metadata/name": "m" * 52,
        "spec/experts": {"items": [{"name": f"{index:02d}{'e' * 61}"} for index in range(64)]},
        "spec/training": {
            "args": ["x" * 4096] * 64,
            "stages": STAGES,
            "resources": RESOURCES,
            "tolerations": [TOLERATION] * 16,
            "nodeSelector": {f"{index:02d}{'k' * 254}": "v" * 256 for index in range(32)},
        },
        "spec/evaluation": {
            "metrics": METRICS,
            "gates": [{"metric": metric, "minimum": "0.123456789", "maxRegression": "0.1"} for metric in METRICS],
        },
        "spec/dataset/items/columns": {"attributes": [f"{index:02d}{'a' * 126}" for index in range(16)]},
    },
)
EVENT = {"type": "Ratio", "name": "n" * 64, "denominator": "d" * 64, "cap": "1"}
LARGE_EXPERIMENT: dict[str, Any] = edited(
    MINIMAL_EXPERIMENT,
    {
        "spec/variants": [
            {"name": f"{index}{'v' * 62}", "modelRef": {"name": "m" * 63}, "revision": "r" * 63, "weight": weight}
            for index, weight in enumerate([12] * 4 + [13] * 4)
        ],
        "spec/controlVariantName": f"0{'v' * 62}",
        "spec/offline": {"metrics": [{"name": metric} for metric in METRICS], "resources": RESOURCES},
        "spec/traffic": AB_TEST,
        "spec/analysis": {
            **ANALYSIS,
            "guardrails": [{"name": f"g{index}", "event": EVENT, "maximum": "0.123456789"} for index in range(16)],
        },
    },
)
EXPERT = {"kind": "expert", "state": "Running", "key": "k" * 128, "message": "m" * 4096, "artifactUri": "u" * 2048}
LARGE_STATUS = ModelStatus.model_validate(
    SERVING_STATUS.model_dump() | {"experts": [EXPERT | {"name": f"expert-{index}"} for index in range(64)]}
)


@pytest.mark.parametrize("body", [LARGE_MODEL, LARGE_EXPERIMENT], ids=lambda body: body["kind"])
def test_the_largest_spec_is_accepted_and_updated(control_plane: Cluster, namespace: str, body: dict[str, Any]) -> None:
    api, path = control_plane.api, collection(body["kind"], namespace)
    created = api.create(path, body, fieldValidation="Strict")
    changed = api.replace(f"{path}/{body['metadata']['name']}", edited(created, {"spec/suspend": True}))
    assert changed["metadata"]["generation"] == 2, "rules that compare with the old object had a budget too"


def test_the_largest_status_is_accepted(control_plane: Cluster, namespace: str) -> None:
    api, path = control_plane.api, collection(group.MODEL_KIND, namespace)
    api.create(path, LARGE_MODEL)
    status = LARGE_STATUS.model_dump(mode="json", by_alias=True, exclude_none=True)
    written = api.patch(f"{path}/{LARGE_MODEL['metadata']['name']}/status", {"status": status})
    assert len(written["status"]["experts"]) == 64


@pytest.mark.parametrize("name", [group.MODEL_CRD_NAME, group.EXPERIMENT_CRD_NAME])
def test_the_apiserver_has_nothing_against_a_definition(control_plane: Cluster, name: str) -> None:
    conditions = control_plane.api.get(f"{CRDS}/{name}")["status"]["conditions"]
    told = {item["type"]: item["status"] for item in conditions}
    assert (told["NamesAccepted"], told["Established"]) == ("True", "True")
    assert told.get("NonStructuralSchema", "False") == "False"


def costs(api: Api, name: str, factor: int) -> str:
    """Return what the apiserver says against a definition whose lists may be `factor` times as long."""
    body = api.get(f"{CRDS}/{name}")
    schema = body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    _lengthen(schema, factor)
    try:
        api.request("PUT", f"{CRDS}/{name}", json=body, params={"dryRun": "All"})
    except ApiError as error:
        return str(error)
    return ""


def _lengthen(node: dict[str, Any], factor: int) -> None:
    for key in ("maxItems", "maxProperties"):
        if key in node:
            node[key] *= factor
    children = [*node.get("properties", {}).values(), node.get("items"), node.get("additionalProperties")]
    for child in children:
        if isinstance(child, dict):
            _lengthen(child, factor)


@pytest.mark.parametrize("name", [group.MODEL_CRD_NAME, group.EXPERIMENT_CRD_NAME])
def test_the_rules_leave_room_in_their_budget(control_plane: Cluster, name: str) -> None:
    """The apiserver estimates the worst case: lists of twice the length must fit, and that there is a limit is seen."""
    assert costs(control_plane.api, name, 2) == ""
    assert "estimated rule cost" in costs(control_plane.api, name, 1_000_000)
