# SPDX-License-Identifier: Apache-2.0
"""The operator is killed after every single write of a whole first training, and each time the end is the same.

One undisturbed run says which writes there are. Then, for each of them, a run of its own in a namespace of its own:
SIGKILL, a restart, and on to the end. What comes later in a model's life: test_crashes_later.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from embedded_cluster.cluster import Cluster
from support.crash_story import Kill, State, World, after, always, differences, never, opened
from support.models import condition, model_manifest, models_path

RUNS_AT_ONCE = 6


@dataclass(frozen=True)
class Ending:
    """What a run left behind."""

    writes: list[str]
    kills: list[str]
    state: State


@pytest.fixture(scope="module")
def world(control_plane: Cluster) -> Iterator[World]:
    with opened(control_plane) as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("crashes")


@pytest.fixture(scope="module")
def undisturbed(world: World, folder: Path) -> Ending:
    return first_training(world, folder)


def first_training(world: World, folder: Path, kill: Kill = never, wanted: State | None = None) -> Ending:
    """Train a new model to the end."""
    with world.story(folder) as story:
        story.begin(kill)
        story.api.create(models_path(story.namespace), model_manifest(experts={"count": 2}))
        state = story.settled(
            lambda: condition(story.api.get(story.model), "Ready") == "True", wanted, "the first training"
        )
        return Ending(story.writes, story.kills, state)


def test_an_undisturbed_run_writes_what_it_must(undisturbed: Ending) -> None:
    assert len([write for write in undisturbed.writes if "/jobs/" in write]) == 11
    assert set(undisturbed.state.pods.values()) == {1}
    assert undisturbed.state.events
    assert max(undisturbed.state.events.values()) == 1


@pytest.mark.timeout(1200)
def test_a_crash_after_any_write_changes_nothing_in_the_end(world: World, undisturbed: Ending, folder: Path) -> None:
    writes, wanted = undisturbed.writes, undisturbed.state
    points = [(write, writes[: number + 1].count(write)) for number, write in enumerate(writes)]
    with ThreadPoolExecutor(RUNS_AT_ONCE) as pool:
        runs = pool.map(lambda point: first_training(world, folder, after(*point), wanted), points)
        endings = dict(zip(points, runs, strict=True))
    problems = [
        f"killed after {write} ({time_}): {problem}"
        for (write, time_), ending in endings.items()
        for problem in differences(ending.state, wanted)
    ]
    assert not problems, "\n".join(problems)
    spared = [write for (write, _), ending in endings.items() if not ending.kills]
    assert all(write.endswith("/status") for write in spared), spared  # how often it is written is a matter of speed
    assert len(spared) <= len(points) / 10


@pytest.mark.timeout(600)
def test_a_crash_after_every_write_still_ends_the_same(world: World, undisturbed: Ending, folder: Path) -> None:
    """Each process lives for one write."""
    ending = first_training(world, folder, always, undisturbed.state)
    assert len(ending.kills) >= len(undisturbed.writes) / 2
    assert not differences(ending.state, undisturbed.state)
