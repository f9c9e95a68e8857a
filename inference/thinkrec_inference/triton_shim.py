# SPDX-License-Identifier: Apache-2.0
"""What runs inside Triton's Python stub: BYTES tensors in, a call over the engine's socket, tensors out.

Every Python-backend instance is a process of its own, so a model that held the weights would hold a second copy of
them; the shims hold none and import no torch. The tensors:

    thinkrec_score     request BYTES [1] ScoreRequest as JSON -> scores FP32 [n], gates FP32 [K+1],
                       response BYTES [1] ScoreResponse as JSON
    thinkrec_explain   request BYTES [1] ExplainRequest as JSON -> per event: text_output BYTES [1],
                       event BYTES [1] ExplainEvent as JSON   (decoupled)

JSON in one BYTES tensor, rather than id tensors: ids are the callers' own strings, the history is nested, and
requests of any number of candidates have the same shape, so they batch without ragged inputs. `scores` repeats the
JSON's numbers as a tensor; the client compares both, which notices a stub built against another NumPy (it corrupts
tensors silently). The request `{"probe": true}` is answered with the generation, without scoring.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
from pydantic import TypeAdapter, ValidationError

from thinkrec_crds.engine_api import EngineError, ExplainEvent, ScoreRequest, ScoreResponse
from thinkrec_inference.refusal import Refused, ScoreResult, parse_error

SOCKET_VARIABLE = "THINKREC_ENGINE_SOCKET"
STARTUP_VARIABLE = "THINKREC_ENGINE_STARTUP_SECONDS"
DEADLINE_VARIABLE = "THINKREC_DEADLINE_MILLISECONDS"
EXPLAIN_THREADS = 32
"""Streams in progress; the engine turns further ones away itself."""
PROBE = '{"probe":true}'
_RESULTS = TypeAdapter(list[ScoreResult])
Backend = Any
"""Triton's `triton_python_backend_utils`: exists only inside the stub, carries no types."""


@dataclass(frozen=True, slots=True)
class Engine:
    """The way to the engine process."""

    http: httpx.Client

    @classmethod
    def connect(cls) -> Engine:
        """Connect to the socket named by the environment and wait until the engine is ready."""
        path = os.environ[SOCKET_VARIABLE]
        deadline = int(os.environ.get(DEADLINE_VARIABLE, "10000")) / 1000
        timeout = httpx.Timeout(2 * deadline, connect=1.0)
        http = httpx.Client(transport=httpx.HTTPTransport(uds=path), base_url="http://engine", timeout=timeout)
        engine = cls(http)
        engine.wait(float(os.environ.get(STARTUP_VARIABLE, "300")))
        return engine

    def wait(self, seconds: float) -> None:
        """Return once the engine is ready; raise Refused with its last answer after `seconds`."""
        ends = time.monotonic() + seconds
        while True:
            try:
                self.generation()
            except Refused:
                if time.monotonic() > ends:
                    raise
                time.sleep(0.1)
            else:
                return

    def generation(self) -> str:
        """Return the digest of the bundle that answers."""
        return str(self._call("GET", "/readyz").json()["generation"])

    def score(self, bodies: Sequence[str]) -> list[ScoreResult]:
        """Score the requests (each a JSON object) in one call."""
        return _RESULTS.validate_json(self._call("POST", "/score", "[" + ",".join(bodies) + "]").content)

    def _call(self, method: str, path: str, body: str = "") -> httpx.Response:
        try:
            answer = self.http.request(method, path, content=body)
        except httpx.TransportError as error:
            raise engine_down(error) from error
        if answer.is_error:
            raise refusal(answer.text, answer.status_code)
        return answer


def engine_down(error: Exception) -> Refused:
    """Return the refusal for an engine process that does not answer."""
    return Refused(
        503,
        f"the engine process does not answer ({type(error).__name__}: {error})",
        "Ask again shortly; if it lasts, read the engine's log.",
    )


def refusal(text: str, status: int) -> Refused:
    """Return the refusal that the engine sent."""
    return Refused.of(parse_error(text) or EngineError(status=status, error=text[:500]))


class ScoreShim:
    """The body of the model `thinkrec_score`."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        check_numbers(backend)
        self.engine = Engine.connect()

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer Triton's batch: one engine call for all well-formed requests, one response each, in order."""
        texts = [read_text(self.backend, request) for request in requests]
        answers: list[Any] = [self._early(text) for text in texts]
        waiting = [i for i, answer in enumerate(answers) if answer is None]
        for i, result in zip(waiting, self._score([texts[i] for i in waiting]), strict=True):
            answers[i] = self._answer(result)
        return answers

    def _early(self, text: str) -> Any | None:
        """Answer a probe or a malformed request; None for one that needs the engine's scores."""
        try:
            if text == PROBE:
                return self._respond((), (), f'{{"generation":"{self.engine.generation()}"}}')
            ScoreRequest.from_json(text)
        except ValidationError as error:
            return fail(self.backend, EngineError(status=422, error=explain_invalid(error), remedy="See ScoreRequest."))
        except Refused as refused:
            return fail(self.backend, refused.detail)
        return None

    def _score(self, bodies: list[str]) -> list[ScoreResult]:
        if not bodies:
            return []
        try:
            return self.engine.score(bodies)
        except Refused as refused:
            return [ScoreResult(error=refused.detail)] * len(bodies)

    def _answer(self, result: ScoreResult) -> Any:
        if result.error is not None:
            return fail(self.backend, result.error)
        response = result.response
        assert isinstance(response, ScoreResponse)
        return self._respond(response.scores, response.gates, response.to_json())

    def _respond(self, scores: Sequence[float], gates: Sequence[float], text: str) -> Any:
        tensors = [
            self.backend.Tensor("scores", np.array([scores], dtype=np.float32)),  # (1, n)
            self.backend.Tensor("gates", np.array([gates], dtype=np.float32)),  # (1, K+1)
            self.backend.Tensor("response", np.array([[text.encode()]], dtype=np.object_)),  # (1, 1)
        ]
        return self.backend.InferenceResponse(tensors)

    def close(self) -> None:
        """Give the connection back."""
        self.engine.http.close()


class ExplainShim:
    """The body of the decoupled model `thinkrec_explain`."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        check_numbers(backend)
        self.engine = Engine.connect()
        self.threads = ThreadPoolExecutor(EXPLAIN_THREADS, thread_name_prefix="explain")

    def execute(self, requests: Sequence[Any]) -> None:
        """Hand every request to a thread and return at once, so that Triton goes on forming batches."""
        for request in requests:
            text = read_text(self.backend, request)
            self.threads.submit(self._stream, text, request.get_response_sender())

    def _stream(self, text: str, sender: Any) -> None:
        """Send the events of one explanation; whatever happens, the last thing sent is the FINAL flag."""
        final = self.backend.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        try:
            self._forward(text, sender)
        except Refused as refused:
            sender.send(fail(self.backend, refused.detail), flags=final)
        except Exception as error:  # a stream without its FINAL flag would hang the caller for ever
            detail = EngineError(status=500, error=f"the explanation failed: {error}", remedy="See Triton's log.")
            sender.send(fail(self.backend, detail), flags=final)
        else:
            sender.send(flags=final)

    def _forward(self, text: str, sender: Any) -> None:
        try:
            with self.engine.http.stream("POST", "/explain", content=text) as answer:
                if answer.is_error:
                    raise refusal(answer.read().decode(), answer.status_code)
                for line in answer.iter_lines():
                    if sender.is_cancelled():
                        return
                    sender.send(self._event(ExplainEvent.from_json(line), line))
        except httpx.TransportError as error:
            raise engine_down(error) from error

    def _event(self, event: ExplainEvent, line: str) -> Any:
        tensors = [
            self.backend.Tensor("text_output", np.array([event.text.encode()], dtype=np.object_)),  # (1,)
            self.backend.Tensor("event", np.array([line.encode()], dtype=np.object_)),  # (1,)
        ]
        return self.backend.InferenceResponse(tensors)

    def close(self) -> None:
        """Let the streams end, then give the connection back."""
        self.threads.shutdown(wait=True, cancel_futures=True)
        self.engine.http.close()


def read_text(backend: Backend, request: Any) -> str:
    """Return the JSON text of the input `request`, whatever leading batch dimensions it has."""
    value = backend.get_input_tensor_by_name(request, "request").as_numpy().reshape(-1)[0]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def fail(backend: Backend, detail: EngineError) -> Any:
    """Return an error response whose text is the EngineError as JSON."""
    codes = backend.TritonError
    code = {404: codes.NOT_FOUND, 422: codes.INVALID_ARG, 503: codes.UNAVAILABLE}.get(detail.status, codes.INTERNAL)
    return backend.InferenceResponse(error=backend.TritonError(detail.to_json(), code))


def explain_invalid(error: ValidationError) -> str:
    """Return all wrong fields of a request in one line."""
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'request'}: {e['msg']}" for e in error.errors())


def check_numbers(backend: Backend) -> None:
    """Raise RuntimeError when the stub's idea of an array differs from NumPy's (built against another NumPy)."""
    for sent in (np.array([1, 2, 3], dtype=np.int64), np.array([0.5, -2.25, 3e7], dtype=np.float32)):
        seen = np.from_dlpack(backend.Tensor("echo", sent))
        if not np.array_equal(sent, seen):
            raise RuntimeError(
                f"numeric echo: sent {sent.tolist()}, Triton's stub sees {seen.tolist()}; "
                f"NumPy is {np.__version__}: install the one that the stub was built against (numpy<2 for Triton 2.51)"
            )
