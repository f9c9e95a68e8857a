# SPDX-License-Identifier: Apache-2.0
"""`thinkrec run`, `serve` and `stop`: the local driver at work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from thinkrec_crds.exit_codes import Exit
from thinkrec_crds.experiment import ThinkRecExperiment
from thinkrec_crds.model import ThinkRecModel
from thinkrec_operator.cli.common import (
    ManifestOption,
    StateOption,
    app,
    err,
    fail,
    load,
    load_all,
    open_state,
    warn_of_fields_without_effect,
)
from thinkrec_operator.cli.tables import metrics_table, report_page
from thinkrec_operator.local.outcome import Outcome
from thinkrec_operator.local.state import State, StateDamaged, StateLocked, utc_now
from thinkrec_operator.local.view import JsonLines, LiveView

CODES = {
    Outcome.DONE: Exit.DONE,
    Outcome.SUSPENDED: Exit.DONE,
    Outcome.BAD_INPUT: Exit.BAD_INPUT,
    Outcome.GATE_FAILED: Exit.GATE_FAILED,
    Outcome.NOTHING_TO_SERVE: Exit.NOT_FOUND,
    Outcome.FAILED: Exit.FAILED,
    Outcome.INTERRUPTED: Exit.INTERRUPTED,
}
DETACHED_SECONDS = 900
"""How long `serve --detach` waits for the first answer: a large base model loads for minutes."""


class OutputFormat(StrEnum):
    """How progress is shown."""

    AUTO = "auto"
    LIVE = "live"
    JSON = "json"


CpusOption = Annotated[
    int | None,
    typer.Option("--cpus", min=1, help="CPUs to use; default: all this process may use.", show_default=False),
]
PortOption = Annotated[int, typer.Option("--port", min=0, max=65_535, help="Port of the gateway; 0 takes a free one.")]
OutputOption = Annotated[
    OutputFormat, typer.Option("--output", "-o", help="auto is live on a terminal and json otherwise.")
]


@app.command()
def run(
    file: ManifestOption,
    state_dir: StateOption = None,
    *,
    serve: Annotated[
        bool, typer.Option("--serve/--no-serve", help="Serve the model once it passed its gates.")
    ] = False,
    report: Annotated[bool, typer.Option("--report", help="Open the report page at the end.")] = False,
    cpus: CpusOption = None,
    port: PortOption = 0,
    output: OutputOption = OutputFormat.AUTO,
) -> None:
    """Train and evaluate a model; finished stages are never run again. Ctrl-C stops, running again goes on.

    A manifest with a ThinkRecExperiment trains the models that are in it too, then compares them offline.

    **Examples**

    - `thinkrec run -f examples/movielens/model.yaml`
    - `thinkrec run -f model.yaml --serve --port 8080`
    - `thinkrec run -f model.yaml -o json > progress.jsonl`
    - `thinkrec run -f examples/movielens/experiment.yaml`
    """
    cpus = cpus or usable_cpus()
    found = load_all(file)
    if any(isinstance(resource, ThinkRecExperiment) for resource in found):
        from thinkrec_operator.cli.compare import compare

        raise typer.Exit(compare(found, file, state_dir, cpus, output=output, report=report))
    model = load(file)
    warn_of_fields_without_effect(model)
    state = open_state(model, file, state_dir)
    wish = Wish(file, cpus, train=True, serve=serve, port=port)
    outcome = drive(model, state, wish, output=output, command="run")
    _tell(outcome, model, state, file, open_report=report)
    raise typer.Exit(CODES[outcome])


@app.command()
def serve(
    file: ManifestOption,
    state_dir: StateOption = None,
    *,
    detach: Annotated[bool, typer.Option("--detach", help="Return once it answers; `thinkrec stop` ends it.")] = False,
    cpus: CpusOption = None,
    port: PortOption = 0,
    output: OutputOption = OutputFormat.AUTO,
) -> None:
    """Serve the trained model until Ctrl-C; nothing is trained.

    **Examples**

    - `thinkrec serve -f model.yaml`
    - `thinkrec serve -f model.yaml --detach --port 8080`
    """
    model = load(file)
    warn_of_fields_without_effect(model)
    state = open_state(model, file, state_dir)
    if detach:
        typer.echo(_detached(state, _serve_command(file, state_dir, cpus, port)))
        return
    wish = Wish(file, cpus or usable_cpus(), train=False, serve=True, port=port)
    outcome = drive(model, state, wish, output=output, command="serve")
    if outcome is Outcome.NOTHING_TO_SERVE:
        fail(f"no revision of {model.metadata.name} is there to serve; first: thinkrec run -f {file}", Exit.NOT_FOUND)
    _tell(outcome, model, state, file, open_report=False)
    raise typer.Exit(CODES[outcome])


@app.command()
def stop(file: ManifestOption, state_dir: StateOption = None) -> None:
    """End the `run` or `serve` that works on this model; stages write their checkpoints first.

    **Example**: `thinkrec stop -f model.yaml`
    """
    model = load(file)
    state = open_state(model, file, state_dir)
    holder = state.holder()
    if holder is None:
        typer.echo(f"nothing is at work on {model.metadata.name}")
        return
    os.kill(holder.pid, signal.SIGTERM)
    while (now := state.holder()) is not None and now.pid == holder.pid:
        time.sleep(0.2)
    typer.echo(f"stopped process {holder.pid} (`thinkrec {holder.command}`)")


def usable_cpus() -> int:
    """Return the CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line asks of the driver."""

    manifest: Path
    cpus: int
    train: bool
    serve: bool
    port: int


def drive(model: ThinkRecModel, state: State, wish: Wish, *, output: OutputFormat, command: str) -> Outcome:
    """Run the local driver under the state's lock, with the view that suits the terminal."""
    try:
        from thinkrec_operator.local.driver import Driver, DriverOptions
        from thinkrec_operator.local.jobs import JobOptions
        from thinkrec_operator.local.materials import NotServableHere
        from thinkrec_operator.local.serving import ServingOptions
    except ModuleNotFoundError as error:
        fail(f"{error.name} is not installed; running models needs: pip install 'thinkrec[local]'", Exit.UNAVAILABLE)
    folder = wish.manifest.resolve().parent
    options = DriverOptions(wish.manifest, wish.cpus, train=wish.train, serve=wish.serve, port=wish.port)
    try:
        with working(state, output=output, command=command) as view:
            driver = Driver(
                lambda: model,
                state,
                options,
                jobs=JobOptions(folder, wish.cpus),
                serving=ServingOptions(folder, dict(os.environ), wish.cpus, wish.port),
                view=view,
            )
            return driver.run()
    except NotServableHere as error:
        fail(str(error), Exit.NOT_FOUND)


@contextmanager
def working(state: State, *, output: OutputFormat, command: str) -> Iterator[LiveView | JsonLines]:
    """Hold the state's lock and show what goes on; end with a message where the folder is in use or damaged."""
    live = output is OutputFormat.LIVE or (output is OutputFormat.AUTO and sys.stdout.isatty())
    view = LiveView(err) if live else JsonLines(sys.stdout)
    try:
        with state.locked(command=command, now=utc_now()), view if isinstance(view, LiveView) else nullcontext():
            yield view
    except StateLocked as error:
        fail(str(error), Exit.BUSY)
    except StateDamaged as error:
        fail(str(error), Exit.BAD_INPUT)


def _tell(outcome: Outcome, model: ThinkRecModel, state: State, file: Path, *, open_report: bool) -> None:
    """Say in a sentence how it ended and what can be done next; details are in the view above."""
    status = state.status()
    stalled = status.condition("Stalled")
    page = report_page(model, status, file)
    if outcome is Outcome.DONE:
        err.print(metrics_table(status))
        if page is not None:
            err.print(f"report: {page}", soft_wrap=True)
        err.print(f"next: thinkrec serve -f {file}", soft_wrap=True)
    elif outcome is Outcome.INTERRUPTED:
        err.print(f"stopped; to go on: thinkrec run -f {file}", soft_wrap=True)
    elif outcome is Outcome.SUSPENDED:
        err.print("suspended: set `spec.suspend` to false to go on")
    else:
        message = stalled.message if stalled is not None else "the server does not start; see its log"
        typer.echo(f"error: {message}\nlogs: {state.logs}", err=True)
    if open_report and page is not None and "://" not in page:
        webbrowser.open(Path(page).as_uri())


def _serve_command(file: Path, state_dir: Path | None, cpus: int | None, port: int) -> list[str]:
    command = [
        sys.executable,
        "-m",
        "thinkrec_operator.cli",
        "serve",
        "-f",
        str(file),
        "-o",
        "json",
        "--port",
        str(port),
    ]
    command += ["--state-dir", str(state_dir)] if state_dir else []
    return command + (["--cpus", str(cpus)] if cpus else [])


def _detached(state: State, command: list[str]) -> str:
    """Start a serving driver of its own and return its address once it answers."""
    if (holder := state.holder()) is not None:
        fail(f"{state.root} is in use by process {holder.pid} (`thinkrec {holder.command}`)", Exit.BUSY)
    state.logs.mkdir(parents=True, exist_ok=True)
    log = state.logs / "driver.log"
    with log.open("wb") as handle:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=handle, stderr=subprocess.STDOUT, start_new_session=True
        )
    until = time.monotonic() + DETACHED_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            told = log.read_text(errors="replace").strip().splitlines() or ["nothing"]
            fail(f"the server ended with exit code {process.returncode}: {told[-1]} (log: {log})", Exit.FAILED)
        serving = state.serving()
        if serving is not None and serving.ready:
            return serving.url
        time.sleep(0.3)
    process.terminate()
    return fail(f"the server did not answer within {DETACHED_SECONDS} s (log: {log})", Exit.UNAVAILABLE)
