# SPDX-License-Identifier: Apache-2.0
"""Through real Triton: scores equal the engine's exactly, explanations stream, requests batch, refusals are typed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import TypeVar

import httpx
import pytest

from thinkrec_crds.engine_api import Branch, ExplainRequest, HistoryItem, ScoreRequest, ScoreResponse
from thinkrec_inference.client import NumbersCorruptedError, TritonClient, check_echo
from thinkrec_inference.engine.engine import Engine
from thinkrec_inference.refusal import Refused
from thinkrec_inference.supervisor import Stack

T = TypeVar("T")
ITEMS = tuple(f"i{n}" for n in range(10))


def ask(stack: Stack, question: Callable[[TritonClient], Awaitable[T]]) -> T:
    """Ask one question through a client of its own."""

    async def run() -> T:
        async with TritonClient(stack.addresses.as_json()["tritonGrpc"], timeout_seconds=30) as triton:
            return await question(triton)

    return asyncio.run(run())


def answer(engine: Engine, request: ScoreRequest) -> ScoreResponse:
    (found,) = engine.score([request])
    assert isinstance(found, ScoreResponse)
    return found


@pytest.mark.parametrize("user", ["u0", "mixed", "uniform", "cold", "nobody"])
def test_scores_gates_branch_and_generation_equal_the_engines(stack: Stack, engine: Engine, user: str) -> None:
    request = ScoreRequest(user_id=user, item_ids=ITEMS)
    served = ask(stack, lambda triton: triton.score(request))
    assert served == answer(engine, request), "bit for bit: the same code, dtype and thread count"
    assert served.cold_start == (user in ("cold", "nobody"))


def test_a_given_history_reaches_the_prompt(stack: Stack, engine: Engine) -> None:
    history = (HistoryItem(item_id="i3", liked=True), HistoryItem(item_id="i7", liked=False))
    request = ScoreRequest(user_id="u0", item_ids=ITEMS, history=history)
    served = ask(stack, lambda triton: triton.score(request))
    assert served == answer(engine, request)
    assert served.scores != answer(engine, request.model_copy(update={"history": None})).scores


def test_concurrent_requests_become_few_engine_calls_with_every_answer_right(stack: Stack, engine: Engine) -> None:
    requests = [ScoreRequest(user_id=f"u{n % 9}", item_ids=ITEMS[: 1 + n % 10]) for n in range(24)]
    before = batches(stack)

    async def together(triton: TritonClient) -> list[ScoreResponse]:
        return await asyncio.gather(*(triton.score(request) for request in requests))

    served = ask(stack, together)
    calls = batches(stack) - before
    assert calls <= 8, f"{calls} engine calls for {len(requests)} requests"
    for request, found in zip(requests, served, strict=True):
        expected = answer(engine, request)
        assert found.gates == expected.gates
        assert found.scores == pytest.approx(expected.scores, abs=1e-4), "batch of many = batch of one"


def batches(stack: Stack) -> int:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(stack.addresses.socket))) as http:
        text = http.get("http://engine/metrics").text
    found = re.search(r"^thinkrec_engine_batch_tokens_count (\d+)", text, re.MULTILINE)
    assert found is not None
    return int(found[1])


def test_an_explanation_streams_and_equals_the_engines_text(stack: Stack, engine: Engine) -> None:
    request = ExplainRequest(user_id="mixed", item_id="i5", max_tokens=12)

    async def collect(triton: TritonClient) -> list[tuple[str, bool]]:
        return [(event.text, event.done) async for event in triton.explain(request)]

    events = ask(stack, collect)
    assert "".join(text for text, _ in events) == "".join(event.text for event in engine.explain(request))
    assert len(events) > 3, "it came in pieces"
    assert [done for _, done in events] == [False] * (len(events) - 1) + [True]


def test_the_last_event_has_score_gates_branch_and_generation(stack: Stack, engine: Engine) -> None:
    request = ExplainRequest(user_id="mixed", item_id="i5", max_tokens=4)

    async def last(triton: TritonClient) -> object:
        events = [event async for event in triton.explain(request)]
        return events[-1]

    final = ask(stack, last)
    assert final == list(engine.explain(request))[-1].model_copy(update={"text": final.text})  # type: ignore[attr-defined]
    assert answer(engine, ScoreRequest(user_id="mixed", item_ids=("i5",))).branch is Branch.FUSED


def test_explanations_of_many_callers_do_not_mix(stack: Stack, engine: Engine) -> None:
    requests = [ExplainRequest(user_id=f"u{n}", item_id=f"i{n + 3}", max_tokens=10) for n in range(6)]

    async def text(triton: TritonClient, request: ExplainRequest) -> str:
        return "".join([event.text async for event in triton.explain(request)])

    async def together(triton: TritonClient) -> list[str]:
        return await asyncio.gather(*(text(triton, request) for request in requests))

    assert ask(stack, together) == ["".join(e.text for e in engine.explain(request)) for request in requests]


def test_leaving_an_explanation_frees_its_slot(stack: Stack) -> None:
    async def leave(triton: TritonClient) -> None:
        events = triton.explain(ExplainRequest(user_id="u0", item_id="i5", max_tokens=512))
        await anext(events)
        await events.aclose()
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(stack.addresses.socket))) as http:
            for _ in range(100):
                if "thinkrec_engine_decode_slots_used 0.0" in http.get("http://engine/metrics").text:
                    return
                await asyncio.sleep(0.05)
        raise AssertionError("the engine still writes")

    ask(stack, leave)


BAD = [
    (ScoreRequest(user_id="u0", item_ids=("i1", "no-such-item")), 404, "no-such-item"),
    (ScoreRequest(user_id="u0", item_ids=("i1",), history=(HistoryItem(item_id="gone", liked=True),)), 404, "gone"),
]


@pytest.mark.parametrize(("request_", "status", "text"), BAD)
def test_refused_scores_arrive_with_status_and_reason(
    stack: Stack, request_: ScoreRequest, status: int, text: str
) -> None:
    with pytest.raises(Refused, match=text) as refused:
        ask(stack, lambda triton: triton.score(request_))
    assert refused.value.detail.status == status
    assert refused.value.detail.remedy


def test_a_refused_explanation_ends_its_stream(stack: Stack) -> None:
    async def collect(triton: TritonClient) -> list[object]:
        return [event async for event in triton.explain(ExplainRequest(user_id="u0", item_id="no-such-item"))]

    with pytest.raises(Refused, match="no-such-item") as refused:
        ask(stack, collect)
    assert refused.value.detail.status == 404


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"userId":"u0"}',
        '{"userId":"u0","itemIds":[]}',
        '{"userId":"u0","itemIds":["i1"],"x":1}',
    ],
)
@pytest.mark.parametrize("model", ["thinkrec_score", "thinkrec_explain"])
def test_malformed_json_is_an_error_of_that_request_only(stack: Stack, text: str, model: str) -> None:
    url = stack.addresses.as_json()["tritonHttp"]
    shape = [1, 1] if model == "thinkrec_score" else [1]
    body = {"inputs": [{"name": "request", "shape": shape, "datatype": "BYTES", "data": [text]}]}
    path = "infer" if model == "thinkrec_score" else "generate_stream"
    sent = body if model == "thinkrec_score" else {"request": text}
    answer = httpx.post(f"{url}/v2/models/{model}/{path}", json=sent, timeout=30)
    assert answer.status_code >= 400 or "error" in answer.text, answer.text
    assert "422" in answer.text
    assert httpx.get(f"{url}/v2/models/{model}/ready").status_code == 200


def test_http_callers_get_tensors_and_json(stack: Stack, engine: Engine) -> None:
    request = ScoreRequest(user_id="u0", item_ids=("i1", "i2"))
    body = {"inputs": [{"name": "request", "shape": [1, 1], "datatype": "BYTES", "data": [request.to_json()]}]}
    url = f"{stack.addresses.as_json()['tritonHttp']}/v2/models/thinkrec_score/infer"
    outputs = {o["name"]: o for o in httpx.post(url, json=body, timeout=30).json()["outputs"]}
    expected = answer(engine, request)
    assert outputs["scores"]["data"] == pytest.approx(expected.scores, abs=1e-6)
    assert outputs["gates"]["data"] == pytest.approx(expected.gates, abs=1e-6)
    assert ScoreResponse.from_json(outputs["response"]["data"][0]) == expected


def test_a_corrupted_tensor_would_be_noticed(engine: Engine) -> None:
    import numpy as np

    response = answer(engine, ScoreRequest(user_id="u0", item_ids=("i1", "i2", "i3")))
    good = np.array([response.scores], dtype=np.float32)
    check_echo(response, good)
    with pytest.raises(NumbersCorruptedError, match="numpy<2"):
        check_echo(response, np.repeat(good[:, :1], 3, axis=1))  # what NumPy 2 makes of it: the first number thrice
