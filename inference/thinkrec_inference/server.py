# SPDX-License-Identifier: Apache-2.0
"""The engine process: HTTP over a Unix domain socket, for the Triton shims of the same pod.

    POST /score    [ScoreRequest, …] -> [ScoreResult, …] in order; 503 + Retry-After when the backlog is too long
    POST /explain  ExplainRequest -> ExplainEvent per line (NDJSON); closing the connection cancels
    POST /swap     {"bundle": DIR} -> {"generation": …}: another bundle over the same base model
    GET  /readyz   200 {"generation": …} once the golden prompts were reproduced
    GET  /metrics  Prometheus

The socket is made with mode 0600: whoever may open it may use the engine, nobody else, and no port is taken.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client import generate_latest
from pydantic import TypeAdapter, ValidationError

from thinkrec_crds.contract import Contract
from thinkrec_crds.engine_api import EngineError, ExplainEvent, ExplainRequest, ScoreRequest, ScoreResponse
from thinkrec_inference.engine_metrics import EngineMetrics
from thinkrec_inference.refusal import Refused, ScoreResult
from thinkrec_inference.scheduler import ExplainJob, Limits, Scheduler, ScoringEngine

log = logging.getLogger(__name__)
SOCKET_PATH_BYTES = 107
"""Longest path a Unix socket address holds on Linux."""
_REQUESTS = TypeAdapter(list[ScoreRequest])
_Event = ExplainEvent | Exception | None


class SwapRequest(Contract):
    """Which bundle to serve from now on."""

    bundle: str


class EngineService:
    """The scheduler and whether it may be asked."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.metrics = EngineMetrics()
        self._scheduler: Scheduler | None = None

    def open(self, engine: ScoringEngine, tokens_per_second: float) -> None:
        """Start answering with a checked engine."""
        scheduler = Scheduler(engine, self.limits, self.metrics, tokens_per_second=tokens_per_second)
        self.metrics.tokens_per_second.set(tokens_per_second)
        self.metrics.serves(engine.generation)
        scheduler.start()
        self._scheduler = scheduler

    def close(self) -> None:
        """End the worker thread."""
        if self._scheduler is not None:
            self._scheduler.close()

    @property
    def scheduler(self) -> Scheduler:
        """Return the scheduler; raise Refused (503) while the weights are loading."""
        if self._scheduler is None:
            raise Refused(503, "the engine is loading its weights", "Wait for /readyz.", retry_after=2)
        return self._scheduler


def create_app(service: EngineService, load: Callable[[], tuple[ScoringEngine, float]]) -> FastAPI:
    """Return the HTTP application; `load` runs in a thread, and its failure ends the process."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(_load(service, load))
        yield
        loading.cancel()
        service.close()

    app = FastAPI(title="thinkrec engine", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(ValidationError, _invalid)
    app.add_api_route("/score", _score_route(service), methods=["POST"])
    app.add_api_route("/explain", _explain_route(service), methods=["POST"])
    app.add_api_route("/swap", _swap_route(service), methods=["POST"])
    app.add_api_route("/readyz", _ready_route(service), methods=["GET"])
    app.add_api_route("/metrics", _metrics_route(service), methods=["GET"])
    return app


async def _load(service: EngineService, load: Callable[[], tuple[ScoringEngine, float]]) -> None:
    try:
        engine, tokens_per_second = await asyncio.to_thread(load)
    except Exception as error:  # whatever went wrong, an engine without weights must not linger half alive
        log.critical("the engine cannot start: %s", error, exc_info=not isinstance(error, Refused))
        logging.shutdown()
        os._exit(1)
    service.open(engine, tokens_per_second)
    log.info("ready: bundle %s, %.0f tokens/s", engine.generation, tokens_per_second)


def _score_route(service: EngineService) -> Callable[[Request], object]:
    async def score(request: Request) -> Response:
        requests = _REQUESTS.validate_json(await request.body())
        futures = service.scheduler.submit(requests)
        results = await asyncio.gather(*(_result(future) for future in futures))
        return Response("[" + ",".join(r.to_json() for r in results) + "]", media_type="application/json")

    return score


async def _result(future: Future[ScoreResponse]) -> ScoreResult:
    try:
        return ScoreResult(response=await asyncio.wrap_future(future))
    except Refused as refusal:
        return ScoreResult(error=refusal.detail)
    except Exception as error:  # a defect in one request's scoring must not cost its neighbours their answers
        log.exception("scoring failed")
        return ScoreResult(
            error=EngineError(status=500, error=f"scoring failed: {error}", remedy="See the engine's log.")
        )


def _explain_route(service: EngineService) -> Callable[[Request], object]:
    async def explain(request: Request) -> Response:
        parsed = ExplainRequest.from_json(await request.body())
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[_Event] = asyncio.Queue()
        job = ExplainJob(parsed, lambda event: _emit(loop, queue, event))
        service.scheduler.explain(job)
        try:
            first = await queue.get()
        except asyncio.CancelledError:
            job.cancelled.set()
            raise
        if isinstance(first, Exception):
            raise first
        return StreamingResponse(_lines(first, queue, job), media_type="application/x-ndjson")

    return explain


def _emit(loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[_Event], event: _Event) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(queue.put_nowait, event)


async def _lines(first: ExplainEvent | None, queue: asyncio.Queue[_Event], job: ExplainJob) -> AsyncIterator[str]:
    """Yield one JSON line per event; leaving early, for whatever reason, cancels the job."""
    event: _Event = first
    try:
        while isinstance(event, ExplainEvent):
            yield event.to_json() + "\n"
            event = await queue.get()
        if isinstance(event, Exception):
            log.error("an explanation failed after its first words: %s", event)
            yield ExplainEvent(text="", done=True, finish_reason="cancelled").to_json() + "\n"
    finally:
        job.cancelled.set()


def _swap_route(service: EngineService) -> Callable[[Request], object]:
    changing = asyncio.Lock()

    async def swap(request: Request) -> Response:
        folder = Path(SwapRequest.from_json(await request.body()).bundle)
        scheduler = service.scheduler
        async with changing:
            await asyncio.to_thread(scheduler.engine.swap, folder)
        service.metrics.serves(scheduler.engine.generation)
        log.info("swapped to bundle %s", scheduler.engine.generation)
        return JSONResponse({"generation": scheduler.engine.generation})

    return swap


def _ready_route(service: EngineService) -> Callable[[], object]:
    async def readyz() -> Response:
        return JSONResponse({"generation": service.scheduler.engine.generation})

    return readyz


def _metrics_route(service: EngineService) -> Callable[[], object]:
    async def metrics() -> Response:
        return Response(generate_latest(service.metrics.registry), media_type="text/plain; version=0.0.4")

    return metrics


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after is not None else {}
    return Response(error.detail.to_json(), error.detail.status, headers, media_type="application/json")


async def _invalid(_: Request, error: Exception) -> Response:
    detail = EngineError(status=422, error=str(error), remedy="Send the JSON that thinkrec_crds.engine_api describes.")
    return Response(detail.to_json(), 422, media_type="application/json")


def bind_socket(path: Path) -> socket.socket:
    """Return a listening-ready Unix socket of mode 0600; raise Refused when the path cannot hold one."""
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES:
        raise Refused(
            500,
            f"--socket: {path} has {len(os.fsencode(path))} bytes; a Unix socket path holds {SOCKET_PATH_BYTES}",
            "Give a shorter path, for example in /tmp.",
        )
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(mask)
    return listener


def run(service: EngineService, load: Callable[[], tuple[ScoringEngine, float]], path: Path) -> None:
    """Serve until SIGTERM or SIGINT."""
    listener = bind_socket(path)
    config = uvicorn.Config(
        create_app(service, load), log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=5
    )
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        path.unlink(missing_ok=True)
