# SPDX-License-Identifier: Apache-2.0
"""Kopf's LIST calls ask for nothing; the objects come from our own list. On a plain HTTP server and on the real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from kubernetes.aio.client import Configuration

from embedded_cluster.cluster import Cluster
from support.models import model_manifest, models_path
from thinkrec_operator.cluster import credentials, resources
from thinkrec_operator.cluster.api import Api
from thinkrec_operator.cluster.credentials import Credentials
from thinkrec_operator.cluster.echo import Echo
from thinkrec_operator.cluster.listing import Listing, listed_kind
from thinkrec_operator.cluster.metrics import Metrics
from thinkrec_operator.cluster.resync import Resync
from thinkrec_operator.cluster.view import View
from thinkrec_operator.cluster.workqueue import Key

PATIENCE = 30


@asynccontextmanager
async def server(answer: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[str]:
    """Answer every request; yield the address."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield str(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def test_each_request_of_kopf_bears_the_token_of_its_moment(tmp_path: Path) -> None:
    seen: list[str | None] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        return web.json_response({})

    async def scenario() -> None:
        token = tmp_path / "token"
        async with server(answer) as port:
            configuration = Configuration()
            configuration.host = f"http://127.0.0.1:{port}"
            token.write_text("first")
            session = Credentials(configuration, token).for_kopf().aiohttp_session
            async with session:
                for text in ("first", "second"):
                    (tmp_path / "new").write_text(text)
                    (tmp_path / "new").replace(token)
                    (await session.get(f"{configuration.host}/api")).release()

    asyncio.run(scenario())
    assert seen == ["Bearer first", "Bearer second"]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/apis/thinkrec.io/v1alpha1/thinkrecmodels?limit=500", (resources.MODEL, None)),
        ("/apis/batch/v1/namespaces/shop/jobs?labelSelector=a", (resources.JOB, "shop")),
        ("/api/v1/pods", (resources.POD, None)),
        ("/api/v1/pods?watch=true", None),
        ("/api/v1/namespaces/shop/pods/one", None),
        ("/apis/batch/v1", None),
        ("/api", None),
    ],
)
def test_only_lists_of_watched_kinds_are_taken(path: str, found: tuple[resources.Resource, str | None] | None) -> None:
    taken: list[object] = []

    async def look(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        taken.append(listed_kind(request))
        return await handler(request)

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({})

    async def scenario() -> None:
        async with server(answer) as port, aiohttp.ClientSession(middlewares=(look,)) as session:
            (await session.get(f"http://127.0.0.1:{port}{path}")).release()

    asyncio.run(scenario())
    assert taken == [found]


def test_kopf_gets_no_objects_and_the_position_of_our_own_list(
    control_plane: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First the position of the barrier; later, after a broken watch, that of now with a list of our own behind it."""
    api, path = control_plane.api, models_path(namespace)
    monkeypatch.setenv("KUBECONFIG", str(control_plane.kubeconfig))
    api.create(path, model_manifest("one"))
    due: list[Key] = []

    async def scenario() -> None:
        view, metrics = View(), Metrics()
        proof = await credentials.load()
        ours = Api(proof, metrics)
        resync = Resync(ours, view, (namespace,), Echo(metrics, lambda: 0.0))
        await resync.run()
        listing = Listing([(resync, due.append)])
        async with proof.for_kopf(listing).aiohttp_session as session:

            async def kopf_lists() -> int:
                query = {"limit": "500"}
                async with session.get(f"{proof.configuration.host}{path}", params=query) as response:
                    told = await response.json()
                    assert (response.status, told["items"]) == (200, [])
                    return int(told["metadata"]["resourceVersion"])

            first = view.model((namespace, "one"))
            api.create(path, model_manifest("two"))
            api.delete(f"{path}/one")
            barrier = await kopf_lists()
            assert first is not None
            assert barrier >= first.version  # and before what came after it, so that the watch tells it
            assert (namespace, "two") not in set(view)
            now = await kopf_lists()
            assert now > barrier
            async with asyncio.timeout(PATIENCE):
                while set(view) != {(namespace, "two")} or len(due) < 2:
                    await asyncio.sleep(0.05)
        await listing.close()
        await ours.close()

    asyncio.run(scenario())
    assert sorted(due) == [(namespace, "one"), (namespace, "two")]
