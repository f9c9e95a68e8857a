# SPDX-License-Identifier: Apache-2.0
"""Every example of our kinds is accepted, survives the way there and back, and applied again changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from embedded_cluster.cluster import Cluster
from support.manifests import MINIMAL_EXPERIMENT, MINIMAL_MODEL
from support.thinkrec_api import collection
from thinkrec_crds import group
from thinkrec_crds.experiment import ThinkRecExperiment
from thinkrec_crds.model import ThinkRecModel
from thinkrec_crds.validation import load_documents

EXAMPLES_FOLDER = Path(__file__).resolve().parents[2] / "examples"
TYPES: dict[str, type[ThinkRecModel] | type[ThinkRecExperiment]] = {
    group.MODEL_KIND: ThinkRecModel,
    group.EXPERIMENT_KIND: ThinkRecExperiment,
}


def examples() -> list[Any]:
    """Return each of our objects in the examples, and the smallest ones, named by where they stand."""
    found = [pytest.param(dict(body), id=body["kind"]) for body in (MINIMAL_MODEL, MINIMAL_EXPERIMENT)]
    for path in sorted(EXAMPLES_FOLDER.rglob("*.yaml")):
        name = str(path.relative_to(EXAMPLES_FOLDER))
        if any(part.startswith(".") for part in Path(name).parts):  # what running an example left beside it
            continue
        for index, body in enumerate(yaml.safe_load_all(path.read_text("utf-8"))):
            if body and body.get("apiVersion") == group.API_VERSION:
                found.append(pytest.param(body, id=f"{name}-{index}"))
    return found


def in_namespace(body: dict[str, Any], namespace: str) -> dict[str, Any]:
    return {**body, "metadata": {**body["metadata"], "namespace": namespace}}


@pytest.mark.parametrize("body", examples())
def test_an_example_is_accepted_and_comes_back_as_the_same(
    control_plane: Cluster, namespace: str, body: dict[str, Any]
) -> None:
    api, path, body = control_plane.api, collection(body["kind"], namespace), in_namespace(body, namespace)
    api.create(path, body, fieldValidation="Strict", dryRun="All")
    assert api.items(path) == []
    created = api.create(path, body, fieldValidation="Strict")
    (meant,) = load_documents(yaml.safe_dump(body))
    stored = TYPES[body["kind"]].model_validate(created)
    assert stored.spec == meant.spec
    assert stored.spec.model_dump(mode="json", by_alias=True, exclude_none=True) == created["spec"]


@pytest.mark.parametrize("body", examples())
def test_applied_again_it_changes_nothing(control_plane: Cluster, namespace: str, body: dict[str, Any]) -> None:
    api, body = control_plane.api, in_namespace(body, namespace)
    path = f"{collection(body['kind'], namespace)}/{body['metadata']['name']}"
    first, second, third = (api.apply(path, body, manager="argocd") for _ in range(3))
    assert first["spec"] == second["spec"]
    assert second == third, "the first repetition may still tidy managedFields; from then on nothing is written"
    assert third["metadata"]["generation"] == 1
    assert api.replace(path, third) == third
