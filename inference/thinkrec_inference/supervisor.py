# SPDX-License-Identifier: Apache-2.0
"""`python -m thinkrec_inference serve`: engine, then Triton, then gateway; one of them dead ends them all.

Nothing is restarted here: a pod is restarted by Kubernetes, a laptop's user wants to read the reason. On SIGTERM or
SIGINT the gateway stops first (no new requests), then Triton (streams in flight end), then the engine.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import httpx

from thinkrec_inference import triton_launcher
from thinkrec_inference.processes import Child, accepts, free_port, start, stop, wait_until
from thinkrec_inference.triton_shim import DEADLINE_VARIABLE, SOCKET_VARIABLE, STARTUP_VARIABLE

log = logging.getLogger(__name__)
TRITON_EXIT_SECONDS = 15
"""Triton lets requests in flight finish for so long."""
POLL_SECONDS = 0.2


class ServeError(RuntimeError):
    """Serving cannot start or go on; the message holds the last words of the process concerned."""


class Interrupted(Exception):  # noqa: N818 - a wish of the user, not a failure
    """SIGTERM or SIGINT arrived."""


@dataclass(frozen=True, slots=True)
class Options:
    """What `serve` was told."""

    bundle: Path
    base_model: Path
    work_dir: Path
    host: str = "127.0.0.1"
    """Address of the gateway."""
    triton_host: str = "127.0.0.1"
    http_port: int = 0
    """Ports: 0 takes a free one."""
    grpc_port: int = 0
    metrics_port: int = 0
    gateway_port: int = 0
    engine_metrics_port: int | None = None
    """TCP port for the engine's metrics; None leaves them on the socket."""
    engine_arguments: tuple[str, ...] = ()
    """Further arguments of the engine process, as on its command line."""
    startup_seconds: float = 300.0
    """For each of the three processes."""
    log_to_stderr: bool = False
    """Containers: all logs to standard error; otherwise one file per process in work_dir/logs."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where everything listens."""

    socket: Path
    triton: triton_launcher.Ports
    gateway_host: str
    gateway_port: int

    def as_json(self) -> dict[str, str]:
        """Return the addresses a caller on this machine can use."""
        host = _reachable(self.triton.host)
        return {
            "gateway": f"http://{_reachable(self.gateway_host)}:{self.gateway_port}",
            "tritonHttp": f"http://{host}:{self.triton.http}",
            "tritonGrpc": f"{host}:{self.triton.grpc}",
            "tritonMetrics": f"http://{host}:{self.triton.metrics}/metrics",
            "engineSocket": str(self.socket),
        }


@dataclass(slots=True)
class Stack:
    """The three processes, in the order they were started."""

    options: Options
    addresses: Addresses
    children: list[Child] = field(default_factory=list)

    @classmethod
    def plan(cls, options: Options) -> Stack:
        """Choose addresses and make the work folder; start nothing."""
        options.work_dir.mkdir(parents=True, exist_ok=True)
        (options.work_dir / "logs").mkdir(exist_ok=True)
        ports = [port or free_port() for port in (options.http_port, options.grpc_port, options.metrics_port)]
        socket = Path(tempfile.mkdtemp(prefix="thinkrec-")) / "engine.sock"  # short: see server.SOCKET_PATH_BYTES
        triton = triton_launcher.Ports(options.triton_host, *ports)
        return cls(options, Addresses(socket, triton, options.host, options.gateway_port or free_port()))

    def start(self) -> None:
        """Start all three and return when the gateway is ready; raise ServeError with the reason, stopping nothing.

        They start side by side (most of each start is imports) and become ready in order: Triton's models wait for the
        engine, the gateway's probe goes through both.
        """
        self.start_engine()
        self.start_triton()
        self.start_gateway()
        self.wait_engine()
        self.wait_triton()
        self.wait_gateway()
        self._write_endpoints()

    def start_engine(self) -> None:
        """Start the engine process."""
        port = self.options.engine_metrics_port
        argv = [
            *(sys.executable, "-m", "thinkrec_inference", "engine"),
            *("--bundle", str(self.options.bundle), "--base-model", str(self.options.base_model)),
            *("--socket", str(self.addresses.socket)),
            *(("--metrics-port", str(port)) if port is not None else ()),
            *self.options.engine_arguments,
        ]
        self._start("engine", argv, os.environ)

    def wait_engine(self) -> None:
        """Return once the engine has reproduced its golden prompts."""
        self._wait("engine", "http://engine/readyz", self.addresses.socket)

    def start_triton(self) -> None:
        """Start Triton."""
        install = triton_launcher.find()
        argv = triton_launcher.command(
            install,
            self.addresses.triton,
            backends=triton_launcher.backend_directory(install, self.options.work_dir),
            models=triton_launcher.model_repository(),
            exit_timeout_seconds=TRITON_EXIT_SECONDS,
        )
        base = {
            **os.environ,
            SOCKET_VARIABLE: str(self.addresses.socket),
            STARTUP_VARIABLE: str(self.options.startup_seconds),
            DEADLINE_VARIABLE: os.environ.get(DEADLINE_VARIABLE, "10000"),
        }
        self._start("triton", argv, triton_launcher.environment(install, base))

    def wait_triton(self) -> None:
        """Return once both models are ready."""
        for model in triton_launcher.MODELS:
            self._wait("triton", f"{self.addresses.as_json()['tritonHttp']}/v2/models/{model}/ready")

    def start_gateway(self) -> None:
        """Start the gateway."""
        found = self.addresses.as_json()
        environment = {
            "THINKREC_EVENTS_DIR": str(self.options.work_dir / "events"),
            **os.environ,
            "THINKREC_BUNDLE_DIR": str(self.options.bundle),
            "THINKREC_TRITON_GRPC": found["tritonGrpc"],
            "THINKREC_GATEWAY_HOST": self.addresses.gateway_host,
            "THINKREC_GATEWAY_PORT": str(self.addresses.gateway_port),
        }
        self._start("gateway", [sys.executable, "-m", "thinkrec_inference", "gateway"], environment)

    def wait_gateway(self) -> None:
        """Return once a probe through the whole path succeeds."""
        self._wait("gateway", f"{self.addresses.as_json()['gateway']}/readyz")

    def child(self, name: str) -> Child:
        """Return the child of that name."""
        return next(child for child in self.children if child.name == name)

    def check_alive(self) -> None:
        """Raise ServeError when a child has ended."""
        for child in self.children:
            code = child.exit_code()
            if code is not None:
                raise ServeError(f"{child.name} ended with {_how(code)}; its last words:\n{child.last_words()}")

    def stop(self) -> None:
        """Stop the children in the opposite order and remove what only they needed."""
        for child in reversed(self.children):
            log.info("stopping %s", child.name)
            stop(child, grace_seconds=TRITON_EXIT_SECONDS + 5)
        self.children.clear()
        self._endpoints.unlink(missing_ok=True)
        self.addresses.socket.unlink(missing_ok=True)
        with suppress(OSError):
            self.addresses.socket.parent.rmdir()

    @property
    def _endpoints(self) -> Path:
        return self.options.work_dir / "endpoints.json"

    def _start(self, name: str, argv: list[str], environment: Mapping[str, str]) -> None:
        path = None if self.options.log_to_stderr else self.options.work_dir / "logs" / f"{name}.log"
        log.info("starting %s%s", name, f", log {path}" if path else "")
        self.children.append(start(name, argv, environment=environment, log=path))

    def _wait(self, name: str, url: str, unix_socket: Path | None = None) -> None:
        begun = time.monotonic()
        last = "no answer yet"
        transport = httpx.HTTPTransport(uds=str(unix_socket)) if unix_socket else None
        with httpx.Client(transport=transport, timeout=3.0, trust_env=False) as http:

            def ready() -> bool:
                nonlocal last
                self.check_alive()
                if unix_socket is not None and not accepts(unix_socket):
                    return False
                try:
                    answer = http.get(url)
                except httpx.TransportError as error:
                    last = str(error) or type(error).__name__
                    return False
                last = f"{answer.status_code} {answer.text[:200]}"
                return answer.status_code == 200

            if not wait_until(ready, seconds=self.options.startup_seconds):
                raise ServeError(
                    f"{name} was not ready after {self.options.startup_seconds:g} s ({url}: {last}); raise "
                    f"--startup-seconds if it only needs longer. Its last words:\n{self.child(name).last_words()}"
                )
        log.info("%s ready after %.1f s", name, time.monotonic() - begun)

    def _write_endpoints(self) -> None:
        """Write endpoints.json whole or not at all: readers wait for its appearance."""
        pids = {"supervisor": os.getpid()} | {child.name: child.pid for child in self.children}
        body: dict[str, Any] = {
            **self.addresses.as_json(),
            "bundle": str(self.options.bundle),
            "baseModel": str(self.options.base_model),
            "pids": pids,
        }
        draft = self._endpoints.with_suffix(".tmp")
        draft.write_text(json.dumps(body, indent=2) + "\n")
        draft.replace(self._endpoints)


def serve(options: Options) -> None:
    """Run until a signal; raise ServeError when a process cannot start or ends by itself. No process is left."""
    _check_folders(options)
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    stack = Stack.plan(options)
    try:
        stack.start()
        log.info("serving at %s", stack.addresses.as_json()["gateway"])
        while True:
            stack.check_alive()
            time.sleep(POLL_SECONDS)
    except Interrupted:
        log.info("stopping on request")
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        stack.stop()


def _interrupt(_: int, __: FrameType | None) -> None:
    raise Interrupted


def _check_folders(options: Options) -> None:
    if not (options.bundle / "index.json").is_file():
        raise ServeError(f"--bundle: {options.bundle} has no index.json; give the folder that holds it")
    if not (options.base_model / "config.json").is_file() and not any(options.base_model.glob("*.gguf")):
        raise ServeError(
            f"--base-model: {options.base_model} has neither config.json nor a GGUF file; give the folder of the model"
        )


def _reachable(host: str) -> str:
    return "127.0.0.1" if host in ("0.0.0.0", "") else host  # noqa: S104 - compared, not bound


def _how(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
