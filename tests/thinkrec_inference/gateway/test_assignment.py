# SPDX-License-Identifier: Apache-2.0
"""From a request to a variant: sticky, by user, header, cookie or at random, with control as the fallback."""

from __future__ import annotations

import random
import time
from collections import Counter
from typing import Any

import pytest
from scipy.stats import chisquare

from thinkrec_crds.buckets import BUCKETS
from thinkrec_crds.traffic import TrafficExperiment
from thinkrec_inference.gateway.assignment import Assigner

USERS = [f"user-{number}" for number in range(20_000)]


def variant(name: str, weight: int, *, ready: bool = True) -> dict[str, Any]:
    return {"name": name, "revision": f"{name}-1", "weight": weight, "ready": ready}


def assigner(*variants: dict[str, Any], **changes: Any) -> Assigner:
    chosen = list(variants) or [variant("control", 50), variant("new", 50)]
    body = {"uid": "u1", "name": "fusion", "mode": "ABTest", "control": "control", "variants": chosen, **changes}
    return Assigner.of(TrafficExperiment.model_validate(body))


def test_a_user_stays_with_a_variant_on_every_gateway() -> None:
    one, other = assigner(), assigner(variant("new", 50), variant("control", 50))
    assert [one.assign(user).variant.name for user in USERS[:500]] == [
        other.assign(user).variant.name for user in USERS[:500]
    ]


def test_users_are_shared_out_as_the_counts_say_which_a_sample_ratio_check_expects() -> None:
    three = assigner(variant("control", 50), variant("a", 30), variant("b", 20))
    seen = Counter(three.assign(user).variant.name for user in USERS)
    expected = {name: len(USERS) * count / BUCKETS for name, count in three.counts.items()}
    assert sum(three.counts.values()) == BUCKETS
    assert chisquare([seen[name] for name in expected], list(expected.values())).pvalue > 0.001


def test_a_canary_step_moves_only_the_added_users_and_none_back() -> None:
    low = assigner(variant("control", 90), variant("new", 10), mode="Canary")
    high = assigner(variant("control", 50), variant("new", 50), mode="Canary")
    moves = Counter((low.assign(user).variant.name, high.assign(user).variant.name) for user in USERS)
    assert ("new", "control") not in moves
    assert moves["control", "new"] / len(USERS) == pytest.approx(0.4, abs=0.015)


class TestReadiness:
    def test_users_of_a_variant_that_is_not_ready_are_served_by_control_and_stay_its_users(self) -> None:
        up = assigner(variant("control", 50), variant("a", 30), variant("b", 20))
        down = assigner(variant("control", 50), variant("a", 30, ready=False), variant("b", 20))
        for user in USERS[:2000]:
            before, now = up.assign(user), down.assign(user)
            assert now.variant.name == before.variant.name
            assert now.fallback == (now.variant.name == "a")
            assert now.served_by.name == ("control" if now.fallback else now.variant.name)

    def test_users_of_control_stay_with_it_whatever_happens(self) -> None:
        down = assigner(variant("control", 50, ready=False), variant("new", 50))
        served = {(a.variant.name, a.served_by.name, a.fallback) for a in map(down.assign, USERS[:500])}
        assert served == {("control", "control", False), ("new", "new", False)}

    @pytest.mark.parametrize(("weight", "ready", "degraded"), [(50, False, True), (50, True, False), (0, False, False)])
    def test_it_is_told_when_some_variant_with_users_is_away(self, weight: int, ready: bool, degraded: bool) -> None:
        assert assigner(variant("control", 100 - weight), variant("new", weight, ready=ready)).degraded == degraded


class TestUnit:
    @pytest.mark.parametrize(
        ("assignment", "unit"),
        [
            ({"type": "HashedHeader"}, "ann"),
            ({"type": "HashedHeader", "key": "x-user"}, "from header"),
            ({"type": "Cookie", "key": "session"}, "from cookie"),
            ({"type": "Cookie", "key": "absent"}, "ann"),
            ({"type": "HashedHeader", "key": "absent"}, "ann"),
            ({"type": "Random"}, None),
        ],
    )
    def test_it_comes_from_where_the_experiment_says(self, assignment: dict[str, str], unit: str | None) -> None:
        chosen = assigner(assignment=assignment)
        assert chosen.unit("ann", {"x-user": "from header"}, {"session": "from cookie"}) == unit

    def test_random_draws_for_every_request(self) -> None:
        chosen = assigner(variant("control", 80), variant("new", 20), assignment={"type": "Random"})
        dice = random.Random(7)
        seen = Counter(chosen.assign(None, lambda: dice.randrange(BUCKETS)).variant.name for _ in range(20_000))
        assert chisquare([seen["control"], seen["new"]], [16_000, 4_000]).pvalue > 0.001


class TestMirror:
    def test_control_answers_everybody_and_the_share_of_requests_is_copied_to_the_ready_others(self) -> None:
        variants = [variant("control", 0), variant("a", 0), variant("b", 0, ready=False), variant("c", 0)]
        mirror = assigner(*variants, mode="Mirror", mirrorPercent=25)
        assert {mirror.assign(user).served_by.name for user in USERS[:200]} == {"control"}
        assert mirror.counts == {"control": BUCKETS, "a": 0, "b": 0, "c": 0}
        dice = random.Random(7)
        copies = Counter(tuple(v.name for v in mirror.mirrors(lambda: dice.randrange(BUCKETS))) for _ in range(20_000))
        assert set(copies) == {(), ("a", "c")}
        assert copies["a", "c"] / 20_000 == pytest.approx(0.25, abs=0.015)

    def test_other_modes_copy_nothing(self) -> None:
        assert assigner().mirrors(lambda: 0) == ()


def test_an_assignment_takes_at_most_20_microseconds() -> None:
    three = assigner(variant("control", 50), variant("a", 30), variant("b", 20))
    rounds = []
    for _ in range(5):
        begun = time.perf_counter()
        for user in USERS[:2000]:
            three.assign(three.unit(user, {}, {}))
        rounds.append((time.perf_counter() - begun) / 2000)
    assert min(rounds) < 20e-6
