# SPDX-License-Identifier: Apache-2.0
"""Mirror: other variants get copies; the caller notices nothing, the load is bounded, the difference is recorded."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from support.arithmetic_engine import expected_score
from support.http_servers import Script, scripted
from support.waiting import wait_for
from thinkrec_crds.event_log import Mirrored
from thinkrec_crds.traffic import TrafficTable
from thinkrec_inference.gateway.mirroring import compare

Gateway = Callable[..., TestClient]


def recommendation(*items: tuple[str, float]) -> bytes:
    listed = [
        {"rank": rank, "itemId": item, "title": item, "score": score, "seen": False}
        for rank, (item, score) in enumerate(items, 1)
    ]
    return json.dumps({"userId": "ann", "items": listed, "gates": [], "branch": "OneHot"}).encode()


@pytest.fixture
def script() -> Iterator[tuple[str, Script]]:
    with scripted() as running:
        yield running


@pytest.fixture
def mirroring(gateway: Gateway, script: tuple[str, Script], tmp_path: Path) -> Callable[..., TestClient]:
    """Start a gateway that copies all requests to the scripted server."""

    def start(**settings: Any) -> TestClient:
        url = script[0]
        variants = [
            {"name": "control", "revision": "1", "weight": 0, "ready": True},
            {"name": "new", "revision": "2", "weight": 0, "ready": True, "url": url},
        ]
        experiment = {"uid": "u1", "name": "shadow", "mode": "Mirror", "mirrorPercent": 100, "control": "control"}
        table = TrafficTable.model_validate({"experiments": [{**experiment, "variants": variants}]})
        (tmp_path / "traffic.json").write_text(table.to_json())
        return gateway(traffic_file=tmp_path / "traffic.json", **settings)

    return start


def ask(client: TestClient, **body: Any) -> dict[str, Any]:
    answer = client.post("/v1/recommend", json={"userId": "ann", "k": 3, **body})
    assert answer.status_code == 200
    return dict(answer.json())


def recorded(folder: Path, count: int) -> list[Mirrored]:
    deadline = time.monotonic() + 10
    while True:
        lines = [line for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]
        found = [Mirrored.from_json(line) for line in lines if '"record":"Mirror"' in line]
        if len(found) >= count or time.monotonic() > deadline:
            assert len(found) == count
            assert [line for line in lines if '"Exposure"' in line] == [], "nobody was exposed to anything"
            return found
        time.sleep(0.05)


def outcomes(client: TestClient) -> dict[str, float]:
    text = client.get("/metrics").text
    found = [line for line in text.splitlines() if line.startswith("thinkrec_gateway_mirrored_total")]
    return {line.split('"')[1]: float(line.split()[-1]) for line in found}


def test_the_difference_is_recorded_with_the_gates_branch(
    mirroring: Callable[..., TestClient], script: tuple[str, Script], tmp_path: Path
) -> None:
    i4, i5 = expected_score("ann", "i4"), expected_score("ann", "i5")
    script[1].content = recommendation(("i4", i4 + 1), ("i5", i5 + 2), ("i0", 0.0))
    control = ask(mirroring(), explain=True)
    assert [item["itemId"] for item in control["items"]] == ["i5", "i4", "i3"]
    (seen,) = recorded(tmp_path / "events", 1)
    assert (seen.experiment, seen.variant, seen.revision, seen.user_id) == ("u1", "new", "2", "ann")
    assert (seen.branch, seen.items) == ("Fused", 3)
    assert seen.overlap == pytest.approx(2 / 3)
    assert (seen.rank_correlation, seen.score_shift) == (-1.0, 1.5)
    assert [json.loads(body)["explain"] for _, body in script[1].requests] == [False], "no reasons for a copy"


def test_the_answer_is_the_same_and_does_not_wait(
    mirroring: Callable[..., TestClient], script: tuple[str, Script]
) -> None:
    script[1].seconds = 3.0
    client = mirroring()
    with_copy = ask(client)
    assert outcomes(client) == {}, "the copy is still under way"
    without = {**ask(client), "tookMilliseconds": with_copy["tookMilliseconds"]}
    assert with_copy == without
    assert with_copy["branch"] == "Fused", "control's, not the copy's"


def test_further_copies_are_skipped_while_enough_are_under_way(
    mirroring: Callable[..., TestClient], script: tuple[str, Script]
) -> None:
    script[1].seconds = 3.0
    client = mirroring(mirror_concurrency=2)
    for _ in range(6):
        ask(client)
    assert outcomes(client) == {"skipped": 4.0}
    wait_for(lambda: outcomes(client).get("failed") == 2.0, "both copies to end", seconds=10)
    assert len(script[1].requests) == 2


def test_a_variant_that_is_away_costs_the_caller_nothing(
    mirroring: Callable[..., TestClient], script: tuple[str, Script], tmp_path: Path
) -> None:
    script[1].status = 503
    assert ask(mirroring())["items"]
    (seen,) = recorded(tmp_path / "events", 1)
    assert (seen.error, seen.items, seen.overlap) == (True, 3, None)


class TestCompare:
    @given(st.permutations(range(8)), st.integers(0, 7), st.integers(0, 7))
    def test_the_correlation_is_spearmans_of_the_items_in_both(
        self, order: list[int], without: int, other_without: int
    ) -> None:
        control = [(str(item), 1.0) for item in range(8) if item != without]
        other = [(str(item), 1.0) for item in order if item != other_without]
        common = [item for item, _ in control if int(item) != other_without]
        places = [[item for item, _ in other].index(item) for item in common]
        found = compare(control, other)
        assert found.rank_correlation == pytest.approx(spearmanr(range(len(common)), places).statistic)
        assert found.overlap == pytest.approx(len(common) / 7)

    @given(st.lists(st.floats(-50, 50), min_size=1, max_size=6), st.floats(-10, 10))
    def test_a_shift_of_all_scores_is_that_shift(self, scores: list[float], shift: float) -> None:
        control = [(str(place), score) for place, score in enumerate(scores)]
        found = compare(control, [(item, score + shift) for item, score in control])
        assert found.score_shift == pytest.approx(shift, abs=1e-9)
        assert np.isclose(found.overlap or 0, 1)

    def test_nothing_in_common_and_nothing_at_all(self) -> None:
        apart = compare([("a", 1.0)], [("b", 1.0)])
        assert (apart.overlap, apart.rank_correlation, apart.score_shift) == (0.0, None, None)
        assert compare([], [("b", 1.0)]).overlap is None
        assert compare([("a", 1.0)], [("a", 3.0)]).rank_correlation is None
