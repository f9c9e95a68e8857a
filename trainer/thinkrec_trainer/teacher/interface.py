# SPDX-License-Identifier: Apache-2.0
"""What a teacher is, whoever answers: messages in, completions and token counts out. No torch and no client here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer. `error` is set, and `text` empty, when the teacher refused this very prompt (too long, filtered)."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: Literal["stop", "length", "refused"] = "stop"
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What a teacher has cost since it was made."""

    requests: int = 0
    """Prompts answered or refused."""
    retries: int = 0
    """Extra attempts after 429, 5xx, timeouts and broken connections."""
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def plus(self, completions: Sequence[Completion], *, retries: int = 0) -> Usage:
        """Return the usage after these answers."""
        return Usage(
            requests=self.requests + len(completions),
            retries=self.retries + retries,
            prompt_tokens=self.prompt_tokens + sum(c.prompt_tokens for c in completions),
            completion_tokens=self.completion_tokens + sum(c.completion_tokens for c in completions),
        )

    def added(self, other: Usage, *, sign: int = 1) -> Usage:
        """Return the sum of both; with `sign` -1 what was used since `other`."""
        return Usage(
            requests=self.requests + sign * other.requests,
            retries=self.retries + sign * other.retries,
            prompt_tokens=self.prompt_tokens + sign * other.prompt_tokens,
            completion_tokens=self.completion_tokens + sign * other.completion_tokens,
        )


class Teacher(Protocol):
    """Answers prompts. Errors: BadInput (wrong key, model or address), Temporary (out of reach after all retries)."""

    @property
    def usage(self) -> Usage:
        """Requests, retries and tokens so far."""

    @property
    def identity(self) -> str:
        """Who answers and how, without secrets: enters the name of cached answers."""

    @property
    def continues(self) -> bool:
        """Whether a prompt may end with the beginning of the answer, which is then continued; else it is a new turn."""

    def complete(self, prompts: Sequence[Sequence[ChatMessage]]) -> list[Completion]:
        """Return one completion per prompt, in the order of the prompts."""

    def close(self) -> None:
        """Free connections and weights."""
