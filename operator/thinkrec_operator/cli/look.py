# SPDX-License-Identifier: Apache-2.0
"""`thinkrec validate`, `status`, `plan`, `explain-key`, `logs`, `report`, `clean`: look, and tidy up."""

from __future__ import annotations

import json
import shutil
import time
import webbrowser
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from thinkrec_crds.exit_codes import Exit
from thinkrec_crds.stage_kinds import SEMANTICS_VERSION
from thinkrec_crds.validation import validate_documents
from thinkrec_operator import work
from thinkrec_operator.cli.common import (
    ManifestOption,
    StateOption,
    app,
    fail,
    load,
    open_state,
    out,
    read_manifest,
)
from thinkrec_operator.cli.tables import metrics_table, report_page
from thinkrec_operator.graph import Graph, Stage
from thinkrec_operator.local.observe import observe
from thinkrec_operator.local.state import State, StateDamaged, StateLocked, utc_now
from thinkrec_operator.local.store import LocalStore, local_path
from thinkrec_operator.local.view import rows_of, stage_table
from thinkrec_operator.names import artifact_uri
from thinkrec_operator.observed import Observed, Settings

StageArgument = Annotated[
    str, typer.Argument(metavar="STAGE", help="Name of a stage, for example adapter or expert-0.")
]


@app.command()
def validate(file: ManifestOption) -> None:
    """Check a manifest: every problem at once, with its line, the value received and what would be right.

    **Example**: `thinkrec validate -f model.yaml`
    """
    problems = validate_documents(read_manifest(file), str(file))
    for problem in problems:
        typer.echo(str(problem), err=True)
    if problems:
        raise typer.Exit(Exit.BAD_INPUT)
    typer.echo(f"{file} is valid")


@app.command()
def status(
    file: ManifestOption,
    state_dir: StateOption = None,
    output: Annotated[Literal["table", "yaml"], typer.Option("--output", "-o", help="Form of the answer.")] = "table",
) -> None:
    """Show where a model stands: stages, conditions, metrics, server.

    **Example**: `thinkrec status -f model.yaml -o yaml`
    """
    model = load(file)
    state = open_state(model, file, state_dir)
    if not state.status_file.is_file():
        fail(f"{model.metadata.name} was never run here; first: thinkrec run -f {file}", Exit.NOT_FOUND)
    if output == "yaml":
        typer.echo(state.status_file.read_text(), nl=False)
        return
    found = state.status()
    out.print(stage_table(rows_of(found), {}, utc_now()))
    conditions = Table("condition", "status", "reason", "message", box=None, padding=(0, 1))
    for item in found.conditions:
        conditions.add_row(item.type, item.status, item.reason, item.message)
    out.print(conditions)
    if found.metrics:
        out.print(metrics_table(found))
    serving = state.serving()
    if serving is not None:
        out.print(f"serving {serving.revision} at {serving.url}{'' if serving.ready else ' (not ready)'}")


@app.command()
def plan(
    file: ManifestOption,
    state_dir: StateOption = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object for each stage.")] = False,
) -> None:
    """Print the stages of a model, their keys, and which are done. Nothing is started or written.

    **Examples**

    - `thinkrec plan -f model.yaml`
    - `thinkrec plan -f model.yaml --json | jq -r 'select(.done == false).name'`
    """
    observed, graph = _look(file, state_dir)
    results = work.finished_work(observed)
    table = Table("stage", "key", "done", "reads", box=None, padding=(0, 1))
    for stage in graph.stages:
        reads = [item.role for item in stage.inputs]
        done = stage.key in results
        if as_json:
            body = {"name": stage.title, "kind": stage.kind.value, "key": stage.key, "done": done, "reads": reads}
            typer.echo(json.dumps(body, ensure_ascii=False))
        table.add_row(stage.title, stage.key[:12], "yes" if done else "no", ", ".join(reads))
    if not as_json:
        out.print(table)
        if graph.expert_count is None:
            out.print("experts, bundle and evaluate follow once the gate has chosen the number of experts")


@app.command("explain-key")
def explain_key(stage: StageArgument, file: ManifestOption, state_dir: StateOption = None) -> None:
    """Print what a stage's key is made of: change any of it and the stage runs again, change nothing and it never does.

    **Example**: `thinkrec explain-key adapter -f model.yaml`
    """
    observed, graph = _look(file, state_dir)
    found = _named(graph, stage)
    body = {
        "key": found.key,
        "kind": found.kind.value,
        "semanticsVersion": SEMANTICS_VERSION[found.kind],
        "seed": observed.model.spec.training.seed,
        "parameters": found.parameters.model_dump(mode="json", by_alias=True, exclude_none=True),
        "inputs": {item.role: item.key for item in found.inputs},
    }
    typer.echo(json.dumps(body, indent=2, ensure_ascii=False))


@app.command()
def logs(
    stage: StageArgument,
    file: ManifestOption,
    state_dir: StateOption = None,
    *,
    follow: Annotated[bool, typer.Option("--follow", help="Go on as the log grows; Ctrl-C ends.")] = False,
) -> None:
    """Print the newest log of a stage, or of the server (`serving`).

    **Examples**

    - `thinkrec logs adapter -f model.yaml`
    - `thinkrec logs serving -f model.yaml --follow`
    """
    model = load(file)
    state = open_state(model, file, state_dir)
    path = _newest_log(state, stage)
    if path is None:
        names = sorted({_stage_of(log) for log in state.logs.glob("*.log")})
        fail(f"there is no log of {stage!r} in {state.logs}; there is: {', '.join(names) or 'none'}", Exit.NOT_FOUND)
    with path.open(errors="replace") as handle:
        while True:
            typer.echo(handle.read(), nl=False)
            if not follow:
                return
            time.sleep(0.5)


@app.command()
def report(
    file: ManifestOption,
    state_dir: StateOption = None,
    *,
    open_page: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
) -> None:
    """Print the path of the report page of the latest evaluation.

    **Example**: `thinkrec report -f model.yaml --open`
    """
    model = load(file)
    state = open_state(model, file, state_dir)
    page = report_page(model, state.status(), file)
    if page is None:
        fail(f"{model.metadata.name} has no report yet; first: thinkrec run -f {file}", Exit.NOT_FOUND)
    typer.echo(page)
    if open_page and "://" not in page:
        webbrowser.open(Path(page).as_uri())


@app.command()
def clean(
    file: ManifestOption,
    state_dir: StateOption = None,
    *,
    artifacts: Annotated[
        bool, typer.Option("--artifacts", help="Also this model's artifacts in a file: store.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove a model's state on this machine; with --artifacts also what its stages published.

    Without --artifacts the next run finds the finished stages in the store again.

    **Example**: `thinkrec clean -f model.yaml --artifacts`
    """
    model = load(file)
    state = open_state(model, file, state_dir)
    folders = [*(_artifact_folders(file, state_dir) if artifacts else []), state.root]
    existing = [folder for folder in folders if folder.exists()]
    if not existing:
        typer.echo("nothing to remove")
        return
    typer.echo("\n".join(str(folder) for folder in existing))
    if not yes:
        typer.confirm(f"remove these {len(existing)} folders?", abort=True)
    try:
        with state.locked(command="clean", now=utc_now()):
            for folder in existing:
                shutil.rmtree(folder)
            shutil.rmtree(state.root, ignore_errors=True)  # the lock itself may have made it
    except StateLocked as error:
        fail(str(error), Exit.BUSY)


def _look(file: Path, state_dir: Path | None) -> tuple[Observed, Graph]:
    """Return what is known without starting or writing anything."""
    model = load(file)
    state = open_state(model, file, state_dir)
    store = LocalStore(model.spec.artifacts.storage_uri, file.resolve().parent)
    settings = Settings(relative_files=True)
    try:
        jobs = tuple(record.observed(progress=None, deleting=False) for record in state.job_records())
        seen = observe(model, state, store, jobs=jobs, serving=None, settings=settings, now=utc_now())
    except StateDamaged as error:
        fail(str(error), Exit.BAD_INPUT)
    return seen, work.current_graph(seen, work.finished_work(seen))


def _named(graph: Graph, name: str) -> Stage:
    for stage in graph.stages:
        if name in (stage.title, stage.role):
            return stage
    names = ", ".join(stage.title for stage in graph.stages)
    return fail(f"there is no stage {name!r}; there is: {names}", Exit.NOT_FOUND)


def _stage_of(log: Path) -> str:
    stem, _, key = log.stem.rpartition("-")
    return stem if stem and len(key) == 8 and set(key) <= set("0123456789abcdef") else log.stem


def _newest_log(state: State, stage: str) -> Path | None:
    found = [log for log in state.logs.glob("*.log") if _stage_of(log) == stage]
    return max(found, key=lambda log: log.stat().st_mtime, default=None)


def _artifact_folders(file: Path, state_dir: Path | None) -> list[Path]:
    observed, graph = _look(file, state_dir)
    root = observed.model.spec.artifacts.storage_uri
    wanted = {(stage.kind, stage.key) for stage in graph.stages}
    for record in observed.revisions:
        wanted |= {(told.kind, told.key) for told in (*record.data.results.values(), record.evaluation.result)}
    paths = (local_path(artifact_uri(root, kind, key), file.resolve().parent) for kind, key in sorted(wanted))
    return [path for path in paths if path is not None]
