# SPDX-License-Identifier: Apache-2.0
"""The OpenAI-compatible teacher against a real HTTP server that misbehaves as told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.chat_endpoint import Endpoint, Reply, answered, failed, serving
from support.seaweed import free_ports
from thinkrec_crds.conditions import Reason
from thinkrec_crds.spec_data import Teacher
from thinkrec_crds.stages import TeacherParameters
from thinkrec_trainer.errors import BadInput, Temporary
from thinkrec_trainer.teacher import ChatMessage
from thinkrec_trainer.teacher.openai_teacher import KEY_VARIABLE, OpenAITeacher, Patience

QUICK = Patience(attempts=4, first_wait_seconds=0.01, longest_wait_seconds=0.05, request_seconds=0.5)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving() as served:
        yield served


def teacher(endpoint: Endpoint, *, concurrency: int = 4, patience: Patience = QUICK) -> OpenAITeacher:
    parameters = TeacherParameters(
        type="OpenAI", base_url=endpoint.url, model="m", max_concurrency=concurrency, max_tokens=20
    )
    return OpenAITeacher.from_parameters(parameters, seed=3, patience=patience)


def prompts(*texts: str) -> list[list[ChatMessage]]:
    return [[ChatMessage("system", "s"), ChatMessage("user", text)] for text in texts]


def test_answers_come_in_the_order_of_the_prompts(endpoint: Endpoint) -> None:
    asked = teacher(endpoint)
    answers = asked.complete(prompts(*[f"p{n}" for n in range(20)]))
    assert [answer.text for answer in answers] == [f"P{n}" for n in range(20)]
    assert (asked.usage.requests, asked.usage.prompt_tokens, asked.usage.completion_tokens) == (20, 140, 60)
    assert endpoint.bodies[0]["messages"][0] == {"role": "system", "content": "s"}
    options = {name: endpoint.bodies[0][name] for name in ("model", "max_tokens", "temperature", "seed")}
    assert options == {"model": "m", "max_tokens": 20, "temperature": 0.0, "seed": 3}


def test_no_more_requests_at_once_than_allowed(endpoint: Endpoint) -> None:
    endpoint.delay = 0.05
    teacher(endpoint, concurrency=3).complete(prompts(*"abcdefghi"))
    assert endpoint.most == 3


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_busy_and_broken_servers_are_asked_again(endpoint: Endpoint, status: int) -> None:
    endpoint.script = lambda number, body: failed(status) if number < 2 else answered("ok")
    asked = teacher(endpoint)
    assert [answer.text for answer in asked.complete(prompts("a"))] == ["ok"]
    assert asked.usage.retries == 2


def test_retry_after_is_honoured(endpoint: Endpoint) -> None:
    headers = {"Retry-After": "0.6"}
    endpoint.script = lambda number, body: (429, headers, {}) if number == 0 else answered("ok")
    teacher(endpoint).complete(prompts("a"))
    assert endpoint.times[1] - endpoint.times[0] >= 0.6


def test_waits_grow(endpoint: Endpoint) -> None:
    endpoint.script = lambda number, body: failed(500) if number < 3 else answered("ok")
    teacher(endpoint, patience=Patience(4, 0.2, 10.0, 5.0)).complete(prompts("a"))
    gaps = [later - earlier for earlier, later in zip(endpoint.times, endpoint.times[1:], strict=False)]
    assert gaps[0] >= 0.2
    assert gaps[1] >= 0.4
    assert gaps[2] >= 0.8


def test_timeouts_end_as_temporary(endpoint: Endpoint) -> None:
    endpoint.delay = 0.4
    with pytest.raises(Temporary, match=r"failed 2 times: .*timed out"):
        teacher(endpoint, patience=Patience(2, 0.01, 0.05, 0.1)).complete(prompts("a"))


def test_endless_errors_end_as_temporary(endpoint: Endpoint) -> None:
    endpoint.script = lambda number, body: failed(503, "overloaded")
    with pytest.raises(Temporary, match=r"failed 4 times: .*overloaded"):
        teacher(endpoint).complete(prompts("a"))
    assert len(endpoint.bodies) == 4


def test_nobody_listens(endpoint: Endpoint) -> None:
    endpoint.url = f"http://127.0.0.1:{free_ports(1)[0]}/v1"
    with pytest.raises(Temporary, match="Connection error"):
        teacher(endpoint).complete(prompts("a"))


@pytest.mark.parametrize(
    ("status", "remedy", "reason"),
    [
        (401, KEY_VARIABLE, Reason.CREDENTIALS_INVALID),
        (403, "may not use this model", Reason.CREDENTIALS_INVALID),
        (404, "usually ends in /v1", None),
    ],
)
def test_wrong_settings_are_not_retried(endpoint: Endpoint, status: int, remedy: str, reason: Reason | None) -> None:
    endpoint.script = lambda number, body: failed(status)
    with pytest.raises(BadInput, match=remedy) as caught:
        teacher(endpoint, concurrency=1).complete(prompts("a", "b"))
    assert caught.value.reason is reason
    assert len(endpoint.bodies) == 1


def test_key_comes_from_the_environment_and_is_not_shown(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "sk-very-secret")
    asked = teacher(endpoint)
    asked.complete(prompts("a"))
    assert endpoint.keys == ["Bearer sk-very-secret"]
    assert "sk-very-secret" not in repr(asked)
    assert "sk-very-secret" not in asked.identity


def test_key_variable_is_the_one_that_the_manifest_names() -> None:
    described = Teacher.model_fields["secret_ref"].description or ""
    assert f"Secret with {KEY_VARIABLE};" in described


def test_one_refused_prompt_does_not_spoil_the_others(endpoint: Endpoint) -> None:
    def script(number: int, body: dict[str, Any]) -> Reply:
        return failed(400, "too long") if body["messages"][-1]["content"] == "bad" else answered("ok")

    endpoint.script = script
    answers = teacher(endpoint).complete(prompts("good", "bad", "good"))
    assert [answer.finish_reason for answer in answers] == ["stop", "refused", "stop"]
    assert "too long" in (answers[1].error or "")


def test_a_large_batch_refused_whole_is_bad_input(endpoint: Endpoint) -> None:
    """A wrong setting refuses everything; a few prompts may all deserve it."""
    endpoint.script = lambda number, body: failed(400, "no such thing")
    assert all(answer.error for answer in teacher(endpoint).complete(prompts("a", "b")))
    with pytest.raises(BadInput, match=r"refused all 8 prompts: .*no such thing"):
        teacher(endpoint).complete(prompts(*"abcdefgh"))


def test_unsupported_options_are_left_out(endpoint: Endpoint) -> None:
    """Reasoning models want max_completion_tokens and no temperature."""

    def script(number: int, body: dict[str, Any]) -> Reply:
        if "max_tokens" in body:
            return failed(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        if "temperature" in body:
            return failed(400, "'temperature' does not support 0.0 with this model.")
        return answered("ok")

    endpoint.script = script
    asked = teacher(endpoint, concurrency=1)
    assert [answer.text for answer in asked.complete(prompts("a", "b"))] == ["ok", "ok"]
    assert len(endpoint.bodies) == 4, "learnt once, kept for the second prompt"
    assert endpoint.bodies[-1]["max_completion_tokens"] == 20


def test_missing_address_or_model() -> None:
    with pytest.raises(BadInput, match=r"needs baseUrl and model; got baseUrl=None, model='m'"):
        OpenAITeacher.from_parameters(TeacherParameters(type="OpenAI", model="m"), seed=0)
