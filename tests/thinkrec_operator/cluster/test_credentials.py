# SPDX-License-Identifier: Apache-2.0
"""Who the operator is: a ServiceAccount whose token is replaced, a kubeconfig, or a clear refusal."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiohttp import web

from thinkrec_operator.cluster.credentials import CredentialsMissing, environment_proxy, load


@pytest.fixture
def account(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("first\n")
    (tmp_path / "ca.crt").write_text("certificate")
    return tmp_path


def in_cluster(host: str = "10.0.0.1") -> dict[str, str]:
    return {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": "6443"}


def kubeconfig(folder: Path, server: str, proxy: str) -> Path:
    named = {
        "clusters": [{"name": "far", "cluster": {"server": server, "proxy-url": proxy}}],
        "users": [{"name": "caller", "user": {"token": "t"}}],
        "contexts": [{"name": "far", "context": {"cluster": "far", "user": "caller"}}],
    }
    written = folder / "kubeconfig"
    written.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", "current-context": "far", **named}))
    return written


def test_a_replaced_token_is_used_at_once(account: Path) -> None:
    async def scenario() -> None:
        found = await load(in_cluster(), account=account)
        assert await found.token() == "first"
        (account / "new").write_text("second\n")
        os.replace(account / "new", account / "token")
        assert await found.token() == "second"

    asyncio.run(scenario())


def test_the_proxy_of_the_environment_is_looked_up_once_and_for_both_sessions(
    account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "10.0.0.2,.internal")

    async def scenario() -> None:
        found = await load(in_cluster(), account=account)
        assert found.configuration.proxy == "http://proxy.example:3128"
        assert found.configuration.client_session_kwargs == {"trust_env": False}
        assert (await load(in_cluster("10.0.0.2"), account=account)).configuration.proxy is None

    asyncio.run(scenario())
    assert environment_proxy("https://api.internal:6443") is None
    assert environment_proxy("http://10.0.0.1:8001") is None  # there is a proxy for https only


def test_watches_go_through_the_proxy_that_the_kubeconfig_names(tmp_path: Path) -> None:
    asked: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        asked.append(str(request.url))
        return web.Response()

    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            runner = web.ServerRunner(web.Server(answer))
            stack.push_async_callback(runner.cleanup)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            proxy = f"http://127.0.0.1:{runner.addresses[0][1]}"
            found = await load({"KUBECONFIG": str(kubeconfig(tmp_path, "http://api.example:8001", proxy))})
            session = found.for_kopf().aiohttp_session
            stack.push_async_callback(session.close)
            async with session.get("http://api.example:8001/version") as told:
                assert told.status == 200

    asyncio.run(scenario())
    assert asked == ["http://api.example:8001/version"]


def test_a_missing_token_is_named(account: Path) -> None:
    (account / "token").unlink()
    with pytest.raises(CredentialsMissing, match=r"token not found.*automountServiceAccountToken"):
        asyncio.run(load(in_cluster(), account=account))


def test_no_kubeconfig_is_told_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(CredentialsMissing, match="set KUBECONFIG"):
        asyncio.run(load({"KUBECONFIG": str(tmp_path / "none")}))
