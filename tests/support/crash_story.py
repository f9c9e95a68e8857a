# SPDX-License-Identifier: Apache-2.0
"""Runs of an operator that is killed after chosen writes, and whether two of them came to the same.

SIGKILL comes after the apiserver has done a write and before the operator hears of it. A run is a Story; what is there
when it has become quiet is a State.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedded_cluster.api import Api
from embedded_cluster.cluster import Cluster
from support import final_state
from support.api_proxy import ApiProxy, Write
from support.forked_operator import ForkedOperator, kept_running
from support.kube import fresh_namespace
from support.models import models_path
from support.operator_account import token
from support.pretend_kubelet import PretendKubelet
from support.pretend_stages import PretendStages
from support.waiting import wait_for
from thinkrec_operator.names import short_hash

SECONDS = 120
QUIET_SECONDS = 0.5
"""So long nothing was written by an operator that has listed everything."""
FIRST_QUIET_SECONDS = 1.5
"""The same where nothing says yet what the end looks like."""
ASK_SECONDS = 1.0
"""Between two questions for the same thing."""

Kill = Callable[[Sequence[str]], bool]
"""Whether the operator is killed now, given the writes so far."""


def never(writes: Sequence[str]) -> bool:
    """Let it live."""
    return False


def always(writes: Sequence[str]) -> bool:
    """Kill it after each write."""
    return True


def after_number(number: int) -> Kill:
    """Kill it after that write, from 1."""
    return lambda writes: len(writes) == number


def after(write: str, time_: int) -> Kill:
    """Kill it after it wrote this for that time, from 1."""
    return lambda writes: writes[-1] == write and writes.count(write) == time_


@dataclass(frozen=True)
class State:
    """Everything a model has, and everything that was done for it."""

    objects: dict[str, Any]
    status: dict[str, Any]
    events: Counter[str]
    pods: Counter[str]
    """Name without its random part -> Pods that were started: of a Job (and index), or of a Deployment's version."""


class Story:
    """One run in a namespace of its own."""

    def __init__(self, api: Api, namespace: str, *, operator: ForkedOperator, world: World) -> None:
        self.api = api
        self.namespace = namespace
        self.model = f"{models_path(namespace)}/movies"
        self.writes: list[str] = []
        """Those since `begin` that took effect."""
        self.kills: list[str] = []
        """Those of them after which the operator was killed."""
        self.operator = operator
        self.stages = world.stages
        self._kubelet = world.kubelet
        self._kill: Kill = never
        self._changed = time.monotonic()
        self._known_starts = 0
        self._crashes = 0
        self._uid = ""

    def begin(self, kill: Kill = never) -> None:
        """Count writes from here on, and kill the operator after some of them."""
        self.writes, self.kills, self._kill = [], [], kill

    def note(self, write: Write) -> None:
        """Count a write that took effect; kill where it is time, before the operator hears of its success."""
        if write.status >= 300:
            return
        self._changed = time.monotonic()
        self.writes.append(self._named(write))
        if self._kill(self.writes):
            self.kills.append(self.writes[-1])
            self._crashes += 1
            self.operator.kill()

    def _named(self, write: Write) -> str:
        """Return what was written, as it is called in every run."""
        path = write.path.replace(self.namespace, "NAMESPACE")
        if write.method == "POST":
            event = path.endswith("/events")
            path += "/" + (write.body["reason"] if event else write.body["metadata"]["name"])
        return f"{write.method} {path.replace(short_hash(self._uid), 'UID')}"

    def settled(self, done: Callable[[], bool], wanted: State | None, what: str) -> State:
        """Wait until the run is done and quiet, and as wanted where that is told; return what there is then.

        A run that ends otherwise is returned as it is after a long time, for the caller to say how it differs.
        """
        pause, asked = (FIRST_QUIET_SECONDS if wanted is None else QUIET_SECONDS), 0.0

        def is_done() -> bool:
            """Ask when something was written since the last time, else seldom: each question costs the apiserver."""
            nonlocal asked
            if not self._quiet(pause) or self._changed < asked > time.monotonic() - ASK_SECONDS:
                return False
            asked = time.monotonic()
            return done()

        wait_for(is_done, f"{what}; see {self.operator.log}", seconds=SECONDS)
        deadline = time.monotonic() + SECONDS / 4
        while True:
            state = self.state()
            as_wanted = wanted is None or not differences(state, wanted)
            if (as_wanted and self._quiet(pause)) or time.monotonic() > deadline:
                return state
            time.sleep(0.2)

    def state(self) -> State:
        """Return what there is now, but for the model's uid, after which some things are named."""
        ran = [name.partition("/")[2] for name in tuple(self._kubelet.ran) if name.startswith(f"{self.namespace}/")]
        pods = Counter(name.rpartition("-")[0] for name in ran)
        model = self.api.find(self.model)
        self._uid = model["metadata"]["uid"] if model else self._uid
        plain = json.dumps([final_state.objects(self.api, self.namespace), pods])
        objects, pods = json.loads(plain.replace(short_hash(self._uid), "UID"))
        return State(
            objects=objects,
            status=final_state.status(model, self.namespace),
            events=final_state.events(self.api, self.namespace),
            pods=Counter(pods),
        )

    def _quiet(self, seconds: float) -> bool:
        """Return whether the newest process has listed everything, and then wrote nothing for a while."""
        if not self.operator.alive:
            return False
        if self._known_starts != (starts := self.operator.starts):
            assert starts <= self._crashes + 1, f"the operator ends by itself; see {self.operator.log}"
            if not self.operator.has_listed:
                return False
            self._known_starts, self._changed = starts, time.monotonic()
        return time.monotonic() - self._changed >= seconds


class World:
    """One control plane, one pretended node, one proxy, and as many runs as wanted."""

    def __init__(self, cluster: Cluster, proxy: ApiProxy, kubelet: PretendKubelet, stages: PretendStages) -> None:
        self.kubelet = kubelet
        self.stages = stages
        self._cluster = cluster
        self._proxy = proxy
        self._stories: dict[str, Story] = {}
        proxy.after_write = self._dispatch

    @contextmanager
    def story(self, folder: Path) -> Iterator[Story]:
        """Run an operator in a new namespace while inside; it is started again whenever it was killed."""
        for namespace in fresh_namespace(self._cluster.api):
            kubeconfig = self._proxy.kubeconfig(folder / f"{namespace}.kubeconfig")
            operator = ForkedOperator(kubeconfig, folder / f"{namespace}.log", {"THINKREC_NAMESPACES": namespace})
            with self._cluster.client() as api, kept_running(operator):
                self._stories[namespace] = story = Story(api, namespace, operator=operator, world=self)
                yield story

    def _dispatch(self, write: Write) -> None:
        namespace = write.path.partition("/namespaces/")[2].partition("/")[0]
        if (story := self._stories.get(namespace)) is not None:
            story.note(write)


@contextmanager
def opened(cluster: Cluster) -> Iterator[World]:
    """Open a world on a control plane."""
    stages = PretendStages()
    with PretendKubelet(cluster, stages) as kubelet, ApiProxy(cluster, token=token(cluster)) as proxy:
        yield World(cluster, proxy, kubelet, stages)


def differences(found: State, wanted: State) -> list[str]:
    """Return in words how a state differs."""
    problems = []
    for name in sorted(found.objects.keys() ^ wanted.objects.keys()):
        problems.append(f"{name} is {'left over' if name in found.objects else 'missing'}")
    for name in sorted(found.objects.keys() & wanted.objects.keys()):
        if found.objects[name] != wanted.objects[name]:
            problems.append(f"{name} differs: {_first_difference(found.objects[name], wanted.objects[name])}")
    if found.status != wanted.status:
        problems.append(f"status differs: {_first_difference(found.status, wanted.status)}")
    for what, one, other in (("pods of", found.pods, wanted.pods), ("times the event", found.events, wanted.events)):
        unlike = sorted(name for name in one.keys() | other.keys() if one[name] != other[name])
        problems += [f"{one[name]} instead of {other[name]} {what} {name}" for name in unlike]
    return problems


def _first_difference(found: Any, wanted: Any, path: str = "") -> str:
    if isinstance(found, dict) and isinstance(wanted, dict):
        for name in sorted(found.keys() | wanted.keys()):
            if found.get(name) != wanted.get(name):
                return _first_difference(found.get(name), wanted.get(name), f"{path}.{name}")
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        for index, (one, other) in enumerate(zip(found, wanted, strict=True)):
            if one != other:
                return _first_difference(one, other, f"{path}[{index}]")
    return f"{path or '.'}: {found!r} instead of {wanted!r}"
