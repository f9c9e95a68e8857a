# SPDX-License-Identifier: Apache-2.0
"""Who the operator is: a ServiceAccount whose token is replaced, a kubeconfig, or a clear refusal."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from thinkrec_operator.cluster.credentials import CredentialsMissing, load


@pytest.fixture
def account(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("first\n")
    (tmp_path / "ca.crt").write_text("certificate")
    return tmp_path


def in_cluster(host: str = "10.0.0.1") -> dict[str, str]:
    return {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": "6443"}


def test_a_replaced_token_is_used_at_once(account: Path) -> None:
    async def scenario() -> None:
        found = await load(in_cluster(), account=account)
        assert await found.token() == "first"
        (account / "new").write_text("second\n")
        os.replace(account / "new", account / "token")
        assert await found.token() == "second"

    asyncio.run(scenario())


def test_a_missing_token_is_named(account: Path) -> None:
    (account / "token").unlink()
    with pytest.raises(CredentialsMissing, match=r"token not found.*automountServiceAccountToken"):
        asyncio.run(load(in_cluster(), account=account))


def test_no_kubeconfig_is_told_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(CredentialsMissing, match="set KUBECONFIG"):
        asyncio.run(load({"KUBECONFIG": str(tmp_path / "none")}))
