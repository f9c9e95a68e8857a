# SPDX-License-Identifier: Apache-2.0
"""The commands of `python -m thinkrec_inference`: serve, engine, gateway. Parses, reports, decides nothing."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)


class Fusion(StrEnum):
    """How experts are fused; the bundle's own choice when not given."""

    EXACT = "Exact"
    PEFT_LINEAR = "PeftLinear"


class Device(StrEnum):
    """Where the weights live."""

    AUTO = "Auto"
    CPU = "Cpu"
    CUDA = "Cuda"


class Precision(StrEnum):
    """Number format of the base model."""

    AUTO = "Auto"
    FLOAT32 = "Float32"
    BFLOAT16 = "BFloat16"
    FLOAT16 = "Float16"


Bundle = Annotated[Path, typer.Option("--bundle", help="Folder of the bundle (index.json).")]
BaseModel = Annotated[Path, typer.Option("--base-model", help="Folder of the base model (config.json, safetensors).")]
Deadline = Annotated[
    int,
    typer.Option(
        "--deadline-milliseconds", min=10, help="When a request is given up.", envvar="THINKREC_DEADLINE_MILLISECONDS"
    ),
]
FusionOption = Annotated[
    Fusion | None, typer.Option("--fusion", help="Overrides the bundle's fusion.", envvar="THINKREC_FUSION")
]
DeviceOption = Annotated[
    Device, typer.Option("--device", envvar="THINKREC_DEVICE", help="Auto takes CUDA where it is.")
]
PrecisionOption = Annotated[Precision, typer.Option("--precision", envvar="THINKREC_PRECISION")]
Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="Torch threads; default: the CPU limit.", envvar="THINKREC_THREADS"),
]


@app.command()
def serve(
    bundle: Bundle,
    base_model: BaseModel,
    work_dir: Annotated[
        Path | None, typer.Option(help="Logs, events, endpoints.json; default: a temporary folder.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address of the gateway; 0.0.0.0 in a container.", envvar="THINKREC_GATEWAY_HOST")
    ] = "127.0.0.1",
    triton_host: Annotated[str, typer.Option(help="Address of Triton.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", "--gateway-port", min=0, max=65535, help="The gateway's; 0 takes a free one.")
    ] = 0,
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="Triton HTTP.")] = 0,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="Triton gRPC.")] = 0,
    metrics_port: Annotated[int, typer.Option(min=0, max=65535, help="Triton metrics.")] = 0,
    engine_metrics_port: Annotated[int | None, typer.Option(min=1, max=65535, help="Engine metrics over TCP.")] = None,
    startup_seconds: Annotated[float, typer.Option(min=1, help="Longest wait for each process.")] = 300.0,
    log_to_stderr: Annotated[
        bool, typer.Option(help="All logs to standard error (containers).", envvar="THINKREC_LOG_TO_STDERR")
    ] = False,
    fusion: FusionOption = None,
    device: DeviceOption = Device.AUTO,
    precision: PrecisionOption = Precision.AUTO,
    threads: Threads = None,
    deadline_milliseconds: Deadline = 10_000,
) -> None:
    """Start engine, Triton and gateway; write endpoints.json; stop them all on SIGTERM, SIGINT or a death."""
    from thinkrec_inference import supervisor

    os.environ["THINKREC_DEADLINE_MILLISECONDS"] = str(deadline_milliseconds)
    options = supervisor.Options(
        bundle=bundle.absolute(),
        base_model=base_model.absolute(),
        work_dir=(work_dir or Path(tempfile.mkdtemp(prefix="thinkrec-serve-"))).absolute(),
        host=host,
        triton_host=triton_host,
        gateway_port=port,
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        engine_metrics_port=engine_metrics_port,
        engine_arguments=_engine_arguments(fusion, device, precision, threads),
        startup_seconds=startup_seconds,
        log_to_stderr=log_to_stderr,
    )
    with _reporting(supervisor.ServeError, RuntimeError):
        supervisor.serve(options)


@app.command()
def engine(
    bundle: Bundle,
    base_model: BaseModel,
    socket: Annotated[Path, typer.Option(help="Unix socket to listen on; made with mode 0600.")],
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Also serve /metrics on this TCP port.")
    ] = None,
    fusion: FusionOption = None,
    device: DeviceOption = Device.AUTO,
    precision: PrecisionOption = Precision.AUTO,
    threads: Threads = None,
    deadline_milliseconds: Deadline = 10_000,
) -> None:
    """Run the process that owns the weights."""
    from thinkrec_crds.stages import ComputeOptions
    from thinkrec_inference import engine_port, server
    from thinkrec_inference.refusal import Refused
    from thinkrec_inference.scheduler import Limits

    with _reporting(Refused):
        service = server.EngineService(Limits(deadline_seconds=deadline_milliseconds / 1000))
        if metrics_port is not None:
            service.metrics.listen(metrics_port)
        compute = ComputeOptions(device=device.value, precision=precision.value, threads=threads)
        load = engine_port.loader(bundle, base_model, compute=compute, fusion=fusion.value if fusion else None)
        server.run(service, load, socket)


@app.command()
def gateway() -> None:
    """Run the HTTP gateway; its settings are THINKREC_* variables (thinkrec_inference.settings)."""
    from thinkrec_inference.gateway.app import serve as run_gateway
    from thinkrec_inference.settings import SettingsError, gateway_settings

    with _reporting(SettingsError, ValueError, OSError):
        asyncio.run(run_gateway(gateway_settings(os.environ)))


def _engine_arguments(
    fusion: Fusion | None, device: Device, precision: Precision, threads: int | None
) -> tuple[str, ...]:
    given = {"--fusion": fusion, "--device": device, "--precision": precision, "--threads": threads}
    return tuple(text for name, value in given.items() if value is not None for text in (name, str(value)))


@contextmanager
def _reporting(*expected: type[Exception]) -> Iterator[None]:
    """Set up JSON logs; an expected failure becomes one clear message and exit code 1."""
    logging.basicConfig(level=logging.INFO, handlers=[_json_handler()], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # one line per readiness probe otherwise
    try:
        yield
    except expected as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error


def _json_handler() -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    return handler


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message and, for errors, the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        body = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            body["traceback"] = self.formatException(record.exc_info)
        return json.dumps(body, ensure_ascii=False)
