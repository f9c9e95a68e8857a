# SPDX-License-Identifier: Apache-2.0
"""The operator process against a real apiserver, Job controller and scheduler; only the containers are pretended."""

from __future__ import annotations

from pathlib import Path

from embedded_cluster.cluster import Cluster
from support.models import condition, model_manifest, models_path
from support.operator_process import operator
from support.pretend_kubelet import PretendKubelet
from support.pretend_stages import PretendStages
from support.waiting import wait_for


def test_a_model_is_trained_gated_and_served(control_plane: Cluster, namespace: str, tmp_path: Path) -> None:
    api, path = control_plane.api, models_path(namespace)
    with (
        PretendKubelet(control_plane, PretendStages()) as kubelet,
        operator(control_plane.kubeconfig, tmp_path / "operator.log", namespaces=namespace),
    ):
        api.create(path, model_manifest(experts={"count": 2}))
        wait_for(
            lambda: condition(api.get(f"{path}/movies"), "Ready") == "True",
            f"the model to be Ready; see {tmp_path}/operator.log",
            seconds=60,
        )
        model = api.get(f"{path}/movies")
        jobs = api.items(f"/apis/batch/v1/namespaces/{namespace}/jobs")
    assert {job["metadata"]["labels"]["thinkrec.io/stage"] for job in jobs} >= {"dataset", "expert", "evaluate"}
    assert len(jobs) == 11
    assert model["status"]["servingRevision"] == model["status"]["latestRevision"]
    assert kubelet.ran, "nothing ran"
