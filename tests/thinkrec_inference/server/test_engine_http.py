# SPDX-License-Identifier: Apache-2.0
"""The engine process over its Unix socket: permissions, answers, refusals, streaming, cancellation, swap, metrics."""

from __future__ import annotations

import json
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn

from support.arithmetic_engine import ArithmeticEngine, expected_score
from support.waiting import wait_for
from thinkrec_crds.engine_api import EngineError, ExplainEvent
from thinkrec_inference.refusal import Refused
from thinkrec_inference.scheduler import Limits, ScoringEngine
from thinkrec_inference.server import EngineService, bind_socket, create_app


class Running:
    """A server in a thread, and a client for its socket."""

    def __init__(self, folder: Path, load: Callable[[], tuple[ScoringEngine, float]], limits: Limits) -> None:
        self.path = folder / "e.sock"
        listener = bind_socket(self.path)
        app = create_app(EngineService(limits), load)
        self.server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1))
        self.thread = threading.Thread(target=self.server.run, args=([listener],), daemon=True)
        self.thread.start()
        self.http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(self.path)), base_url="http://engine", timeout=10
        )

    def ready(self) -> Running:
        for _ in range(500):
            if self.http.get("/readyz").status_code == 200:
                return self
            time.sleep(0.01)
        raise AssertionError("never ready")

    def close(self) -> None:
        self.http.close()
        self.server.should_exit = True
        self.thread.join(10)


@pytest.fixture
def engine() -> ArithmeticEngine:
    return ArithmeticEngine(seconds_per_step=0.02)


@pytest.fixture
def running(engine: ArithmeticEngine, tmp_path: Path) -> Iterator[Running]:
    server = Running(tmp_path, lambda: (engine, 1e6), Limits()).ready()
    yield server
    server.close()


def test_the_socket_belongs_to_its_owner_alone(running: Running) -> None:
    assert stat.S_IMODE(running.path.stat().st_mode) == 0o600


def test_scores_come_in_order_with_errors_in_their_places(running: Running) -> None:
    body = [
        {"userId": "u", "itemIds": ["a", "b"]},
        {"userId": "u", "itemIds": ["unknown-1"]},
        {"user_id": "v", "item_ids": ["c"]},
    ]
    first, second, third = running.http.post("/score", json=body).json()
    assert first["response"]["scores"] == [expected_score("u", "a"), expected_score("u", "b")]
    assert second["error"]["status"] == 404
    assert "unknown-1" in second["error"]["error"]
    assert third["response"]["scores"] == [expected_score("v", "c")]


def test_a_defect_of_the_engine_is_a_500_in_its_place(running: Running) -> None:
    good, bad = running.http.post(
        "/score", json=[{"userId": "u", "itemIds": ["a"]}, {"userId": "u", "itemIds": ["crash"]}]
    ).json()
    assert "response" in good
    assert bad["error"]["status"] == 500


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"{}",
        b'[{"userId":"u"}]',
        b'[{"userId":"u","itemIds":[]}]',
        b'[{"userId":"u","itemIds":["a"],"x":1}]',
    ],
)
def test_malformed_score_bodies_are_422_and_name_the_field(running: Running, body: bytes) -> None:
    answer = running.http.post("/score", content=body)
    assert answer.status_code == 422
    assert EngineError.from_json(answer.content).error


def test_an_explanation_arrives_line_by_line(running: Running) -> None:
    with running.http.stream("POST", "/explain", json={"userId": "u", "itemId": "hello"}) as answer:
        assert answer.headers["content-type"] == "application/x-ndjson"
        events = [ExplainEvent.from_json(line) for line in answer.iter_lines()]
    assert "".join(e.text for e in events) == "hello"
    assert [e.done for e in events] == [False] * 4 + [True]


def test_an_explanation_of_an_unknown_item_is_404_before_any_line(running: Running) -> None:
    answer = running.http.post("/explain", json={"userId": "u", "itemId": "unknown"})
    assert answer.status_code == 404


def test_leaving_the_stream_cancels_the_explanation(running: Running, engine: ArithmeticEngine) -> None:
    item = "z" * 200  # 4 s when it is not cancelled
    with running.http.stream("POST", "/explain", json={"userId": "u", "itemId": item}) as answer:
        next(answer.iter_lines())
    for _ in range(200):
        if "thinkrec_engine_decode_slots_used 0.0" in running.http.get("/metrics").text:
            break
        time.sleep(0.01)
    assert engine.work.count("z") < 100, "the engine went on explaining to nobody"


def test_swap_changes_the_generation_and_a_bad_one_keeps_it(running: Running, tmp_path: Path) -> None:
    before = running.http.get("/readyz").json()["generation"]
    bad = running.http.post("/swap", json={"bundle": str(tmp_path / "absent")})
    assert (bad.status_code, running.http.get("/readyz").json()["generation"]) == (422, before)
    (tmp_path / "next").mkdir()
    good = running.http.post("/swap", json={"bundle": str(tmp_path / "next")})
    assert good.json() == {"generation": "next"}
    scored = running.http.post("/score", json=[{"userId": "u", "itemIds": ["a"]}]).json()
    assert scored[0]["response"]["generation"] == "next"
    assert 'thinkrec_engine_adapter_generation{generation="next"} 1.0' in running.http.get("/metrics").text


def test_metrics_count_candidates_branches_and_tokens(running: Running) -> None:
    running.http.post("/score", json=[{"userId": "u", "itemIds": ["a", "b", "c"]}])
    text = running.http.get("/metrics").text
    assert "thinkrec_engine_candidates_scored_total 3.0" in text
    assert 'thinkrec_engine_gate_branch_total{branch="Fused"} 1.0' in text
    assert "thinkrec_engine_batch_tokens_sum 130.0" in text
    for name in ("queued_tokens", "inflight_tokens", "prefix_hit_ratio", "decode_slots_used", "tokens_per_second"):
        assert f"thinkrec_engine_{name} " in text


def test_while_loading_everything_is_503_with_retry_after(tmp_path: Path) -> None:
    go = threading.Event()

    def load() -> tuple[ScoringEngine, float]:
        go.wait(10)
        return ArithmeticEngine(), 1e6

    server = Running(tmp_path, load, Limits())
    try:
        for answer in (
            server.http.get("/readyz"),
            server.http.post("/score", json=[{"userId": "u", "itemIds": ["a"]}]),
        ):
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert "loading" in answer.json()["error"]
        go.set()
        server.ready()
    finally:
        go.set()
        server.close()


QUEUED = "thinkrec_engine_queued_tokens 330.0"
"""Three requests of one item."""


def test_overload_is_503_with_retry_after(tmp_path: Path) -> None:
    engine = ArithmeticEngine(held=True)
    server = Running(tmp_path, lambda: (engine, 10.0), Limits(deadline_seconds=1.0, batch_tokens=1)).ready()
    one = json.dumps([{"userId": "u", "itemIds": ["a"]}] * 4)
    try:
        waiting = threading.Thread(target=lambda: server.http.post("/score", content=one))
        waiting.start()
        wait_for(lambda: QUEUED in server.http.get("/metrics").text, "three of the four to be queued")
        answer = server.http.post("/score", content=one)
        engine.go.set()
        waiting.join()
    finally:
        server.close()
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 10
    assert "deadline" in answer.json()["error"]


def test_a_socket_path_that_is_too_long_is_explained(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="a Unix socket path holds 107") as refused:
        bind_socket(tmp_path / ("x" * 120))
    assert "shorter" in refused.value.detail.remedy
