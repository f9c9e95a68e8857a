# SPDX-License-Identifier: Apache-2.0
"""The teacher behind an OpenAI-compatible endpoint.

Bounded concurrency; retries with exponential back-off on 429, 5xx, timeouts and broken connections, honouring
Retry-After; parameters that a model does not take (reasoning models refuse `temperature` and rename `max_tokens`) are
learnt from the first refusal and left out afterwards.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import openai
import tenacity

from thinkrec_crds.conditions import Reason
from thinkrec_crds.stages import TeacherParameters
from thinkrec_trainer.errors import BadInput, StageError, Temporary
from thinkrec_trainer.teacher.interface import ChatMessage, Completion, Usage

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam

KEY_VARIABLE = "OPENAI_API_KEY"
"""As in the Secret of `spec.teacher.secretRef` and in the client's own documentation."""
ATTEMPTS = 6
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 60.0
JITTER_SECONDS = 0.1
"""Keeps prompts that failed together from coming back together."""
LONGEST_TOLD_SECONDS = 300.0
"""A Retry-After beyond this is cut: the stage must not sleep through its deadline."""
SUSPICIOUS_REFUSALS = 8
"""So many prompts and not one answered: a setting is wrong, not the prompts. A few may all deserve their refusal."""
REQUEST_SECONDS = 120.0

_RETRIED = (openai.APIConnectionError, openai.RateLimitError, openai.InternalServerError, openai.ConflictError)
_WRONG_SETTING = (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to go on with an endpoint that does not answer."""

    attempts: int = ATTEMPTS
    """Requests per prompt, the first one included."""
    first_wait_seconds: float = FIRST_WAIT_SECONDS
    longest_wait_seconds: float = LONGEST_WAIT_SECONDS
    request_seconds: float = REQUEST_SECONDS
    """A request without an answer after this is retried."""


@dataclass(slots=True)
class OpenAITeacher:
    """Asks `base_url` for chat completions of `model`, at most `max_concurrency` at a time."""

    base_url: str
    model: str
    max_tokens: int
    max_concurrency: int
    seed: int
    api_key: str = field(repr=False)
    patience: Patience = Patience()
    _usage: Usage = field(default_factory=Usage)
    _options: dict[str, Any] = field(default_factory=dict)
    _retries: int = 0

    def __post_init__(self) -> None:
        self._options = {"max_tokens": self.max_tokens, "temperature": 0.0, "seed": self.seed}

    @classmethod
    def from_parameters(
        cls, parameters: TeacherParameters, *, seed: int, patience: Patience | None = None
    ) -> OpenAITeacher:
        """Build from the spec; the key comes from the environment only (an endpoint without one ignores it)."""
        if not parameters.base_url or not parameters.model:
            raise BadInput(
                f"teacher type OpenAI needs baseUrl and model; got baseUrl={parameters.base_url!r}, "
                f"model={parameters.model!r}: set spec.teacher.baseUrl and spec.teacher.model"
            )
        return cls(
            base_url=parameters.base_url,
            model=parameters.model,
            max_tokens=parameters.max_tokens,
            max_concurrency=max(1, parameters.max_concurrency),
            seed=seed,
            api_key=os.environ.get(KEY_VARIABLE) or "none",
            patience=patience or Patience(),
        )

    @property
    def usage(self) -> Usage:
        """Requests, retries and tokens so far."""
        return self._usage

    @property
    def identity(self) -> str:
        """Endpoint, model and answer length."""
        return f"openai:{self.base_url}:{self.model}:{self.max_tokens}"

    @property
    def continues(self) -> bool:
        """False: the API has no way to continue a message; servers answer a begun one with a turn of their own."""
        return False

    def complete(self, prompts: Sequence[Sequence[ChatMessage]]) -> list[Completion]:
        """Return one completion per prompt; raise BadInput when the endpoint refuses a whole large batch."""
        self._retries = 0
        try:
            completions = asyncio.run(self._ask_all(prompts))
        except BaseExceptionGroup as group:
            raise _first(group) from group
        self._usage = self._usage.plus(completions, retries=self._retries)
        if len(completions) >= SUSPICIOUS_REFUSALS and all(c.error for c in completions):
            raise BadInput(f"teacher at {self.base_url} refused all {len(prompts)} prompts: {completions[0].error}")
        return completions

    def close(self) -> None:
        """Nothing is kept open between calls."""

    async def _ask_all(self, prompts: Sequence[Sequence[ChatMessage]]) -> list[Completion]:
        turns = asyncio.Semaphore(self.max_concurrency)
        async with openai.AsyncOpenAI(
            base_url=self.base_url, api_key=self.api_key, max_retries=0, timeout=self.patience.request_seconds
        ) as client:

            async def ask(prompt: Sequence[ChatMessage]) -> Completion:
                async with turns:
                    return await self._ask(client, prompt)

            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(ask(prompt)) for prompt in prompts]
        return [task.result() for task in tasks]

    async def _ask(self, client: openai.AsyncOpenAI, prompt: Sequence[ChatMessage]) -> Completion:
        messages = [cast("ChatCompletionMessageParam", {"role": m.role, "content": m.content}) for m in prompt]
        while True:
            try:
                return await self._ask_patiently(client, messages)
            except _WRONG_SETTING as error:
                refused = Reason.CREDENTIALS_INVALID if error.status_code in (401, 403) else None
                raise BadInput(_setting_message(error, self.base_url, self.model), reason=refused) from error
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                if not self._unlearn(error):
                    return Completion("", 0, 0, "refused", error=_short(error))
            except _RETRIED as error:
                tried = self.patience.attempts
                raise Temporary(f"teacher at {self.base_url} failed {tried} times: {_short(error)}") from error

    async def _ask_patiently(
        self, client: openai.AsyncOpenAI, messages: list[ChatCompletionMessageParam]
    ) -> Completion:
        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(_RETRIED),
            stop=tenacity.stop_after_attempt(self.patience.attempts),
            wait=self._wait,
            before_sleep=self._count_retry,
            reraise=True,
        ):
            with attempt:
                answer = await client.chat.completions.create(model=self.model, messages=messages, **self._options)
        return _completion(answer)

    def _wait(self, state: tenacity.RetryCallState) -> float:
        told = _retry_after(state)
        backoff = tenacity.wait_exponential(
            multiplier=self.patience.first_wait_seconds, max=self.patience.longest_wait_seconds
        ) + tenacity.wait_random(0, JITTER_SECONDS)
        return backoff(state) if told is None else min(told, LONGEST_TOLD_SECONDS)

    def _count_retry(self, state: tenacity.RetryCallState) -> None:
        self._retries += 1
        error = state.outcome.exception() if state.outcome else None
        _log.warning("teacher did not answer (%s); attempt %d follows", type(error).__name__, state.attempt_number + 1)

    def _unlearn(self, error: openai.APIStatusError) -> bool:
        """Adapt the options to a refusal that names one of them; return whether asking again makes sense."""
        text = _short(error)
        if "max_completion_tokens" in text and "max_tokens" in self._options:
            self._options = {**self._options, "max_completion_tokens": self._options["max_tokens"]}
            del self._options["max_tokens"]
            return True
        for name in ("temperature", "seed"):
            if name in text and name in self._options:
                self._options = {k: v for k, v in self._options.items() if k != name}
                return True
        return False


def _completion(answer: Any) -> Completion:  # a response model that differs between servers
    choice = answer.choices[0] if answer.choices else None
    text = (choice.message.content or "") if choice else ""
    cut = choice is not None and choice.finish_reason == "length"
    usage = answer.usage
    return Completion(
        text=text,
        prompt_tokens=usage.prompt_tokens if usage else 0,
        completion_tokens=usage.completion_tokens if usage else 0,
        finish_reason="length" if cut else "stop",
    )


def _retry_after(state: tenacity.RetryCallState) -> float | None:
    error = state.outcome.exception() if state.outcome else None
    if not isinstance(error, openai.APIStatusError):
        return None
    try:
        return float(error.response.headers.get("retry-after", ""))
    except ValueError:
        return None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the stage error among the failures of a batch, else the first failure."""
    errors = [error for error in group.exceptions if isinstance(error, StageError)]
    return errors[0] if errors else group.exceptions[0]


def _short(error: Exception) -> str:
    return str(error)[:300]


def _setting_message(error: openai.APIStatusError, base_url: str, model: str) -> str:
    remedy = {
        401: f"put a valid key into {KEY_VARIABLE} (spec.teacher.secretRef)",
        403: f"the key in {KEY_VARIABLE} may not use this model",
        404: "check spec.teacher.baseUrl (it usually ends in /v1) and spec.teacher.model",
    }.get(error.status_code, "check spec.teacher")
    return f"teacher at {base_url} answered {error.status_code} for model {model!r}: {remedy}"
