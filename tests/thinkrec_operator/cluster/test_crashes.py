# SPDX-License-Identifier: Apache-2.0
"""The operator is killed after every single write of a whole run, and each time the end is the same.

One undisturbed run says which writes there are. Then, for each of them, a run of its own in a namespace of its own:
SIGKILL after the apiserver has done the write and before the operator hears of it, a restart, and on to the end.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from embedded_cluster.cluster import Cluster
from support import final_state
from support.api_proxy import ApiProxy, Write
from support.forked_operator import ForkedOperator
from support.kube import fresh_namespace
from support.models import condition, model_manifest, models_path
from support.pretend_kubelet import PretendKubelet
from support.pretend_stages import PretendStages
from support.waiting import wait_for

RUNS_AT_ONCE = 6
RUN_SECONDS = 120
QUIET_SECONDS = 1.0


@dataclass
class Story:
    """One run: which writes came, after which of them the operator is killed."""

    namespace: str
    operator: ForkedOperator
    kill_after: frozenset[int]
    writes: list[str] = field(default_factory=list)

    def note(self, write: Write) -> None:
        """Count a write that took effect; kill where it is time, before the operator hears of its success."""
        if write.status >= 300:
            return
        self.writes.append(f"{write.method} {write.path.replace(self.namespace, 'NAMESPACE')}")
        if len(self.writes) in self.kill_after or 0 in self.kill_after:
            self.operator.kill()


@dataclass
class Ending:
    """What a run left behind."""

    writes: list[str]
    restarts: int
    objects: dict[str, Any]
    status: dict[str, Any]
    events: dict[str, int]
    pods: dict[str, int]


class World:
    """One control plane, one pretended node, one proxy, and as many runs as wanted."""

    def __init__(self, cluster: Cluster, proxy: ApiProxy, stages: PretendStages, folder: Path) -> None:
        self._cluster = cluster
        self._stages = stages
        self._folder = folder
        self._kubeconfig = proxy.kubeconfig(folder / "kubeconfig")
        self._stories: dict[str, Story] = {}
        proxy.after_write = self._dispatch

    def run(self, kill_after: frozenset[int]) -> Ending:
        """Tell one story to its end."""
        for namespace in fresh_namespace(self._cluster.api):
            return self._run_in(namespace, kill_after)
        raise AssertionError("no namespace was made")

    def _run_in(self, namespace: str, kill_after: frozenset[int]) -> Ending:
        log = self._folder / f"{namespace}.log"
        operator = ForkedOperator(self._kubeconfig, log, {"THINKREC_NAMESPACES": namespace})
        story = self._stories[namespace] = Story(namespace, operator, kill_after)
        api = self._cluster.client()
        operator.start()
        keeper = threading.Thread(target=self._keep_running, args=(operator, stop := threading.Event()), daemon=True)
        keeper.start()
        try:
            api.create(models_path(namespace), model_manifest(experts={"count": 2}))
            path = f"{models_path(namespace)}/movies"
            wait_for(
                lambda: condition(api.get(path), "Ready") == "True" and self._quiet(story),
                f"the run killed after {sorted(kill_after)} to end; see {log}",
                seconds=RUN_SECONDS,
                every=0.2,
            )
            return Ending(
                writes=list(story.writes),
                restarts=operator.starts - 1,
                objects=final_state.objects(api, namespace),
                status=final_state.status(api, path, namespace),
                events=dict(final_state.events(api, namespace)),
                pods={key: n for key, n in self._stages.started.items() if key.startswith(f"{namespace}/")},
            )
        finally:
            stop.set()
            keeper.join(30)
            operator.kill()
            operator.wait()
            api.close()

    def _dispatch(self, write: Write) -> None:
        namespace = write.path.partition("/namespaces/")[2].partition("/")[0]
        if (story := self._stories.get(namespace)) is not None:
            story.note(write)

    @staticmethod
    def _keep_running(operator: ForkedOperator, stop: threading.Event) -> None:
        """Start the operator again whenever it was killed, as a kubelet does."""
        while not stop.wait(0.02):
            if not operator.alive:
                operator.wait()
                operator.start()

    @staticmethod
    def _quiet(story: Story) -> bool:
        """Return whether nothing was written for a while by an operator that runs."""
        before = len(story.writes)
        assert story.operator.starts <= before + 3, f"the operator ends by itself; see {story.operator.log}"
        threading.Event().wait(QUIET_SECONDS)
        return story.operator.alive and len(story.writes) == before


@pytest.fixture(scope="module")
def world(control_plane: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    stages = PretendStages()
    with _opened(control_plane, stages) as proxy:
        yield World(control_plane, proxy, stages, tmp_path_factory.mktemp("crashes"))


@contextmanager
def _opened(cluster: Cluster, stages: PretendStages) -> Iterator[ApiProxy]:
    with PretendKubelet(cluster, stages), ApiProxy(cluster) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def undisturbed(world: World) -> Ending:
    return world.run(frozenset())


def test_an_undisturbed_run_writes_what_it_must(undisturbed: Ending) -> None:
    assert undisturbed.restarts == 0
    assert len([write for write in undisturbed.writes if "/jobs/" in write]) == 11
    assert set(undisturbed.pods.values()) == {1}
    assert undisturbed.events
    assert max(undisturbed.events.values()) == 1


@pytest.mark.timeout(1200)
def test_a_crash_after_any_write_changes_nothing_in_the_end(world: World, undisturbed: Ending) -> None:
    points = range(1, len(undisturbed.writes) + 1)
    with ThreadPoolExecutor(RUNS_AT_ONCE) as pool:
        endings = dict(zip(points, pool.map(lambda n: world.run(frozenset({n})), points), strict=True))
    problems = [
        f"killed after write {number} ({undisturbed.writes[number - 1]}): {problem}"
        for number, ending in endings.items()
        for problem in differences(ending, undisturbed)
    ]
    assert not problems, "\n".join(problems)
    assert all(ending.restarts >= 1 for ending in endings.values())


@pytest.mark.timeout(600)
def test_a_crash_after_every_write_still_ends_the_same(world: World, undisturbed: Ending) -> None:
    """Each process lives for one write; 0 stands for all of them."""
    ending = world.run(frozenset({0}))
    assert ending.restarts >= len(undisturbed.writes) / 2
    assert not differences(ending, undisturbed)


def differences(found: Ending, wanted: Ending) -> list[str]:
    """Return in words how an ending differs."""
    problems = []
    for name in sorted(found.objects.keys() ^ wanted.objects.keys()):
        problems.append(f"{name} is {'left over' if name in found.objects else 'missing'}")
    for name in sorted(found.objects.keys() & wanted.objects.keys()):
        if found.objects[name] != wanted.objects[name]:
            problems.append(f"{name} differs: {_first_difference(found.objects[name], wanted.objects[name])}")
    if found.status != wanted.status:
        problems.append(f"status differs: {_first_difference(found.status, wanted.status)}")
    twice = [key for key, count in found.pods.items() if count != 1]
    problems += [f"{key} ran {found.pods[key]} times" for key in twice]
    lost = {name for name in wanted.events if name not in found.events}
    problems += [f"the event was not told: {name}" for name in sorted(lost)]
    again = {name: count for name, count in found.events.items() if count > 1}
    return problems + [f"the event was told {count} times: {name}" for name, count in again.items()]


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
