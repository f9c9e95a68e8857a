# SPDX-License-Identifier: Apache-2.0
"""The gateway in front of real Triton: what a caller sees end to end."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from thinkrec_crds.engine_api import ScoreRequest, ScoreResponse
from thinkrec_inference.engine.engine import Engine
from thinkrec_inference.supervisor import Stack


@pytest.fixture
def http(stack: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.addresses.as_json()["gateway"], timeout=60) as client:
        yield client


@pytest.mark.parametrize(("user", "branch"), [("u0", "OneHot"), ("mixed", "Fused"), ("uniform", "General")])
def test_recommendations_are_unseen_ranked_and_scored_by_the_engine(
    http: httpx.Client, engine: Engine, user: str, branch: str
) -> None:
    body = http.post("/v1/recommend", json={"userId": user, "k": 3}).json()
    items = tuple(i["itemId"] for i in body["items"])
    (answer,) = engine.score([ScoreRequest(user_id=user, item_ids=items)])
    assert isinstance(answer, ScoreResponse)
    assert [i["score"] for i in body["items"]] == pytest.approx(answer.scores, abs=1e-4)
    assert [i["score"] for i in body["items"]] == sorted((i["score"] for i in body["items"]), reverse=True)
    known = engine.bundle.users.get(user)
    assert known is not None
    assert not {engine.bundle.item_rows[item] for item in items} & set(known.seen)
    assert [i["seen"] for i in body["items"]] == [False] * 3
    assert (body["branch"], body["coldStart"], body["candidatesScored"]) == (branch, False, 15)
    assert sum(g["weight"] for g in body["gates"]) == pytest.approx(1.0, abs=1e-5)
    assert body["generation"] == engine.generation


@pytest.mark.parametrize("user", ["cold", "never seen"])
def test_a_user_without_a_vector_is_a_cold_start(http: httpx.Client, user: str) -> None:
    body = http.post("/v1/recommend", json={"user_id": user, "k": 2}).json()
    assert body["cold_start"] is True
    assert body["branch"] == "ColdStart"
    assert {g["expert"]: g["weight"] for g in body["gates"]}["general"] == 1.0
    assert body["retrieval"] == "Popularity"


def test_reasons_come_with_the_ranking(http: httpx.Client) -> None:
    request = {"userId": "mixed", "k": 3, "explain": True, "explainTop": 2}
    body = http.post("/v1/recommend", json=request).json()
    for item in body["items"][:2]:
        assert item["reason"].startswith(item["decision"])
        assert item["decision"] == ("Yes" if item["score"] > 0 else "No")
        assert item["finishReason"] in ("stop", "length", "cancelled")
    assert "reason" not in body["items"][2]


def test_server_sent_explanation_streams_to_the_end(http: httpx.Client) -> None:
    with http.stream("GET", "/v1/explain", params={"userId": "u0", "itemId": "i5"}) as answer:
        lines = [line for line in answer.iter_lines() if line.startswith("data: ")]
    assert len(lines) > 3
    assert '"done":true' in lines[-1]


def test_readiness_names_models_and_generation(http: httpx.Client, engine: Engine) -> None:
    assert http.get("/readyz").json() == {
        "ready": True,
        "generation": engine.generation,
        "models": ["thinkrec_score", "thinkrec_explain"],
    }


def test_events_are_on_disk_when_acknowledged(http: httpx.Client, stack: Stack) -> None:
    event = {"eventId": "e-1", "userId": "u0", "itemId": "i5", "type": "Like"}
    assert http.post("/v1/events", json={"events": [event]}).json() == {"accepted": 1, "duplicates": 0}
    stored = [path.read_text() for path in (stack.options.work_dir / "events").glob("*.jsonl")]
    assert any('"e-1"' in text for text in stored)
