# SPDX-License-Identifier: Apache-2.0
"""The operator is killed after every single write of a model's later life: retraining, rollback, clean-up, deletion.

A life is told in chapters. Each one begins and ends quiet, and must end as the same chapter of an undisturbed life did,
object for object. So one life can have a crash in each of its chapters: run n kills after write n of every chapter that
has so many. The stages are held back to make the chapters short.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from embedded_cluster.cluster import Cluster
from support import final_state
from support.crash_story import SECONDS, State, Story, World, after_number, differences, never, opened
from support.models import condition, model_manifest, models_path
from support.pretend_stages import CLEANUP, SERVING
from thinkrec_crds.group import ANNOTATION_RETRAIN_REQUESTED, FINALIZER, LABEL_COMPONENT
from thinkrec_crds.stage_kinds import StageKind

pytestmark = pytest.mark.timeout(900)

RUNS_AT_ONCE = 11
MOST_WRITES = 10
"""In one chapter: so many lives have crashes."""
MODEL: Mapping[str, Any] = {
    "experts": {"count": 1},
    "revisionHistoryLimit": 1,
    "evaluation": {"gates": [{"metric": "AUC", "minimum": "0.6", "maxRegression": "0.02"}]},
}
RETRAINING = (
    ("dataset",),
    ("keywords", "collaborative"),
    ("keywords", "gate"),
    ("keywords",),
    ("traces",),
    ("adapter",),
    ("projector",),
    ("expert",),
    ("bundle",),
    ("evaluate",),
)
"""Stages at work at the same time, of which then the one ends that is not among the next."""


@dataclass(frozen=True)
class Step:
    """One chapter: what somebody does, and how one sees that its consequences are there."""

    name: str
    act: Callable[[Story], object]
    done: Callable[[Story], bool]


@dataclass(frozen=True)
class Chapter:
    """What came of a step."""

    name: str
    writes: list[str]
    kills: list[str]
    state: State


def _patch(**spec: Any) -> Callable[[Story], object]:
    return lambda story: story.api.patch(story.model, {"spec": spec})


def _release(*kinds: str) -> Callable[[Story], object]:
    return lambda story: story.stages.held[story.namespace].difference_update(kinds)


def _hold_all(story: Story) -> None:
    story.stages.held[story.namespace] = {*(kind.value for kind in StageKind), SERVING, CLEANUP}


def _working(*kinds: str) -> Callable[[Story], bool]:
    def done(story: Story) -> bool:
        status = story.api.get(story.model)["status"]
        rows = [*status["stages"], *status.get("experts", ())]
        return {row["kind"] for row in rows if row["state"] == "Running"} == set(kinds)

    return done


def _rolling_out(story: Story) -> bool:
    """Return whether the pods of another revision are being started, and no stage is at work."""
    pods = story.api.items(f"/api/v1/namespaces/{story.namespace}/pods", labelSelector=f"{LABEL_COMPONENT}={SERVING}")
    return _working()(story) and any(pod["status"]["phase"] == "Pending" for pod in pods)


def _serving(number: int) -> Callable[[Story], bool]:
    """Return whether the revision of that number, from 1, answers and nothing else is wanted."""

    def done(story: Story) -> bool:
        model = story.api.get(story.model)
        serving = model["status"].get("servingRevision")
        return condition(model, "Ready") == "True" and serving is not None and _revisions(story).get(serving) == number

    return done


def _revisions(story: Story) -> dict[str, int]:
    path = f"/apis/apps/v1/namespaces/{story.namespace}/controllerrevisions"
    return {body["metadata"]["name"]: body["revision"] for body in story.api.items(path)}


def _retrain_on_two_nodes(story: Story) -> None:
    _hold_all(story)
    annotations = {ANNOTATION_RETRAIN_REQUESTED: "2030-01-01T00:00:00Z"}
    spread = {"training": {"parallelism": 2, "nodes": 2}}
    story.api.patch(story.model, {"metadata": {"annotations": annotations}, "spec": spread})


def _pin_the_first(story: Story) -> None:
    _hold_all(story)
    first = next(name for name, number in _revisions(story).items() if number == 1)
    _patch(serving={"revision": first}, artifacts={"deletionPolicy": "Delete"})(story)


def _pinned(story: Story) -> bool:
    return _serving(1)(story) and FINALIZER in story.api.get(story.model)["metadata"].get("finalizers", ())


def _bundle_again(story: Story) -> None:
    _hold_all(story)
    _patch(serving={"revision": None}, gate={"temperature": "0.2"})(story)


def _delete(story: Story) -> None:
    _hold_all(story)
    story.api.delete(story.model)


def _cleaning(story: Story) -> bool:
    pods = story.api.items(f"/api/v1/namespaces/{story.namespace}/pods", labelSelector=f"{LABEL_COMPONENT}={CLEANUP}")
    return [pod["status"]["phase"] for pod in pods] == ["Running"]


def _gone(story: Story) -> bool:
    return story.api.find(story.model) is None and not final_state.objects(story.api, story.namespace)


def _through(stages: tuple[tuple[str, ...], ...], number: int) -> Iterator[Step]:
    """Yield a step for each stage that ends, up to the revision of that number in service."""
    for now, after in zip(stages, (*stages[1:], None), strict=True):
        ended = next(kind for kind in now if kind not in (after or ()))
        yield Step(f"{ended} ends", _release(ended), _working(*after) if after else _rolling_out)
    yield Step("the new revision's pods get ready", _release(SERVING), _serving(number))


LIFE = (
    Step("retraining on two nodes", _retrain_on_two_nodes, _working("dataset")),
    *_through(RETRAINING, 2),
    Step("rollback to the first revision, artifacts to be deleted some day", _pin_the_first, _rolling_out),
    Step("the first revision's pods get ready", _release(SERVING), _pinned),
    Step("on again, with another bundle", _bundle_again, _working("bundle")),
    *_through(RETRAINING[-2:], 3),
    Step("deletion", _delete, _cleaning),
    Step("the clean-up ends", _release(CLEANUP), _gone),
)


class Life:
    """The chapters of the undisturbed life, which the others read as soon as each one is told."""

    def __init__(self) -> None:
        self._chapters = [Future[Chapter]() for _ in LIFE]

    def tell(self, world: World, folder: Path) -> list[Chapter]:
        """Live it."""
        try:
            for future, chapter in zip(self._chapters, live(world, folder), strict=True):
                future.set_result(chapter)
        except BaseException as error:
            for future in self._chapters:
                if not future.done():
                    future.set_exception(error)
            raise
        return [future.result() for future in self._chapters]

    def __getitem__(self, number: int) -> Chapter:
        return self._chapters[number].result(SECONDS)


def live(world: World, folder: Path, kill_after: int | None = None, wanted: Life | None = None) -> Iterator[Chapter]:
    """Tell a life; one that goes another way than wanted ends with that chapter."""
    with world.story(folder) as story:
        story.api.create(models_path(story.namespace), model_manifest(**MODEL))
        story.settled(partial(_serving(1), story), None, "the first training")
        for number, step in enumerate(LIFE):
            story.begin(after_number(kill_after) if kill_after else never)
            step.act(story)
            aim = wanted[number].state if wanted else None
            what = f"{step.name!r} after a crash after write {kill_after}"
            state = story.settled(partial(step.done, story), aim, what)
            yield Chapter(step.name, story.writes, story.kills, state)
            if aim is not None and differences(state, aim):
                return


@pytest.fixture(scope="module")
def world(control_plane: Cluster) -> Iterator[World]:
    with opened(control_plane) as found:
        yield found


@dataclass(frozen=True)
class Lives:
    """One undisturbed, and one for each number of a write."""

    undisturbed: list[Chapter]
    disturbed: dict[int, list[Chapter]]


@pytest.fixture(scope="module")
def lives(world: World, tmp_path_factory: pytest.TempPathFactory) -> Lives:
    folder, life = tmp_path_factory.mktemp("crashes"), Life()
    with ThreadPoolExecutor(RUNS_AT_ONCE) as pool:
        first = pool.submit(life.tell, world, folder)
        others = {n: pool.submit(lambda n: list(live(world, folder, n, life)), n) for n in range(1, MOST_WRITES + 1)}
        return Lives(first.result(), {n: other.result() for n, other in others.items()})


def test_an_undisturbed_life_goes_as_it_is_told(lives: Lives) -> None:
    retraining, *_, cleaning, gone = (chapter.state for chapter in lives.undisturbed)
    pods = {name: count for name, count in gone.pods.items() if "-serving-" not in name}
    assert set(pods.values()) == {1}
    second = sorted(name.split("-")[1] for name in pods if name.endswith("-1"))
    assert second == ["adapter", "evaluate", "evaluate", "expert", "keywords", "projector", "traces"]
    first, *others = _of_kind("ControllerRevision", retraining)
    assert not others
    assert len(_of_kind("ControllerRevision", cleaning)) == 2
    assert first not in cleaning.objects
    assert not gone.objects
    assert not gone.status
    assert [write.split("/")[-2] for write in lives.undisturbed[-2].writes] == ["events", "configmaps", "jobs"]


def _of_kind(kind: str, state: State) -> list[str]:
    return [name for name in state.objects if name.startswith(f"{kind}/")]


def test_a_crash_after_any_write_of_a_later_life_changes_nothing(lives: Lives) -> None:
    problems = [
        f"{chapter.name!r}, killed after write {number} ({chapter.kills}): {problem}"
        for number, chapters in lives.disturbed.items()
        for chapter, wanted in zip(chapters, lives.undisturbed, strict=False)
        for problem in (*differences(chapter.state, wanted.state), *_odd_writes(chapter, wanted))
    ]
    assert not problems, "\n".join(problems)


def test_no_write_was_left_out(lives: Lives) -> None:
    assert max(len(chapter.writes) for chapter in lives.undisturbed) <= MOST_WRITES
    for number, wanted in enumerate(lives.undisturbed):
        survived = {write for chapters in lives.disturbed.values() for write in chapters[number].kills}
        assert set(wanted.writes) <= survived, wanted.name


def _odd_writes(found: Chapter, wanted: Chapter) -> list[str]:
    return [f"wrote {write}, which nobody else did" for write in sorted({*found.writes} - {*wanted.writes})]
