# SPDX-License-Identifier: Apache-2.0
"""The typed client of the Triton models, and the only module that imports tritonclient.

    async with TritonClient("127.0.0.1:8001") as triton:
        response = await triton.score(ScoreRequest(user_id="42", item_ids=("50", "181")))
        async for event in triton.explain(ExplainRequest(user_id="42", item_id="50")):
            ...

Everything that goes wrong is a `Refused` with an HTTP status: the engine's own for a bad request, 503 when Triton or
the engine is away, 504 past the deadline.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

import numpy as np
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from thinkrec_crds.engine_api import ExplainEvent, ExplainRequest, ScoreRequest, ScoreResponse
from thinkrec_inference.refusal import Refused, parse_error
from thinkrec_inference.triton_launcher import MODELS
from thinkrec_inference.triton_shim import PROBE

SCORE_MODEL, EXPLAIN_MODEL = MODELS
PROBE_SECONDS = 2.0
"""A readiness probe must be shorter than the prober's own patience."""
_GONE = {"UNAVAILABLE", "CANCELLED", "RESOURCE_EXHAUSTED"}


class NumbersCorruptedError(RuntimeError):
    """The tensor and the JSON of one answer differ: Triton's stub runs with a NumPy it was not built against."""


class TritonClient:
    """Asks Triton over gRPC; use it inside one event loop."""

    def __init__(self, address: str, *, timeout_seconds: float = 10.0) -> None:
        self.address = address
        self.timeout_seconds = timeout_seconds
        self._grpc = InferenceServerClient(address)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channel."""
        await self._grpc.close()

    async def score(self, request: ScoreRequest, *, timeout_seconds: float | None = None) -> ScoreResponse:
        """Return the scores; the FP32 tensor must repeat the JSON bit for bit, else NumbersCorruptedError."""
        answer = await self._infer(request.to_json(), timeout_seconds or self.timeout_seconds)
        response = ScoreResponse.from_json(_text(answer, "response"))
        check_echo(response, answer.as_numpy("scores"))
        return response

    async def explain(
        self, request: ExplainRequest, *, timeout_seconds: float | None = None
    ) -> AsyncGenerator[ExplainEvent]:
        """Yield the explanation piece by piece; closing the iterator cancels it in the engine.

        The stream is read to its end, beyond the event with `done`: Triton 2.51 keeps a request whose stream was
        cancelled before the FINAL flag, and then cannot unload its model (its shutdown takes the whole exit timeout).
        """
        sent = {"model_name": EXPLAIN_MODEL, "inputs": [_input([1], request.to_json())]}
        async with self._stream(sent, timeout_seconds or self.timeout_seconds) as answers:
            async for result, error in answers:
                if error is not None:
                    raise refused(error, self.address)
                yield ExplainEvent.from_json(_text(result, "event"))

    @asynccontextmanager
    async def _stream(self, sent: dict[str, Any], timeout: float) -> AsyncIterator[AsyncIterator[Any]]:
        async def once() -> AsyncIterator[dict[str, Any]]:
            yield sent

        answers = self._grpc.stream_infer(once(), stream_timeout=timeout)
        try:
            yield answers
        except InferenceServerException as error:
            raise refused(error, self.address) from error
        finally:
            answers.cancel()

    async def models_ready(self) -> tuple[str, ...]:
        """Return the names of our models that Triton calls ready; raise Refused when Triton is away."""
        try:
            ready = [await self._grpc.is_model_ready(name, client_timeout=PROBE_SECONDS) for name in MODELS]
        except InferenceServerException as error:
            raise refused(error, self.address) from error
        return tuple(name for name, yes in zip(MODELS, ready, strict=True) if yes)

    async def generation(self) -> str:
        """Return the generation of the engine behind Triton: proves the whole path without scoring anything."""
        answer = await self._infer(PROBE, PROBE_SECONDS)
        return str(json.loads(_text(answer, "response"))["generation"])

    async def _infer(self, text: str, timeout: float) -> Any:
        try:
            return await self._grpc.infer(SCORE_MODEL, [_input([1, 1], text)], client_timeout=timeout)
        except InferenceServerException as error:
            raise refused(error, self.address) from error


def _input(shape: list[int], text: str) -> InferInput:
    tensor = InferInput("request", shape, "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode()], dtype=np.object_).reshape(shape))
    return tensor


def _text(answer: Any, name: str) -> str:
    value: bytes = answer.as_numpy(name).reshape(-1)[0]
    return value.decode()


def check_echo(response: ScoreResponse, scores: np.ndarray[Any, Any]) -> None:
    """Raise NumbersCorruptedError unless `scores` (1, n) FP32 holds the very numbers of the JSON."""
    if not np.array_equal(np.array(response.scores, dtype=np.float32), scores.reshape(-1)):
        raise NumbersCorruptedError(
            f"thinkrec_score sent {list(response.scores)[:5]} as JSON and {scores.reshape(-1)[:5].tolist()} as tensor: "
            "Triton's Python stub and NumPy do not fit; install numpy<2 where Triton 2.51 runs"
        )


def refused(error: InferenceServerException, address: str) -> Refused:
    """Return what a Triton error means to the caller."""
    status, message = str(error.status() or "").removeprefix("StatusCode."), str(error.message())
    detail = parse_error(message)
    if detail is not None:
        return Refused.of(detail)
    if status == "DEADLINE_EXCEEDED":
        return Refused(504, "the answer did not come within the deadline", "Ask for fewer candidates, or again later.")
    if status in _GONE:
        return Refused(
            503, f"Triton at {address} does not answer: {message[:200]}", "Ask again shortly.", retry_after=2
        )
    return Refused(502, f"Triton failed: {message[:300]}", "See Triton's log.")
