# SPDX-License-Identifier: Apache-2.0
"""Spec and status are two doors: neither writes what belongs to the other, and only spec counts generations."""

from __future__ import annotations

from typing import Any

import pytest

from embedded_cluster.api import ApiError
from embedded_cluster.cluster import Cluster
from support.manifests import MINIMAL_EXPERIMENT, MINIMAL_MODEL, edited
from support.thinkrec_api import SERVING_STATUS, causes, collection, write_status
from thinkrec_crds import group
from thinkrec_crds.model import ThinkRecModel

UNSEEN = {"observedGeneration": group.SCHEMA_ONLY_STATUS_GENERATION}
CONDITION = {"type": "Ready", "status": "True", "reason": "Serving", "lastTransitionTime": "2026-01-05T12:00:00Z"}


@pytest.fixture
def model(control_plane: Cluster, namespace: str) -> str:
    """Create the smallest model; return its path."""
    path = collection(group.MODEL_KIND, namespace)
    control_plane.api.create(path, MINIMAL_MODEL)
    return f"{path}/movies"


@pytest.mark.parametrize("base", [MINIMAL_MODEL, MINIMAL_EXPERIMENT], ids=lambda base: base["kind"])
@pytest.mark.parametrize("status", [None, {"observedGeneration": 7, "url": "http://evil"}], ids=["none", "given"])
def test_a_new_object_is_unseen_whatever_its_manifest_says(
    control_plane: Cluster, namespace: str, base: dict[str, Any], status: dict[str, Any] | None
) -> None:
    created = control_plane.api.create(collection(base["kind"], namespace), edited(base, {"status": status}))
    assert created["status"] == UNSEEN
    assert created["metadata"]["generation"] == 1


def test_status_cannot_be_written_through_the_object(control_plane: Cluster, model: str) -> None:
    api = control_plane.api
    assert api.patch(model, {"status": {"url": "http://evil"}})["status"] == UNSEEN
    body = api.get(model)
    assert api.replace(model, edited(body, {"status/latestRevision": "x"}))["status"] == UNSEEN
    applied = api.apply(model, edited(MINIMAL_MODEL, {"status/url": "http://evil"}), manager="user")
    assert applied["status"] == UNSEEN


def test_spec_cannot_be_written_through_status(control_plane: Cluster, model: str) -> None:
    api = control_plane.api
    before = api.get(model)
    after = api.patch(f"{model}/status", {"spec": {"suspend": True}, "status": {"url": "http://movies"}})
    assert after["spec"] == before["spec"]
    assert after["status"] == UNSEEN | {"url": "http://movies"}
    replaced = api.replace(f"{model}/status", edited(after, {"spec/suspend": True, "status/replicas": 1}))
    assert (replaced["spec"], replaced["status"]["replicas"]) == (before["spec"], 1)


def test_only_a_change_of_spec_counts(control_plane: Cluster, model: str) -> None:
    api = control_plane.api
    assert write_status(api, model, SERVING_STATUS)["metadata"]["generation"] == 1
    annotated = api.patch(model, {"metadata": {"annotations": {group.ANNOTATION_RETRAIN_REQUESTED: "1"}}})
    assert annotated["metadata"]["generation"] == 1
    assert api.patch(model, {"spec": {"suspend": False}})["metadata"]["generation"] == 1, "the default says so already"
    assert api.patch(model, {"spec": {"suspend": True}})["metadata"]["generation"] == 2
    assert api.get(model)["status"]["observedGeneration"] == 1


def test_a_status_comes_back_as_it_was_written(control_plane: Cluster, model: str) -> None:
    written = write_status(control_plane.api, model, SERVING_STATUS)
    assert ThinkRecModel.model_validate(written).status == SERVING_STATUS
    again = write_status(control_plane.api, model, SERVING_STATUS)
    assert again["metadata"]["resourceVersion"] == written["metadata"]["resourceVersion"], "the same status is no write"


@pytest.mark.parametrize(
    ("status", "place"),
    [
        ({"conditions": [{"type": "Ready", "status": "yes"}]}, "status.conditions[0].status"),
        ({"conditions": [{"type": "Ready", "status": "True"}]}, "status.conditions[0].reason"),
        ({"stages": [{"name": "gate", "kind": "gates"}]}, "status.stages[0].kind"),
        ({"progressPercent": 101}, "status.progressPercent"),
        ({"metrics": [{"name": "AUC", "value": "good"}]}, "status.metrics[0].value"),
        ({"conditions": [CONDITION, CONDITION]}, "status.conditions[1]"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_status_is_refused(control_plane: Cluster, model: str, status: dict[str, Any], place: str) -> None:
    with pytest.raises(ApiError) as caught:
        control_plane.api.patch(f"{model}/status", {"status": status})
    assert place in [field for field, _ in causes(caught.value)]


def test_a_status_of_a_newer_operator_loses_what_this_schema_does_not_know(control_plane: Cluster, model: str) -> None:
    written = control_plane.api.patch(f"{model}/status", {"status": {"replicas": 1, "newerField": {"a": 1}}})
    assert written["status"] == UNSEEN | {"replicas": 1}


def test_labels_of_others_are_no_concern_of_ours(control_plane: Cluster, model: str) -> None:
    """Tools add labels as they like; an object that the apiserver took must never be unreadable for the operator."""
    api = control_plane.api
    api.patch(model, {"metadata": {"labels": {f"l{index}": "x" for index in range(60)}}})
    written = write_status(api, model, SERVING_STATUS)
    assert len(ThinkRecModel.model_validate(written).metadata.labels or {}) == 60
