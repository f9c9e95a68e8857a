# SPDX-License-Identifier: Apache-2.0
"""A running operator whose token is replaced, and the old one revoked: calls and watches go on with the new one."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from embedded_cluster.api import ApiError
from embedded_cluster.cluster import Cluster
from support import operator_in_pod
from support.models import condition, model_manifest, models_path
from support.operator_account import revocable_token
from support.operator_process import OperatorProcess
from support.pretend_kubelet import PretendKubelet
from support.pretend_stages import PretendStages
from support.waiting import wait_for

EXPERTS = {"count": 2}
SECONDS = 90


def test_a_running_operator_goes_on_with_the_token_that_took_the_place_of_its_own(
    control_plane: Cluster, namespace: str, tmp_path: Path
) -> None:
    api, models = control_plane.api, models_path(namespace)
    account = tmp_path / "account"
    account.mkdir()
    (account / "ca.crt").write_bytes(control_plane.authority.read_bytes())

    def is_ready(name: str) -> bool:
        return condition(api.get(f"{models}/{name}"), "Ready") == "True"

    with ExitStack() as stack:
        stack.enter_context(PretendKubelet(control_plane, PretendStages()))
        second = stack.enter_context(revocable_token(control_plane, f"{namespace}-second"))
        with revocable_token(control_plane, f"{namespace}-first") as old:
            (account / "token").write_text(old)
            process = _operator(control_plane, namespace, account, tmp_path)
            stack.callback(process.kill)
            process.start()
            process.wait_ready()
            api.create(models, model_manifest("before", experts=EXPERTS))
            wait_for(lambda: is_ready("before"), "the first model to be Ready", seconds=SECONDS)
            (account / "new").write_text(second)
            (account / "new").replace(account / "token")  # as the kubelet does
        wait_for(lambda: _is_refused(control_plane, old), "the old token to be worth nothing", seconds=60)
        control_plane.restart_apiserver()  # every watch ends, and has to be let in again
        api.create(models, model_manifest("after", experts=EXPERTS))
        wait_for(lambda: is_ready("after"), f"the second model to be Ready; see {process.log}", seconds=SECONDS)
        assert process.poll() is None


def _operator(cluster: Cluster, namespace: str, account: Path, folder: Path) -> OperatorProcess:
    address = urlsplit(cluster.url)
    environment = {
        "KUBERNETES_SERVICE_HOST": str(address.hostname),
        "KUBERNETES_SERVICE_PORT": str(address.port),
        "THINKREC_NAMESPACES": namespace,
    }
    run = (str(operator_in_pod.__file__), str(account))
    return OperatorProcess(folder / "no-kubeconfig", folder / "operator.log", environment, run=run)


def _is_refused(cluster: Cluster, token: str) -> bool:
    client = cluster.client(token)
    try:
        client.get("/api/v1/namespaces/default")
    except ApiError as error:
        return error.code == 401
    finally:
        client.close()
    return False
