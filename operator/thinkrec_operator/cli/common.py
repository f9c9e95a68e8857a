# SPDX-License-Identifier: Apache-2.0
"""What all subcommands share: the application, options, exit codes, and errors told in one message."""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from thinkrec_crds.model import ThinkRecModel
from thinkrec_crds.problems import InvalidManifest
from thinkrec_crds.validation import load_model
from thinkrec_operator.local.state import State, state_folder


class Exit(IntEnum):
    """Exit codes of `thinkrec`."""

    DONE = 0
    DEFECT = 1
    USAGE = 2
    """Options and arguments; typer's own code."""
    BAD_INPUT = 64
    """The manifest or the data cannot work: correct what the message names."""
    GATE_FAILED = 65
    """Trained, but an evaluation gate was missed."""
    NOT_FOUND = 66
    """There is nothing of that name yet."""
    UNAVAILABLE = 69
    """No server answers."""
    FAILED = 70
    """A stage or the server failed and its retries are used up."""
    BUSY = 75
    """Another thinkrec process works on the same model."""
    INTERRUPTED = 130
    """Stopped by Ctrl-C or SIGTERM; run it again to go on."""


HELP = """From ratings to explained recommendations: train, gate, serve and ask a ThinkRecModel on this machine.

**Examples**

- `thinkrec validate -f model.yaml`
- `thinkrec run -f model.yaml --serve`
- `thinkrec recommend -f model.yaml --user 42 -k 10 --explain`
"""
EPILOG = (
    "Exit codes: 0 done · 1 defect · 2 usage · 64 manifest or data cannot work · 65 evaluation gate missed · "
    "66 nothing of that name · 69 no server answers · 70 a stage or the server failed · 75 another thinkrec process "
    "is at work · 130 interrupted, run again to go on."
)

app = typer.Typer(
    name="thinkrec",
    help=HELP,
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)

out = Console()
err = Console(stderr=True)

ManifestOption = Annotated[
    Path,
    typer.Option("--file", "-f", metavar="FILE", help="Manifest with one ThinkRecModel (YAML).", show_default=False),
]
StateOption = Annotated[
    Path | None,
    typer.Option("--state-dir", metavar="DIR", help="Where state is kept; default: .thinkrec beside the manifest."),
]


def fail(message: str, code: Exit) -> NoReturn:
    """Say what was wrong and end with this exit code."""
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(code)


def read_manifest(path: Path) -> str:
    """Return the manifest's text, or end with a message."""
    try:
        return path.read_text()
    except FileNotFoundError:
        fail(f"--file {path}: there is no such file", Exit.NOT_FOUND)
    except IsADirectoryError:
        fail(f"--file {path} is a folder; name the YAML file in it", Exit.BAD_INPUT)
    except UnicodeDecodeError:
        fail(f"--file {path} is not UTF-8 text; name a YAML file", Exit.BAD_INPUT)
    except OSError as error:
        fail(f"--file {path} cannot be read: {error.strerror}", Exit.NOT_FOUND)


def load(path: Path) -> ThinkRecModel:
    """Return the manifest's model, or end with all problems."""
    text = read_manifest(path)
    try:
        return load_model(text, str(path))
    except InvalidManifest as error:
        for problem in error.problems:
            typer.echo(str(problem), err=True)
        count = len(error.problems)
        fail(f"{path} has {count} problem{'s' if count > 1 else ''}; nothing was started", Exit.BAD_INPUT)


def open_state(model: ThinkRecModel, manifest: Path, chosen: Path | None) -> State:
    """Return the model's state folder."""
    return State(state_folder(model, manifest, chosen))
