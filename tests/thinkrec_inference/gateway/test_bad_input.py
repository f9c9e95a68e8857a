# SPDX-License-Identifier: Apache-2.0
"""What callers get wrong: every answer has the right status, says what was wrong and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from thinkrec_inference.gateway.schemas import ErrorBody

Gateway = Callable[..., TestClient]
EVENT = {"eventId": "1", "userId": "ann", "itemId": "i1", "type": "Like"}
R, S, E = "/v1/recommend", "/v1/score", "/v1/events"

CASES: list[tuple[str, str, Any, int, str | None, str]] = [
    # name, route, body, status, field, part of the error
    ("no user", R, {"k": 3}, 422, "userId", "required"),
    ("user is a number", R, {"userId": 42}, 422, "userId", "string"),
    ("empty user", R, {"userId": ""}, 422, "userId", "at least 1"),
    ("long user", R, {"userId": "u" * 257}, 422, "userId", "at most 256"),
    ("k is zero", R, {"userId": "ann", "k": 0}, 422, "k", "greater than or equal to 1"),
    ("k is negative", R, {"userId": "ann", "k": -3}, 422, "k", "greater than or equal to 1"),
    ("k beyond the server's limit", R, {"userId": "ann", "k": 6}, 422, "k", "at most 5"),
    ("k beyond any limit", R, {"userId": "ann", "k": 10**9}, 422, "k", "less than or equal to 1000"),
    ("k is text", R, {"userId": "ann", "k": "many"}, 422, "k", "integer"),
    ("k is a fraction", R, {"userId": "ann", "k": 2.5}, 422, "k", "integer"),
    ("misspelt field", R, {"userId": "ann", "explian": True}, 422, "explian", "not permitted"),
    ("no candidates", R, {"userId": "ann", "candidates": []}, 422, "candidates", "at least 1"),
    ("unknown candidate", R, {"userId": "ann", "candidates": ["i0", "i99"]}, 404, "candidates", "'i99'"),
    ("too many candidates", R, {"userId": "ann", "candidates": ["i0"] * 6}, 422, "candidates", "at most 5"),
    ("unknown item", S, {"userId": "ann", "itemIds": ["i99"]}, 404, "itemIds", "'i99'"),
    ("too many items", S, {"userId": "ann", "itemIds": ["i0"] * 6}, 422, "itemIds", "at most 5"),
    ("no items", S, {"userId": "ann", "itemIds": []}, 422, "itemIds", "at least 1"),
    ("item is null", S, {"userId": "ann", "itemIds": [None]}, 422, "itemIds.0", "string"),
    ("bad history", S, {"userId": "a", "itemIds": ["i0"], "history": [{"itemId": "i1"}]}, 422, "history.0.liked", ""),
    ("a list", R, [1, 2], 422, "body", "object"),
    ("a string", R, "ann", 422, "body", "object"),
    ("null", R, None, 422, "body", "required"),
    ("no events", E, {"events": []}, 422, "events", "at least 1"),
    ("event type", E, {"events": [{**EVENT, "type": "a hug"}]}, 422, "events.0.type", "pattern"),
    ("event time", E, {"events": [{**EVENT, "occurredAt": "soon"}]}, 422, "events.0.occurredAt", "date"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("route", "body", "status", "field", "text"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_wrong_fields(gateway: Gateway, route: str, body: Any, status: int, field: str | None, text: str) -> None:
    answer = gateway().post(route, json=body)
    assert answer.status_code == status, answer.text
    error = ErrorBody.from_json(answer.content)
    assert error.field == field
    assert text in error.error
    assert error.remedy
    assert error.received is not None


@pytest.mark.parametrize("text", [b"", b"{", b"userId=ann", b'{"userId": "ann",}', b"\xff\xfe", b'{"userId": NaN'])
def test_malformed_json_is_a_client_error_with_a_place(gateway: Gateway, text: bytes) -> None:
    answer = gateway().post(R, content=text, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    assert ErrorBody.from_json(answer.content).remedy


def test_broken_json_is_400_and_says_where(gateway: Gateway) -> None:
    answer = gateway().post(R, content=b'{"userId": "ann",, "k": 3}', headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert "at character 17" in answer.json()["error"]


def test_all_wrong_fields_are_named_together(gateway: Gateway) -> None:
    body = gateway().post(R, json={"k": 0, "explainTop": 99, "colour": 1}).json()
    assert {d["field"] for d in body["details"]} == {"userId", "k", "explainTop", "colour"}
    assert body["error"].startswith("4 fields are wrong")


def test_a_body_beyond_the_limit_is_413(gateway: Gateway) -> None:
    answer = gateway().post(R, json={"userId": "ann", "candidates": ["x" * 200] * 30})
    assert answer.status_code == 413
    assert "4096 bytes" in answer.json()["error"]


def test_a_chunked_body_beyond_the_limit_is_413_too(gateway: Gateway) -> None:
    answer = gateway().post(R, content=(b"x" * 1000 for _ in range(10)))
    assert answer.status_code == 413


def test_a_body_at_the_limit_is_read(gateway: Gateway) -> None:
    text = json.dumps({"userId": "ann", "k": 1})
    answer = gateway().post(R, content=text + " " * (4096 - len(text)), headers={"content-type": "application/json"})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", R, 405), ("POST", "/v1/recomend", 404), ("GET", "/", 404)]
)
def test_wrong_routes_use_the_same_error_body(gateway: Gateway, method: str, path: str, status: int) -> None:
    answer = gateway().request(method, path)
    assert answer.status_code == status
    assert "/docs" in ErrorBody.from_json(answer.content).remedy


@pytest.mark.parametrize("user", ["nobody", "ümläut 🎬", "../../etc/passwd", "'; DROP TABLE users; --", "\u0000"])
def test_unknown_and_odd_users_are_answered(gateway: Gateway, user: str) -> None:
    answer = gateway().post(R, json={"userId": user, "k": 1})
    assert answer.status_code == 200
    assert answer.json()["userId"] == user
    assert answer.json()["retrieval"] == "Popularity"


def test_a_user_who_has_seen_everything_is_told_so(gateway: Gateway) -> None:
    answer = gateway().post(R, json={"userId": "all"})
    assert answer.status_code == 404
    assert "seen every item" in answer.json()["error"]


def test_explain_of_an_unknown_item_is_404(gateway: Gateway) -> None:
    answer = gateway().get("/v1/explain", params={"userId": "ann", "itemId": "i99"})
    assert (answer.status_code, answer.json()["field"]) == (404, "itemId")
