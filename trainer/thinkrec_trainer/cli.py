# SPDX-License-Identifier: Apache-2.0
"""The command line of the trainer image. Exit codes: 0 done, 64 bad input, 75 temporary, 143 interrupted, 1 defect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from thinkrec_crds.stages import StoreOptions
from thinkrec_trainer.errors import BadInput, StageError
from thinkrec_trainer.logs import configure_logs

app = typer.Typer(
    help=__doc__,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

Endpoint = Annotated[str | None, typer.Option(help="S3 endpoint, for example http://127.0.0.1:8333; default: AWS.")]
Region = Annotated[str | None, typer.Option(help="S3 region.")]


@app.callback()
def _start() -> None:
    configure_logs()


@app.command()
def run(
    stage: Annotated[Path, typer.Argument(help="The stage's description (StageSpec as JSON).")],
) -> None:
    """Run one stage and publish its artifact.

    A key that is already published ends at once with 0. Progress goes to standard output as JSON lines, logs go to
    standard error, the termination message goes to $THINKREC_TERMINATION_PATH (default /dev/termination-log).

    Example: `python -m thinkrec_trainer run /etc/thinkrec/stage.json`
    """
    from thinkrec_trainer.protocol import run_stage

    raise typer.Exit(run_stage(stage))


@app.command()
def torchrun(
    stage: Annotated[Path, typer.Argument(help="The stage's description (StageSpec as JSON).")],
) -> None:
    """Run a training stage in several processes: PET_NPROC_PER_NODE here, in PET_NNODES pods.

    Several pods also need PET_MASTER_ADDR, PET_MASTER_PORT and PET_NODE_RANK (default: JOB_COMPLETION_INDEX). Exit
    codes and messages are those of `run`.

    Example: `PET_NPROC_PER_NODE=4 python -m thinkrec_trainer torchrun /etc/thinkrec/stage.json`
    """
    from thinkrec_trainer.protocol import launch_stage

    raise typer.Exit(launch_stage(stage))


@app.command()
def clean(
    spec: Annotated[Path, typer.Argument(help="The artifacts that nobody needs (CleanSpec as JSON).")],
) -> None:
    """Remove artifacts from a store, with their checkpoints and shares.

    What is gone already counts as removed, so it may be repeated. Progress goes to standard output as JSON lines, the
    termination message, with counts, to $THINKREC_TERMINATION_PATH (default /dev/termination-log).

    Example: `python -m thinkrec_trainer clean /etc/thinkrec/clean.json`
    """
    from thinkrec_trainer.clean import run_clean

    raise typer.Exit(run_clean(spec, typer.echo))


@app.command("ship-events")
def ship_events(
    folder: Annotated[Path, typer.Option(help="The gateway's folder of events (its THINKREC_EVENTS_DIR).")],
    store: Annotated[str, typer.Option(help="Root of the store; tables go below `events/` in it.")],
    model: Annotated[str, typer.Option(help="Name of the model whose gateway it is.")],
    once: Annotated[bool, typer.Option("--once", help="Ship what is closed now, then end.")] = False,
    final: Annotated[bool, typer.Option("--final", help="Ship everything, then end: the gateway is going.")] = False,
    interval_seconds: Annotated[float, typer.Option(min=0.1, help="Between two looks at the folder.")] = 10.0,
    grace_seconds: Annotated[float, typer.Option(min=0, help="In the end, to wait for gateway and store.")] = 60.0,
    endpoint: Endpoint = None,
    region: Region = None,
) -> None:
    """Bring a gateway's feedback and exposures into the store, as Parquet by hour and user; run it beside the gateway.

    It goes on until SIGTERM, then ships what is left. While the store is away it tries again, less and less often, and
    removes nothing. After each round in which something happened, a JSON line goes to standard output.

    Example: `python -m thinkrec_trainer ship-events --folder /scratch/serve/events --store s3://models --model movies`
    """
    from thinkrec_trainer.events import ship
    from thinkrec_trainer.events.layout import require_model
    from thinkrec_trainer.store import open_blobs

    try:
        require_model(model)
        if once or final:
            ship.require_folder(folder)
        blobs = open_blobs(store, StoreOptions(endpoint=endpoint, region=region))
    except StageError as error:
        _fail(error)
    shipper = ship.Shipper(folder, blobs, model, typer.echo)
    if once:
        raise typer.Exit(ship.ship_once(shipper))
    if final:
        raise typer.Exit(ship.ship_rest(shipper, grace_seconds))
    raise typer.Exit(ship.ship_until_stopped(shipper, interval_seconds, grace_seconds))


@app.command("compact-events")
def compact_events(
    store: Annotated[str, typer.Option(help="Root of the store, as for ship-events.")],
    model: Annotated[str, typer.Option(help="Name of the model.")],
    days: Annotated[float, typer.Option(min=0.1, help="How far back to look for small tables.")] = 35.0,
    settle_hours: Annotated[float, typer.Option(min=0, help="Hours that ended later than this are left alone.")] = 1.0,
    endpoint: Endpoint = None,
    region: Region = None,
) -> None:
    """Make one table of the many that shippers leave per hour and part; run it every few hours.

    Each of them is removed only after the table that holds its rows is stored. Readers, shippers and other
    compactions may go on meanwhile; ended at any moment, it may simply be run again. A JSON line tells the counts.

    Example: `python -m thinkrec_trainer compact-events --store s3://models --model movies`
    """
    from thinkrec_trainer.events.compact import compact
    from thinkrec_trainer.store import open_blobs

    try:
        blobs = open_blobs(store, StoreOptions(endpoint=endpoint, region=region))
        counts = compact(blobs, model, days=days, settle_hours=settle_hours)
    except StageError as error:
        _fail(error)
    typer.echo(json.dumps({"event": "compacted", **counts}))


@app.command()
def fetch(
    uri: Annotated[str, typer.Argument(help="An artifact, a file or folder, or hf://organisation/name@revision.")],
    to: Annotated[Path, typer.Option(help="Folder for the files: empty, missing, or filled by an earlier fetch.")],
    manifest_digest: Annotated[
        str | None, typer.Option(help="Refuse any other artifact than the one with this digest (sha256:...).")
    ] = None,
    endpoint: Endpoint = None,
    region: Region = None,
) -> None:
    """Bring an artifact or a base model into a folder; every file of an artifact is verified.

    Example: `python -m thinkrec_trainer fetch s3://models/bundle/4f0c… --to /bundle --manifest-digest sha256:9d1e…`

    Example: `python -m thinkrec_trainer fetch hf://HuggingFaceTB/SmolLM2-135M-Instruct --to /model`
    """
    from thinkrec_trainer.delivery import deliver

    try:
        deliver(uri, to, StoreOptions(endpoint=endpoint, region=region), manifest_digest)
    except StageError as error:
        _fail(error)
    typer.echo(str(to))


@app.command()
def show(
    uri: Annotated[str, typer.Argument(help="Folder of an artifact.")],
    endpoint: Endpoint = None,
    region: Region = None,
) -> None:
    """Print an artifact's manifest and its digest as JSON.

    Example: `python -m thinkrec_trainer show file:store/dataset/4f0c…`
    """
    from thinkrec_trainer.store import open_blobs, read_manifest

    try:
        published = read_manifest(open_blobs(uri, StoreOptions(endpoint=endpoint, region=region)))
        if published is None:
            raise BadInput(f"nothing is published at {uri}")
    except StageError as error:
        _fail(error)
    body = {"digest": published.digest, "manifest": json.loads(published.manifest.to_json())}
    typer.echo(json.dumps(body, indent=2, ensure_ascii=False))


def _fail(error: StageError) -> NoReturn:
    typer.echo(f"error: {error}", err=True)
    raise typer.Exit(error.exit_code)
