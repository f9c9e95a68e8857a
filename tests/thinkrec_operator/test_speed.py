# SPDX-License-Identifier: Apache-2.0
"""What a decision costs, counted in calls so that a busy machine changes nothing; and that remembering is not seen.

`python tests/thinkrec_operator/test_speed.py` prints milliseconds of CPU.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from support.model_world import SPEC, World, merged, model
from thinkrec_operator import graph, memo
from thinkrec_operator.graph import build_graph
from thinkrec_operator.observed import Observed
from thinkrec_operator.reconcile import reconcile

MOST_CALLS = {"ready": 2000, "training": 2500}
"""Of Python functions in one decision; computing keys and texts anew each time took more than twice as many."""


def ready() -> Observed:
    world = World(store_is_seen=False)
    world.run()
    world.step()
    return world.observed()


def training() -> Observed:
    world = World(store_is_seen=False)
    while not any(world.children[name].title == "expert-0" for name in world.active):
        world.step()
        for name in [name for name in world.active if world.children[name].title != "expert-0"]:
            world.succeed(name)
    world.step()
    return world.observed()


STATES: dict[str, Callable[[], Observed]] = {"ready": ready, "training": training}


def calls(observed: Observed) -> int:
    """Return how many Python functions one decision calls."""
    count = 0

    def note(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(note)
    try:
        reconcile(observed)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("state", STATES)
def test_a_decision_taken_again_is_cheap(state: str) -> None:
    observed = STATES[state]()
    reconcile(observed)
    assert calls(observed) <= MOST_CALLS[state]


def test_a_steady_status_is_made_of_the_same_objects() -> None:
    observed = ready()
    plan, before = reconcile(observed), observed.model.status
    assert plan.status == before
    assert all(new is old for new, old in zip(plan.status.stages, before.stages, strict=True))
    assert all(new is old for new, old in zip(plan.status.conditions, before.conditions, strict=True))


@pytest.mark.parametrize("state", STATES)
def test_a_decision_does_not_depend_on_what_is_remembered(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    observed = STATES[state]()
    warm = reconcile(observed)
    monkeypatch.setattr(graph, "_KNOWN", memo.Memo(1))  # every second look forgets the first
    assert reconcile(observed) == warm


def test_equal_specs_share_a_memory_and_edited_ones_do_not() -> None:
    one, other = model().spec, model().spec
    assert one is not other
    assert memo.spec_digest(one) == memo.spec_digest(other)
    edited = model(merged(SPEC, {"gate": {"temperature": "0.3"}})).spec
    assert memo.spec_digest(edited) != memo.spec_digest(one)
    keys = {stage.role: stage.key for stage in build_graph(one).stages}
    changed = {stage.role for stage in build_graph(edited).stages if keys[stage.role] != stage.key}
    assert changed == {"bundle", "evaluate"}


def test_a_full_memory_starts_again() -> None:
    made: list[int] = []
    small: memo.Memo[str] = memo.Memo(2)

    def value(key: int) -> str:
        return small.get(key, lambda: made.append(key) or str(key))

    assert [value(key) for key in (1, 2, 2, 1, 3, 3, 1)] == ["1", "2", "2", "1", "3", "3", "1"]
    assert made == [1, 2, 3, 1]


def _milliseconds(observed: Observed, times: int = 200) -> float:
    reconcile(observed)
    begun = time.process_time()
    for _ in range(times):
        reconcile(observed)
    return (time.process_time() - begun) / times * 1000


if __name__ == "__main__":
    for name, make in STATES.items():
        sys.stdout.write(f"{name}: {_milliseconds(make()):.2f} ms\n")
