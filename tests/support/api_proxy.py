# SPDX-License-Identifier: Apache-2.0
"""A proxy before the real apiserver that counts writes, injects refusals, and breaks watches, all on demand.

It speaks plain HTTP on the loopback and passes the caller's bearer token on, so that the rights are the caller's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

from embedded_cluster.cluster import Cluster
from support.loops import collect_sockets
from support.waiting import wait_for

_WRITES = ("POST", "PUT", "PATCH", "DELETE")
_DROPPED = frozenset({"host", "transfer-encoding", "content-length", "connection", "content-encoding"})


@dataclass(frozen=True)
class Write:
    """One write that reached the apiserver."""

    number: int
    """From 1."""
    method: str
    path: str
    status: int
    body: Any = field(repr=False, compare=False, default=None)


@dataclass
class Fault:
    """An answer that the proxy gives itself, instead of passing the request on."""

    status: int
    times: int
    matches: Callable[[str, str], bool] = lambda method, path: True
    """Method and path of the requests it is for; the path of a watch ends with `?watch`."""
    retry_after: float | None = None
    reason: str = "Injected"
    seen: int = 0


class ApiProxy:
    """A context manager; `kubeconfig(path)` writes how to reach it."""

    def __init__(self, cluster: Cluster, *, token: str = "") -> None:
        self.writes: list[Write] = []
        self.reads: list[tuple[str, str]] = []
        """Method and path of every GET but watches."""
        self.faults: list[Fault] = []
        self.after_write: Callable[[Write], None] | None = None
        """Called after the apiserver has answered and before the caller hears of it."""
        self.held_watches: set[str] = set()
        """Kinds (plural) whose watches stay open and deliver nothing."""
        self.held_answers: set[tuple[str, str]] = set()
        """Methods and paths of writes that take effect, and whose callers hear nothing of it meanwhile."""
        self._cluster = cluster
        self._token = token or cluster.token
        self._watches: set[asyncio.Task[Any]] = set()
        self._errors: set[asyncio.Queue[bytes]] = set()
        self._started = threading.Event()
        self._writes_under_way = 0

    def kubeconfig(self, path: Path) -> Path:
        """Write a kubeconfig whose server is this proxy."""
        named = {
            "clusters": [{"name": "proxy", "cluster": {"server": self.url}}],
            "users": [{"name": "caller", "user": {"token": self._token}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "caller"}}],
        }
        path.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", "current-context": "proxy", **named}))
        return path

    def __enter__(self) -> ApiProxy:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="api-proxy", daemon=True)
        self._thread.start()
        assert self._started.wait(10), "the proxy does not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(10)
        collect_sockets()

    def writes_within(self, seconds: float) -> list[Write]:
        """Wait that long; return the writes that began meanwhile.

        What the apiserver shows already may still be under way back to its caller, and is noted only then: it began
        before, and is waited for first.
        """
        wait_for(lambda: not self._writes_under_way, "the writes under way to be answered")
        before = len(self.writes)
        time.sleep(seconds)
        return self.writes[before:]

    def drop_watches(self) -> None:
        """Close every open watch, as a load balancer does."""
        for task in tuple(self._watches):
            self._loop.call_soon_threadsafe(task.cancel)

    def expire_watches(self) -> None:
        """End every open watch with the event that asks for a new list (410 Gone)."""
        status = {"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old"}
        line = json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"
        for queue in tuple(self._errors):
            self._loop.call_soon_threadsafe(queue.put_nowait, line)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.run_until_complete(_end_all_tasks())
        self._loop.close()

    async def _serve(self) -> None:
        self._stopped = asyncio.Event()
        trust = ssl.create_default_context(cafile=str(self._cluster.authority))
        app = web.Application(client_max_size=16 * 2**20)
        app.router.add_route("*", "/{tail:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        timeout = aiohttp.ClientTimeout(total=None, connect=10)
        connector = aiohttp.TCPConnector(ssl=trust, limit=0)
        async with aiohttp.ClientSession(self._cluster.url, connector=connector, timeout=timeout) as self._upstream:
            self._started.set()
            await self._stopped.wait()
            for task in tuple(self._watches):
                task.cancel()
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        watch = request.query.get("watch") in ("true", "1")
        path = f"{request.path}?watch" if watch else request.path
        fault = next((f for f in self.faults if f.seen < f.times and f.matches(request.method, path)), None)
        if fault is not None:
            fault.seen += 1
            return _refusal(fault)
        if watch:
            return await self._watch(request)
        return await self._pass_on(request)

    async def _pass_on(self, request: web.Request) -> web.Response:
        body = await request.read()
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _DROPPED}
        write = request.method in _WRITES
        self._writes_under_way += write
        try:
            async with self._upstream.request(
                request.method, request.rel_url, data=body or None, headers=headers
            ) as answer:
                content, status, given = await answer.read(), answer.status, answer.headers
            if write:
                self._note(request, body, status)
        except aiohttp.ClientError as error:
            return web.Response(status=502, text=str(error))
        finally:
            self._writes_under_way -= write
        if write:
            while (request.method, request.path) in self.held_answers:
                await asyncio.sleep(0.05)
        else:
            self.reads.append((request.method, request.path))
        kept = {name: value for name, value in given.items() if name.lower() not in _DROPPED}
        return web.Response(status=status, body=content, headers=kept)

    def _note(self, request: web.Request, body: bytes, status: int) -> None:
        parsed = None
        with contextlib.suppress(ValueError):
            parsed = json.loads(body)
        write = Write(len(self.writes) + 1, request.method, request.path, status, parsed)
        self.writes.append(write)
        if self.after_write is not None:
            self.after_write(write)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        task, errors = asyncio.current_task(), asyncio.Queue[bytes]()
        assert task is not None, "a handler is a task"
        self._watches.add(task)
        self._errors.add(errors)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _DROPPED}
        try:
            async with self._upstream.get(request.rel_url, headers=headers) as answer:
                if answer.status != 200:
                    return web.Response(status=answer.status, body=await answer.read())
                await response.prepare(request)
                await self._stream(answer, response, errors, request.path.rpartition("/")[2])
        except asyncio.CancelledError:  # drop_watches: the caller sees its connection end
            if request.transport is not None:
                request.transport.abort()
        except (aiohttp.ClientError, ConnectionResetError):
            pass  # one of the two sides went away
        finally:
            self._watches.discard(task)
            self._errors.discard(errors)
        return response

    async def _stream(
        self, answer: aiohttp.ClientResponse, response: web.StreamResponse, errors: asyncio.Queue[bytes], plural: str
    ) -> None:
        ending = asyncio.ensure_future(errors.get())
        reading = asyncio.ensure_future(answer.content.readany())
        try:
            while True:
                await asyncio.wait({ending, reading}, return_when=asyncio.FIRST_COMPLETED)
                if ending.done():
                    await response.write(ending.result())
                    return
                chunk = reading.result()
                if not chunk:
                    return
                while plural in self.held_watches:
                    await asyncio.sleep(0.05)
                await response.write(chunk)
                reading = asyncio.ensure_future(answer.content.readany())
        finally:
            ending.cancel()
            reading.cancel()


async def _end_all_tasks() -> None:
    """Let what is still open close, so that no socket outlives the loop."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.sleep(0.1)


def _refusal(fault: Fault) -> web.Response:
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": fault.status}
    headers = {"Retry-After": str(fault.retry_after)} if fault.retry_after is not None else None
    body = {**status, "reason": fault.reason, "message": f"injected {fault.status}"}
    return web.json_response(body, status=fault.status, headers=headers)
