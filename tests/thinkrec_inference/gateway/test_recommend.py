# SPDX-License-Identifier: Apache-2.0
"""POST /v1/recommend and /v1/score: what is retrieved, how it is ranked, what is said about it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from support.arithmetic_engine import expected_score
from support.direct_scorer import DirectScorer
from thinkrec_inference.gateway.limits import Measure
from thinkrec_inference.gateway.metrics import GatewayMetrics
from thinkrec_inference.gateway.recommend import EXPLAIN_RESERVE_SECONDS
from thinkrec_inference.gateway.retrieval import Catalogue, given, retrieve
from thinkrec_inference.refusal import Refused

Gateway = Callable[..., TestClient]


def test_retrieval_ranks_unseen_items_by_vector(catalogue: Catalogue) -> None:
    found = retrieve(catalogue, "ann", 3)
    assert found.item_ids == ("i2", "i3", "i4")
    assert found.cf_rank == {"i2": 1, "i3": 2, "i4": 3}
    assert retrieve(catalogue, "bob", 9).item_ids == ("i4", "i3", "i2", "i1", "i0")


def test_a_cold_user_gets_the_most_popular_unseen_items(catalogue: Catalogue) -> None:
    # item 1 was seen by three users, items 0, 2 and 5 by two each, 3 and 4 by one
    unknown = retrieve(catalogue, "nobody", 4)
    assert (unknown.item_ids, unknown.cf_rank, unknown.source) == (("i1", "i0", "i2", "i5"), {}, "Popularity")
    assert retrieve(catalogue, "cold", 2).item_ids == ("i0", "i5"), "known, but without a group: seen items stay out"


def test_given_candidates_keep_order_lose_repetition_and_tell_their_place(catalogue: Catalogue) -> None:
    found = given(catalogue, "ann", ["i4", "i0", "i4", "i2"])
    assert found.item_ids == ("i4", "i0", "i2")
    assert found.cf_rank == {"i4": 3, "i2": 1}, "a seen item has no place among the unseen ones"


def test_recommend_ranks_by_the_models_score_not_by_retrieval(gateway: Gateway, scorer: DirectScorer) -> None:
    answer = gateway().post("/v1/recommend", json={"userId": "ann", "k": 2})
    body = answer.json()
    assert answer.status_code == 200, body
    assert scorer.requests[0].item_ids == ("i2", "i3", "i4", "i5"), "k times retrieveFactor, all unseen"
    assert [i["itemId"] for i in body["items"]] == ["i5", "i4"], "the arithmetic engine likes high letters"
    assert [i["rank"] for i in body["items"]] == [1, 2]
    assert [i["cfRank"] for i in body["items"]] == [4, 3]
    assert [i["title"] for i in body["items"]] == ["Title 5", "Title 4"]
    assert [i["seen"] for i in body["items"]] == [False, False]
    assert [i["score"] for i in body["items"]] == [expected_score("ann", "i5"), expected_score("ann", "i4")]
    assert body["gates"] == [
        {"expert": "expert-0", "weight": 0.75},
        {"expert": "expert-1", "weight": 0.25},
        {"expert": "general", "weight": 0.0},
    ]
    assert (body["branch"], body["coldStart"], body["retrieval"], body["candidatesScored"]) == (
        "Fused",
        False,
        "Collaborative",
        4,
    )
    assert body["generation"].startswith("sha256:")
    assert "reason" not in body["items"][0]


def test_never_more_than_max_candidates_are_scored(gateway: Gateway, scorer: DirectScorer) -> None:
    gateway(max_candidates=3).post("/v1/recommend", json={"userId": "bob", "k": 3})
    assert len(scorer.requests[0].item_ids) == 3


def test_reasons_are_written_for_the_first_items_only(gateway: Gateway) -> None:
    body = gateway().post("/v1/recommend", json={"userId": "ann", "k": 3, "explain": True, "explainTop": 2}).json()
    assert [i.get("reason") for i in body["items"]] == ["i5", "i4", None], "the arithmetic engine spells the item"
    assert [i.get("decision") for i in body["items"]] == ["Yes", "Yes", None]
    assert [i.get("finishReason") for i in body["items"]] == ["stop", "stop", None]


def test_the_deadline_cuts_a_reason_and_keeps_the_ranking(gateway: Gateway, scorer: DirectScorer) -> None:
    scorer.seconds_per_event = 1.0  # two letters take longer than 2 s less the reserve
    client = gateway(deadline_milliseconds=2000)
    body = client.post("/v1/recommend", json={"userId": "ann", "k": 1, "explain": True}).json()
    (item,) = body["items"]
    assert item["finishReason"] == "cancelled"
    assert item["reason"] == "i"
    (asked,) = scorer.explained
    assert asked.max_seconds is not None
    assert asked.max_seconds <= 2.0 - EXPLAIN_RESERVE_SECONDS
    assert body["tookMilliseconds"] < 2000


def test_given_candidates_may_be_seen_and_are_flagged(gateway: Gateway) -> None:
    request = {"userId": "ann", "k": 5, "candidates": ["i0", "i3"]}
    body = gateway().post("/v1/recommend", json=request).json()
    assert {i["itemId"]: i["seen"] for i in body["items"]} == {"i0": True, "i3": False}
    assert body["retrieval"] == "Given"


def test_snake_case_requests_are_answered_in_snake_case(gateway: Gateway) -> None:
    client = gateway()
    snake = client.post("/v1/recommend", json={"user_id": "nobody", "k": 1}).json()
    assert snake["cold_start"] is False
    assert snake["items"][0]["item_id"] == "i1"
    camel = client.post("/v1/recommend", json={"userId": "nobody", "k": 1}).json()
    assert {**camel, "tookMilliseconds": 0}.keys() == {
        "userId", "items", "gates", "branch", "coldStart", "generation", "retrieval", "candidatesScored",
        "tookMilliseconds",
    }  # fmt: skip


def test_score_keeps_the_order_of_the_request(gateway: Gateway) -> None:
    body = gateway().post("/v1/score", json={"userId": "ann", "itemIds": ["i5", "i0", "i3"]}).json()
    assert [(i["itemId"], i["score"], i["seen"]) for i in body["items"]] == [
        ("i5", expected_score("ann", "i5"), False),
        ("i0", expected_score("ann", "i0"), True),
        ("i3", expected_score("ann", "i3"), False),
    ]


def test_history_goes_through_to_the_engine(gateway: Gateway, scorer: DirectScorer) -> None:
    history = [{"itemId": "i1", "liked": True}, {"itemId": "i2", "liked": False}]
    gateway().post("/v1/score", json={"userId": "ann", "itemIds": ["i5"], "history": history})
    sent = scorer.requests[0].history
    assert sent is not None
    assert [(h.item_id, h.liked) for h in sent] == [("i1", True), ("i2", False)]


def test_explain_streams_server_sent_events(gateway: Gateway) -> None:
    answer = gateway().get("/v1/explain", params={"userId": "ann", "itemId": "i5"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.count("data: ") == 2
    assert '"done":true' in answer.text


@pytest.mark.parametrize("route", ["/v1/recommend", "/v1/score"])
def test_triton_away_is_503_with_retry_after_and_a_remedy(gateway: Gateway, scorer: DirectScorer, route: str) -> None:
    scorer.refusal = Refused(503, "Triton at 127.0.0.1:1 does not answer", "Ask again shortly.", retry_after=2)
    client = gateway()
    body = {"userId": "ann"} if route.endswith("recommend") else {"userId": "ann", "itemIds": ["i5"]}
    answer = client.post(route, json=body)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert answer.json() == {"error": "Triton at 127.0.0.1:1 does not answer", "remedy": "Ask again shortly."}
    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").status_code == 200


def test_readyz_names_the_model_that_is_not_ready(gateway: Gateway, scorer: DirectScorer) -> None:
    client = gateway()
    assert client.get("/readyz").json()["models"] == ["thinkrec_score", "thinkrec_explain"]
    scorer.ready = ("thinkrec_score",)
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "thinkrec_explain" in answer.json()["error"]


def test_metrics_count_routes_not_paths(gateway: Gateway) -> None:
    client = gateway()
    client.post("/v1/recommend", json={"userId": "ann"})
    client.get("/v1/nothing/42")
    text = client.get("/metrics").text
    assert 'thinkrec_gateway_requests_total{route="/v1/recommend",status="200"} 1.0' in text
    assert 'thinkrec_gateway_requests_total{route="unmatched",status="404"} 1.0' in text
    assert 'thinkrec_gateway_gate_branch_total{branch="Fused"} 1.0' in text
    assert "/v1/nothing" not in text


def test_requests_in_hand_are_a_gauge_that_probes_do_not_move() -> None:
    seen: dict[str, float] = {}
    metrics = GatewayMetrics()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen[scope["path"]] = metrics.registry.get_sample_value("thinkrec_gateway_pending_requests") or 0.0

    async def ask(path: str) -> None:
        scope = {"type": "http", "method": "GET", "path": path, "headers": []}
        await Measure(app, metrics)(scope, _nothing, _ignore)

    for path in ("/v1/recommend", "/readyz", "/metrics"):
        asyncio.run(ask(path))
    assert seen == {"/v1/recommend": 1.0, "/readyz": 0.0, "/metrics": 0.0}
    assert metrics.registry.get_sample_value("thinkrec_gateway_pending_requests") == 0.0


async def _nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _ignore(message: Message) -> None:
    return None


def test_openapi_describes_bodies_with_examples(gateway: Gateway) -> None:
    client = gateway()
    document = client.get("/openapi.json").json()
    schema = document["components"]["schemas"]["RecommendRequest"]
    assert schema["examples"][0]["userId"] == "42"
    assert "description" in schema["properties"]["explainTop"]
    assert set(document["paths"]["/v1/recommend"]["post"]["responses"]) >= {"200", "400", "404", "413", "422", "503"}
    assert client.get("/docs").status_code == 200
