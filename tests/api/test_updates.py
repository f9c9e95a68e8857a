# SPDX-License-Identifier: Apache-2.0
"""What may not change after creation does not, and what may does; the Python predicates say the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pytest
import yaml

from embedded_cluster.api import ApiError
from embedded_cluster.cluster import Cluster
from support.manifests import AB_TEST, ANALYSIS, DELETE, MINIMAL_EXPERIMENT, MINIMAL_MODEL, edited
from support.thinkrec_api import causes, collection
from thinkrec_crds.validation import forbidden_changes, load_experiment

DATA: Final = {"storageUri": "s3://data/test.parquet", "items": {"storageUri": "s3://data/items.parquet"}}
BEFORE: Final = edited(
    MINIMAL_EXPERIMENT, {"spec/traffic": AB_TEST, "spec/analysis": ANALYSIS, "spec/offline": {"dataset": DATA}}
)
THIRD: Final = {"name": "third", "modelRef": {"name": "movies"}}
FORBIDDEN: Final[Mapping[str, tuple[dict[str, Any], str, str]]] = {
    "a variant more": ({"spec/variants": [*BEFORE["spec"]["variants"], THIRD]}, "spec", "`variants` must not gain"),
    "another variant": ({"spec/variants/1": THIRD}, "spec", "`variants` must not gain or lose"),
    "another control": ({"spec/controlVariantName": "next"}, "spec", "`controlVariantName` must not change"),
    "another model": ({"spec/variants/0/modelRef/name": "x"}, "spec.variants[0]", "`modelRef` must not change"),
    "another revision": ({"spec/variants/1/revision": "movies-8"}, "spec.variants[1]", "`revision` must not change"),
    "a revision at last": ({"spec/variants/0/revision": "movies-8"}, "spec.variants[0]", "`revision` must not change"),
    "no revision": ({"spec/variants/1/revision": DELETE}, "spec.variants[1]", "`revision` must not change"),
    "no offline part": ({"spec/offline": DELETE}, "spec", "`offline` must not be added or removed"),
    "other data": ({"spec/offline/dataset/storageUri": "s3://data/x"}, "spec.offline", "`dataset` must not change"),
    "no data": ({"spec/offline/dataset": DELETE}, "spec.offline", "`dataset` must not change"),
}
ALLOWED: Final[Mapping[str, dict[str, Any]]] = {
    "other shares": {"spec/variants/0/weight": 90, "spec/variants/1/weight": 10},
    "another order": {"spec/variants": list(reversed(BEFORE["spec"]["variants"]))},
    "a stricter gate": {"spec/offline/gates": [{"metric": "AUC", "minimum": "0.6"}]},
    "a guardrail": {"spec/analysis/guardrails": [{"name": "e", "event": {"name": "error"}, "maximum": "1"}]},
    "paused": {"spec/suspend": True},
    "no traffic": {"spec/traffic": DELETE, "spec/analysis": DELETE},
}


def stored(cluster: Cluster, namespace: str, base: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Create an object; return its path and its first version."""
    path = collection(str(base["kind"]), namespace)
    body = cluster.api.create(path, base, fieldValidation="Strict")
    return f"{path}/{body['metadata']['name']}", body


def predicted(edits: Mapping[str, Any]) -> list[str]:
    new, old = (load_experiment(yaml.safe_dump(body)) for body in (edited(BEFORE, edits), BEFORE))
    return forbidden_changes(new, old)


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_comparison_cannot_become_another_one(control_plane: Cluster, namespace: str, name: str) -> None:
    edits, place, sentence = FORBIDDEN[name]
    path, body = stored(control_plane, namespace, BEFORE)
    with pytest.raises(ApiError) as caught:
        control_plane.api.replace(path, edited(body, edits))
    assert caught.value.code == 422
    told = [message for field, message in causes(caught.value) if field == place]
    assert any(sentence in message for message in told), caught.value
    assert sentence in "\n".join(predicted(edits))
    assert control_plane.api.get(path)["spec"] == body["spec"]


@pytest.mark.parametrize("name", ALLOWED)
def test_a_running_comparison_can_be_steered(control_plane: Cluster, namespace: str, name: str) -> None:
    path, body = stored(control_plane, namespace, BEFORE)
    changed = control_plane.api.replace(path, edited(body, ALLOWED[name]))
    assert changed["metadata"]["generation"] == 2
    assert predicted(ALLOWED[name]) == []


def test_offline_cannot_be_added_later(control_plane: Cluster, namespace: str) -> None:
    path, body = stored(control_plane, namespace, edited(BEFORE, {"spec/offline": DELETE}))
    with pytest.raises(ApiError, match="`offline` must not be added or removed"):
        control_plane.api.replace(path, edited(body, {"spec/offline": {}}))


@pytest.mark.parametrize(
    "edits",
    [
        {"spec/baseModel/revision": "v2"},
        {"spec/artifacts/storageUri": "s3://models/elsewhere"},
        {"spec/experts": {"count": 7}},
        {"spec/serving/revision": "movies-7f3a"},
    ],
    ids=lambda edits: next(iter(edits)),
)
def test_everything_of_a_model_may_change(control_plane: Cluster, namespace: str, edits: dict[str, Any]) -> None:
    path, body = stored(control_plane, namespace, MINIMAL_MODEL)
    assert control_plane.api.replace(path, edited(body, edits))["metadata"]["generation"] == 2


def test_a_union_changes_sides_only_when_the_old_side_goes(control_plane: Cluster, namespace: str) -> None:
    """The default of `experts` is one side of its union; who merges in another side must get a clear refusal."""
    path, _ = stored(control_plane, namespace, MINIMAL_MODEL)
    with pytest.raises(ApiError, match="exactly one of `count`, `items` or `auto` must be set"):
        control_plane.api.patch(path, {"spec": {"experts": {"count": 3}}})
    changed = control_plane.api.patch(path, {"spec": {"experts": {"count": 3, "auto": None}}})
    assert changed["spec"]["experts"]["count"] == 3


def test_an_update_with_an_old_version_is_a_conflict(control_plane: Cluster, namespace: str) -> None:
    path, body = stored(control_plane, namespace, MINIMAL_MODEL)
    control_plane.api.patch(path, {"spec": {"suspend": True}})
    with pytest.raises(ApiError) as caught:
        control_plane.api.replace(path, edited(body, {"spec/suspend": False}))
    assert caught.value.code == 409
