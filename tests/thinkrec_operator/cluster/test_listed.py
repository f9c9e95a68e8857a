# SPDX-License-Identifier: Apache-2.0
"""An item of a list and the same object out of a watch become the same record."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from msgspec import Raw

from support.models import model_manifest
from thinkrec_operator.cluster import resources
from thinkrec_operator.cluster.listed import Listed, read_answer, read_item
from thinkrec_operator.cluster.objects import header, object_record, plain

META = {
    "name": "movies",
    "namespace": "shop",
    "uid": "uid-1",
    "resourceVersion": "7",
    "generation": 2,
    "creationTimestamp": "2026-11-24T00:00:00Z",
    "labels": {"app.kubernetes.io/component": "serving", "thinkrec.io/model": "movies"},
    "annotations": {"note": "kept"},
    "finalizers": ["thinkrec.io/artifacts"],
    "ownerReferences": [
        {"apiVersion": "v1", "kind": "X", "name": "x", "uid": "other"},
        {"apiVersion": "v1", "kind": "Y", "name": "y", "uid": "owner", "controller": True, "blockOwnerDeletion": True},
    ],
    "managedFields": [{"manager": "somebody", "fieldsV1": {"f:spec": {}}}],
}


def body(**more: Any) -> dict[str, Any]:
    return {"metadata": META, **more}


def item(whole: dict[str, Any]) -> Listed:
    return read_item(Raw(json.dumps(whole).encode()))


DEPLOYMENT = body(spec={"replicas": 1, "template": {"a": [1, {"b": None}]}}, status={"replicas": 1})
REVISION = body(data={"results": {"bundle": {"key": "k"}}}, revision=3)


@pytest.mark.parametrize(
    ("kind", "whole"), [(resources.DEPLOYMENT.kind, DEPLOYMENT), (resources.CONTROLLER_REVISION.kind, REVISION)]
)
def test_both_ways_lead_to_the_same_record(kind: str, whole: dict[str, Any]) -> None:
    listed, watched = object_record(kind, item(whole)), object_record(kind, whole)
    assert replace(listed, packed=b"") == replace(watched, packed=b"")
    assert listed.body == watched.body
    assert "managedFields" not in listed.body["metadata"]
    assert listed.owner == "owner"
    assert header(item(whole)) == header(whole)
    assert plain(item(whole))["metadata"]["ownerReferences"][1] == META["ownerReferences"][1]


@pytest.mark.parametrize(
    ("status", "settled"),
    [
        ({}, False),
        ({"observedGeneration": 1, "conditions": []}, False),
        ({"observedGeneration": 2, "conditions": [{"type": "Ready", "status": "True", "reason": "x"}]}, True),
        ({"observedGeneration": 2, "conditions": [{"type": "Reconciling", "status": "True"}]}, False),
        ({"observedGeneration": 2, "conditions": [{"type": "Reconciling", "status": "False"}]}, True),
    ],
)
def test_a_model_whose_status_is_up_to_date_is_settled(status: dict[str, Any], settled: bool) -> None:
    whole = body(spec=model_manifest()["spec"], status=status)
    for seen in (whole, item(whole)):
        found = object_record(resources.MODEL.kind, seen)
        assert found.settled is settled
        assert found.store == whole["spec"]["artifacts"]["storageUri"].rstrip("/")


def test_a_model_without_a_store_is_still_an_object() -> None:
    for spec in ({}, {"artifacts": None}, {"artifacts": {"storageUri": 5}}):
        assert object_record(resources.MODEL.kind, item(body(spec=spec))).store == ""


def test_an_empty_and_a_paged_list_are_read() -> None:
    answer = read_answer(b'{"kind":"List","metadata":{"resourceVersion":"9","continue":"more"},"items":null}')
    assert (answer.metadata.resourceVersion, answer.metadata.continue_, answer.items) == ("9", "more", None)


@pytest.mark.parametrize("text", [b"<html>", b'{"metadata": 5}', b""])
def test_what_is_no_list_is_said(text: bytes) -> None:
    with pytest.raises(ValueError, match="no list of Kubernetes"):
        read_answer(text)
