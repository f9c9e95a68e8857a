# SPDX-License-Identifier: Apache-2.0
"""Values from a Prometheus that answers, answers nonsense, hangs, or is not there: the look goes on."""

from __future__ import annotations

import json
import threading
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from support.http_servers import Script, scripted
from support.seaweed import free_ports
from thinkrec_crds.analysis_spec import Guardrail, Prometheus
from thinkrec_trainer.online import prometheus
from thinkrec_trainer.online.prometheus import MOST_BYTES, NoValue, Reader, filled, read
from thinkrec_trainer.online.readings import Readings

Log = Any
NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
QUERY = 'sum(rate(errors{model="{{model}}", variant="{{ variant }}"}[5m]))'


def vector(*values: object) -> bytes:
    result = [{"metric": {}, "value": [1.5, value]} for value in values]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()


def scalar(value: object) -> bytes:
    return json.dumps({"status": "success", "data": {"resultType": "scalar", "result": [1.5, value]}}).encode()


@pytest.fixture
def server() -> Iterator[tuple[str, Script]]:
    with scripted() as (address, script):
        script.content = vector("0.25")
        yield address, script


def source(address: str, query: str = QUERY) -> Prometheus:
    return Prometheus(address=address, query=query)


def test_it_is_asked_for_one_value_as_it_was_at_the_end_of_the_look(server: tuple[str, Script]) -> None:
    address, script = server
    assert Reader("movies", NOON).value(source(address), "new") == 0.25
    headers, body = script.requests[0]
    asked = dict(urllib.parse.parse_qsl(body.decode()))
    assert asked["query"] == 'sum(rate(errors{model="movies", variant="new"}[5m]))'
    assert float(asked["time"]) == NOON.timestamp()
    assert headers["accept-encoding"] == "identity"
    assert "authorization" not in headers


@pytest.mark.parametrize(
    ("text", "inside"),
    [("new-1", "new-1"), ('a"b', "a\\u0022b"), ("a\\b\n'`", "a\\u005cb\\u000a\\u0027\\u0060"), ("😀", "\\U0001f600")],
)
def test_names_cannot_leave_their_string(text: str, inside: str) -> None:
    assert filled('x{v="{{variant}}"}', variant=text, model="m") == f'x{{v="{inside}"}}'


def test_only_its_two_places_are_filled_in_and_once() -> None:
    assert (
        filled("{{other}} {{model}} {{variant}}", variant="{{model}}", model="m")
        == "{{other}} m \\u007b\\u007bmodel\\u007d\\u007d"
    )


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (200, vector(), "the query yields no series"),
        (200, vector("1", "2"), "the query yields 2 series; it must yield one value"),
        (200, vector("NaN"), "the query yields nan"),
        (200, vector("+Inf"), "the query yields inf"),
        (200, vector("much"), "'much', which is no number"),
        (200, vector(None), "no number"),
        (200, b'{"status": "success", "data": {"resultType": "vector", "result": [3]}}', "no number"),
        (200, b'{"status": "success", "data": {"resultType": "matrix", "result": [3]}}', "no series"),
        (200, b'{"status": "success", "data": 7}', "no series"),
        (200, b'{"status": "success"}', "no series"),
        (200, b"[]", "answers with 200: no answer of its query API"),
        (200, b"\xff\x00", "answers with 200: no answer of its query API"),
        (400, b'{"status": "error", "error": "parse\\n error"}', "answers with 400: parse error"),
        (404, b"<html>", "answers with 404: no answer of its query API"),
        (302, b"", "answers with 302: a redirect, which is not followed"),
    ],
)
def test_what_is_no_value_is_told(status: int, body: bytes, why: str) -> None:
    with pytest.raises(NoValue, match=why):
        read("http://p", status, body)


@pytest.mark.parametrize(("body", "value"), [(vector("-1e-3"), -0.001), (scalar("7"), 7.0), (vector(3), 3.0)])
def test_what_is_a_value(body: bytes, value: float) -> None:
    assert read("http://p", 200, body) == value


def test_an_error_is_told_on_one_bounded_line() -> None:
    with pytest.raises(NoValue) as told:
        read("http://p", 500, json.dumps({"status": "error", "error": "long\n" * 1000}).encode())
    assert len(str(told.value)) < 300
    assert "\n" not in str(told.value)


def test_a_redirect_is_not_followed(server: tuple[str, Script]) -> None:
    address, script = server

    class Elsewhere(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(307)
            self.send_header("location", f"{address}{self.path}")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            """Stay quiet."""

    with HTTPServer(("127.0.0.1", 0), Elsewhere) as other:
        thread = threading.Thread(target=other.handle_request)
        thread.start()
        with pytest.raises(NoValue, match="answers with 307: a redirect, which is not followed"):
            Reader("m", NOON).value(source(f"http://127.0.0.1:{other.server_port}"), "new")
        thread.join()
    assert script.requests == []


def test_a_huge_answer_is_not_read_to_its_end(server: tuple[str, Script]) -> None:
    address, script = server
    script.content = b" " * (MOST_BYTES + 70_000) + vector("1")
    with pytest.raises(NoValue, match="more than 1000000 bytes"):
        Reader("m", NOON).value(source(address), "new")


def test_one_that_hangs_is_waited_for_once(server: tuple[str, Script]) -> None:
    address, script = server
    script.seconds = 2.0
    reader, begun = Reader("m", NOON, seconds=0.2), time.monotonic()
    for variant in ("old", "new"):
        with pytest.raises(NoValue, match=f"Prometheus at {address} did not answer"):
            reader.value(source(address), variant)
    assert time.monotonic() - begun < 1.5
    assert len(script.requests) == 1


def test_all_queries_together_have_a_time(server: tuple[str, Script]) -> None:
    address, script = server
    reader = Reader("m", NOON, deadline=time.monotonic() - 1)
    with pytest.raises(NoValue, match="not asked for: the queries before took more than 60 s"):
        reader.value(source(address), "new")
    assert script.requests == []


def test_the_environments_proxy_is_not_asked(server: tuple[str, Script], monkeypatch: pytest.MonkeyPatch) -> None:
    address, _ = server
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert Reader("m", NOON).value(source(address), "new") == 0.25


@pytest.mark.parametrize(
    "address",
    ["http://[::1", "http://p.invalid", "http://a..b", "http://p:99999", "http://p:x", "http://127.0.0.1:1/#"],
)
def test_an_address_that_leads_nowhere_is_told(address: str) -> None:
    with pytest.raises(NoValue, match="did not answer"):
        Reader("m", NOON, seconds=1.0).value(Prometheus.model_construct(address=address, query="x"), "new")


LIKE = {"name": "likes", "event": {"name": "Like"}}


def given(address: str, **bounds: Any) -> dict[str, Any]:
    reading = {"prometheus": {"address": address, "query": QUERY}}
    return {
        "metrics": [LIKE, {"name": "errors", "direction": "Minimize", **reading}],
        "guardrails": [{"name": "errors", **reading, **bounds}] if bounds else [],
        "minSampleSize": 50,
    }


def test_a_reading_stands_beside_what_was_counted(log: Log, crowd: Sequence[str], server: tuple[str, Script]) -> None:
    address, script = server
    log.act(crowd[0])
    found = log.look(given(address, maximum="0.2", maxRegression="0.1"))
    look = found.report.newest
    assert found.value("new", "errors") == 0.25
    effect = look.effects[1]
    assert (effect.metric, effect.effect, effect.lower, effect.significant, effect.better) == (
        "errors",
        0,
        None,
        False,
        False,
    )
    (check,) = look.guardrails
    assert (check.value, check.lower, check.regression, check.violated) == (0.25, None, 0.0, True)
    assert look.unavailable == ()
    assert len(script.requests) == 4
    assert found.result.metrics["1/g0/violated"] == 1


@pytest.mark.parametrize(
    ("direction", "bounds", "control", "new", "violated"),
    [
        ("Minimize", {"maxRegression": "0.1"}, 100.0, 110.0, False),
        ("Minimize", {"maxRegression": "0.1"}, 100.0, 110.1, True),
        ("Minimize", {"maxRegression": "0.1"}, 100.0, 50.0, False),
        ("Maximize", {"maxRegression": "0.1"}, 100.0, 89.0, True),
        ("Maximize", {"maxRegression": "0.1"}, -100.0, -111.0, True),
        ("Maximize", {"maxRegression": "0.1"}, -100.0, -105.0, False),
        ("Maximize", {"maxRegression": "0"}, 0.0, 0.0, False),
        ("Minimize", {"maximum": "5"}, 9.0, 5.0, False),
        ("Minimize", {"maximum": "5"}, 1.0, 5.1, True),
        ("Maximize", {"minimum": "0.5"}, 1.0, 0.4, True),
        ("Maximize", {"minimum": "0.5", "maximum": "2"}, 1.0, 1.0, False),
    ],
)
def test_a_reading_is_held_against_bounds_as_it_is(
    direction: str, bounds: dict[str, str], control: float, new: float, violated: bool
) -> None:
    reading = {"prometheus": {"address": "http://p", "query": "x"}}
    guard = Guardrail.model_validate({"name": "g", "direction": direction, **reading, **bounds})
    found = Readings({("g/g", "control"): control, ("g/g", "new"): new}, {}).check(guard, "new", "control")
    assert found.violated is violated
    assert found.value == new


def test_one_that_is_away_makes_a_sentence_and_no_failure(log: Log, crowd: Sequence[str]) -> None:
    (port,) = free_ports(1)
    log.act("n1")
    found = log.look(given(f"http://127.0.0.1:{port}", maximum="1"))
    look = found.report.newest
    assert [line.partition(":")[0] for line in look.unavailable] == ["metric errors", "guardrail errors"]
    assert all("did not answer" in line for line in look.unavailable)
    assert found.result.metrics["unavailable"] == 2
    assert found.value("new", "errors") is None
    assert found.value("new", "likes") == pytest.approx(1 / 60)
    assert (look.guardrails[0].value, look.guardrails[0].violated) == (None, False)
    assert "Without a value" in found.page


def test_a_variant_without_a_value_is_named(
    log: Log, server: tuple[str, Script], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, _ = server
    real = prometheus.read
    answers = iter([vector("1"), vector()])
    monkeypatch.setattr(prometheus, "read", lambda at, status, body: real(at, status, next(answers)))
    look = log.look(given(address)).report.newest
    assert look.unavailable == ("metric errors: new: the query yields no series; it must yield one value",)
