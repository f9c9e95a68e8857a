# SPDX-License-Identifier: Apache-2.0
"""The operator process against a real apiserver, Job controller and scheduler; only the containers are pretended."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from embedded_cluster.cluster import Cluster

from support.manifests import MINIMAL_MODEL
from support.operator_process import operator
from support.pretend_kubelet import PretendKubelet
from support.pretend_stages import PretendStages
from support.waiting import wait_for

MODELS = "/apis/thinkrec.io/v1alpha1/namespaces/{}/thinkrecmodels"


def manifest(name: str = "movies", **spec: Any) -> dict[str, Any]:
    body = copy.deepcopy(dict(MINIMAL_MODEL))
    body["metadata"]["name"] = name
    body["spec"] |= {"experts": {"count": 2}, **spec}
    return body


def conditions(model: dict[str, Any]) -> dict[str, str]:
    return {item["type"]: item["status"] for item in model.get("status", {}).get("conditions", [])}


def test_a_model_is_trained_gated_and_served(control_plane: Cluster, namespace: str, tmp_path: Path) -> None:
    api, path = control_plane.api, MODELS.format(namespace)
    with (
        PretendKubelet(control_plane, PretendStages()) as kubelet,
        operator(control_plane.kubeconfig, tmp_path / "operator.log", namespaces=namespace),
    ):
        api.create(path, manifest())
        wait_for(
            lambda: conditions(api.get(f"{path}/movies")).get("Ready") == "True",
            f"the model to be Ready; see {tmp_path}/operator.log",
            seconds=60,
        )
        model = api.get(f"{path}/movies")
        jobs = api.items(f"/apis/batch/v1/namespaces/{namespace}/jobs")
    assert {job["metadata"]["labels"]["thinkrec.io/stage"] for job in jobs} >= {"dataset", "expert", "evaluate"}
    assert len(jobs) == 11
    assert model["status"]["servingRevision"] == model["status"]["latestRevision"]
    assert kubelet.ran, "nothing ran"
