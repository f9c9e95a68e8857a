# SPDX-License-Identifier: Apache-2.0
"""Plays the kubelet of one node without running anything: what becomes of each pod is a callback's word.

The real scheduler binds the pods (so quotas of extended resources count), the real Job and Deployment controllers make
and count them; this writes what a kubelet would: phases, container states, termination messages, addresses, the last
step of a deletion, the node's heartbeat; and it answers the API server when that is asked for a pod's log.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import itertools
import json
import secrets
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from embedded_cluster.certificates import Authority, Pair
from embedded_cluster.cluster import Cluster
from support import log_server
from support.loops import collect_sockets

Body = dict[str, Any]
NODE_CAPACITY = {"cpu": "1000", "memory": "4000Gi", "pods": "20000", "ephemeral-storage": "4000Gi"}
_HEARTBEAT_SECONDS = 10.0
_CONCURRENT = 16
_HELD_SECONDS = 0.05
_PATCH = {"Content-Type": "application/merge-patch+json"}
_SIGTERM_CODE = 143


@dataclass(frozen=True)
class Outcome:
    """What becomes of a pod."""

    exit_code: int | None = 0
    """Of every container; None: the containers keep running and are ready until the pod is deleted."""
    message: str = ""
    """Termination message of the first container."""
    reason: str = ""
    """Of the terminated state, for example OOMKilled; empty: Completed or Error, as the exit code says."""
    delay_seconds: float = 0.0
    """How long the pod runs before that."""
    log: str = ""
    """What `kubectl logs` shows, from the pod's start on."""
    held: Callable[[], bool] = bool
    """While it returns True, a pod that would end runs on, and one that would run is not started."""


def succeed_or_run(pod: Body) -> Outcome:
    """Return the default: pods of Jobs succeed at once, all others run."""
    owners = pod["metadata"].get("ownerReferences", [])
    return Outcome() if any(owner["kind"] == "Job" for owner in owners) else Outcome(exit_code=None)


class PretendKubelet:
    """A context manager; while it is open, the cluster has a ready node on which every pod goes as `outcome` says."""

    def __init__(
        self,
        cluster: Cluster,
        outcome: Callable[[Body], Outcome] = succeed_or_run,
        *,
        node: str = "pretend",
        capacity: Mapping[str, str] | None = None,
    ) -> None:
        self.outcome = outcome
        """May be replaced at any time; it is asked once per pod."""
        self.node = node
        self.ran: list[str] = []
        """`namespace/name` of every pod that was started, in that order."""
        self._cluster = cluster
        self._capacity = {**NODE_CAPACITY, **(capacity or {})}
        self._addresses = itertools.count(2)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ending: set[str] = set()
        self._logs: dict[tuple[str, str], str] = {}
        self._errors: list[BaseException] = []
        self._started = threading.Event()

    def __enter__(self) -> PretendKubelet:
        with contextlib.ExitStack() as stack:
            self._port = stack.enter_context(log_server.serving(self._log, self._certificate()))
            self._close_logs = stack.pop_all()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=f"kubelet of {self.node}", daemon=True)
        self._thread.start()
        assert self._started.wait(30), "the pretended kubelet does not start"
        self._raise()
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(RuntimeError):  # it has ended by itself, with an error that is raised below
            self._loop.call_soon_threadsafe(self._main.cancel)
        self._thread.join(30)
        collect_sockets()
        self._close_logs.close()
        self._cluster.api.delete(f"/api/v1/nodes/{self.node}")
        if error[0] is None:
            self._raise()

    def set_capacity(self, **quantities: str | None) -> None:
        """Change what the node offers, for example `**{"nvidia.com/gpu": "2"}`; None takes a resource away."""
        status = {"capacity": quantities, "allocatable": quantities}
        self._cluster.api.patch(f"/api/v1/nodes/{self.node}/status", {"status": status})

    def set_log(self, pod: Body, text: str) -> None:
        """Change what a running pod has written so far."""
        self._logs[pod["metadata"]["namespace"], pod["metadata"]["name"]] = text

    def _log(self, namespace: str, name: str) -> str | None:
        return self._logs.get((namespace, name))

    def _certificate(self) -> Pair:
        authority = Authority.load(self._cluster.state.certificates)
        return authority.issue(f"pretend-{secrets.token_hex(4)}", f"system:node:{self.node}", hosts=["127.0.0.1"])

    def _raise(self) -> None:
        if self._errors:
            raise AssertionError(f"the pretended kubelet failed: {self._errors[0]!r}") from self._errors[0]

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._main = self._loop.create_task(self._serve())
        try:
            self._loop.run_until_complete(self._main)
        except asyncio.CancelledError:
            pass
        except Exception as error:  # whatever it is belongs to the test that uses this, not to this thread
            self._errors.append(error)
        finally:
            self._started.set()
            self._loop.close()

    async def _serve(self) -> None:
        trust = ssl.create_default_context(cafile=str(self._cluster.authority))
        headers = {"Authorization": f"Bearer {self._cluster.token}"}
        url = self._cluster.url
        async with httpx.AsyncClient(
            base_url=url, verify=trust, headers=headers, timeout=30, trust_env=False
        ) as client:
            self._client = client
            self._limit = asyncio.Semaphore(_CONCURRENT)
            await self._register()
            self._started.set()
            beating = asyncio.create_task(self._beat())
            try:
                while True:
                    await self._follow()
            finally:
                unfinished = [beating, *self._tasks.values()]
                for task in unfinished:
                    task.cancel()
                await asyncio.gather(*unfinished, return_exceptions=True)

    async def _register(self) -> None:
        labels = {"kubernetes.io/hostname": self.node, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
        body = {"metadata": {"name": self.node, "labels": labels}}
        answer = await self._client.post("/api/v1/nodes", json=body)
        assert answer.status_code in (201, 409), answer.text
        await self._report_ready()

    async def _report_ready(self) -> None:
        """Write the node's status; its heartbeat counts as the kubelet's."""
        conditions = [
            {"type": "Ready", "status": "True", "reason": "KubeletReady"},
            {"type": "MemoryPressure", "status": "False", "reason": "KubeletHasSufficientMemory"},
        ]
        status: Body = {"conditions": [{**each, "lastHeartbeatTime": _now()} for each in conditions]}
        if not self._started.is_set():
            status |= {"capacity": self._capacity, "allocatable": self._capacity}
            status["addresses"] = [{"type": "InternalIP", "address": "127.0.0.1"}]
            status["daemonEndpoints"] = {"kubeletEndpoint": {"Port": self._port}}
        path = f"/api/v1/nodes/{self.node}/status"
        answer = await self._client.patch(path, json={"status": status}, headers=_PATCH)
        assert answer.is_success, answer.text

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(_HEARTBEAT_SECONDS)
            with contextlib.suppress(httpx.TransportError, AssertionError):  # the API server is being restarted
                await self._report_ready()

    async def _follow(self) -> None:
        """List the node's pods, then watch them until the connection ends."""
        try:
            query = {"fieldSelector": f"spec.nodeName={self.node}"}
            found = await self._client.get("/api/v1/pods", params=query)
            found.raise_for_status()
            for pod in found.json()["items"]:
                self._see(pod)
            version = found.json()["metadata"]["resourceVersion"]
            async for event in self._watch({**query, "watch": "1", "resourceVersion": version}):
                if event["type"] in ("ADDED", "MODIFIED"):
                    self._see(event["object"])
                elif event["type"] == "ERROR":
                    return
        except (httpx.TransportError, httpx.HTTPStatusError):
            await asyncio.sleep(0.2)  # the API server is being restarted, or refuses on purpose

    async def _watch(self, query: Mapping[str, str]) -> AsyncIterator[Body]:
        async with self._client.stream("GET", "/api/v1/pods", params=query, timeout=None) as answer:
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                if line:
                    yield json.loads(line)

    def _see(self, pod: Body) -> None:
        """Start what a new pod needs, or what a deletion needs; once each."""
        uid = pod["metadata"]["uid"]
        if "deletionTimestamp" in pod["metadata"]:
            if uid not in self._ending:
                self._ending.add(uid)
                self._spawn(f"end {uid}", self._end(pod))
        elif uid not in self._tasks and pod.get("status", {}).get("phase") == "Pending":
            self.ran.append(f"{pod['metadata']['namespace']}/{pod['metadata']['name']}")
            outcome = self.outcome(pod)
            self.set_log(pod, outcome.log)
            self._spawn(uid, self._go(pod, outcome))

    def _spawn(self, key: str, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks[key] = task
        task.add_done_callback(self._note)

    def _note(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._errors.append(error)

    async def _go(self, pod: Body, outcome: Outcome) -> None:
        address = f"10.250.{(n := next(self._addresses)) // 250 % 250}.{n % 250 + 1}"
        base = {"podIP": address, "podIPs": [{"ip": address}], "hostIP": "127.0.0.1", "startTime": _now()}
        if outcome.exit_code is None:
            await _let_go(outcome)
        if outcome.exit_code is None or outcome.delay_seconds or outcome.held():
            await self._write(pod, {**base, **_running(pod)})
            await asyncio.sleep(outcome.delay_seconds)
            await _let_go(outcome)
        if outcome.exit_code is not None:
            await self._write(pod, {**base, **_terminated(pod, outcome)})

    async def _end(self, pod: Body) -> None:
        running = self._tasks.get(pod["metadata"]["uid"])
        if running is not None:
            running.cancel()
        if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
            await self._write(pod, _terminated(pod, Outcome(exit_code=_SIGTERM_CODE)))
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod["metadata"]["uid"]}}
        await self._send("DELETE", _path(pod), json=body)

    async def _write(self, pod: Body, status: Body) -> None:
        await self._send("PATCH", f"{_path(pod)}/status", json={"status": status}, headers=_PATCH)

    async def _send(self, method: str, path: str, **arguments: Any) -> None:
        """Send a request, again and again while the API server is away; a pod that is gone is no error."""
        while True:
            try:
                async with self._limit:
                    answer = await self._client.request(method, path, **arguments)
                if answer.status_code < 429:
                    assert answer.is_success or answer.status_code in (404, 409), f"{method} {path}: {answer.text}"
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.2)


def _path(pod: Body) -> str:
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _conditions(**values: bool) -> list[Body]:
    return [{"type": name, "status": str(value), "lastTransitionTime": _now()} for name, value in values.items()]


def _statuses(containers: list[Body], state: Body, *, ready: bool) -> list[Body]:
    started = "running" in state
    common = {"ready": ready, "started": started, "restartCount": 0, "imageID": "", "state": state}
    return [{**common, "name": each["name"], "image": each.get("image", "")} for each in containers]


def _prepared(pod: Body) -> list[Body]:
    done = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": _now(), "finishedAt": _now()}}
    return _statuses(pod["spec"].get("initContainers", []), done, ready=True)


async def _let_go(outcome: Outcome) -> None:
    while outcome.held():
        await asyncio.sleep(_HELD_SECONDS)


def _running(pod: Body) -> Body:
    return {
        "phase": "Running",
        "conditions": _scheduled(Initialized=True, ContainersReady=True, Ready=True),
        "initContainerStatuses": _prepared(pod),
        "containerStatuses": _statuses(pod["spec"]["containers"], {"running": {"startedAt": _now()}}, ready=True),
    }


def _terminated(pod: Body, outcome: Outcome) -> Body:
    reason = outcome.reason or ("Completed" if outcome.exit_code == 0 else "Error")
    state = {"exitCode": outcome.exit_code, "reason": reason, "startedAt": _now(), "finishedAt": _now()}
    first, *others = pod["spec"]["containers"]
    return {
        "phase": "Succeeded" if outcome.exit_code == 0 else "Failed",
        "conditions": _scheduled(Initialized=True, ContainersReady=False, Ready=False),
        "initContainerStatuses": _prepared(pod),
        "containerStatuses": [
            *_statuses([first], {"terminated": {**state, "message": outcome.message}}, ready=False),
            *_statuses(others, {"terminated": state}, ready=False),
        ],
    }


def _scheduled(**values: bool) -> list[Body]:
    return _conditions(PodScheduled=True, **values)
