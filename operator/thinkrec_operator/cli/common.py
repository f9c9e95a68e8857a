# SPDX-License-Identifier: Apache-2.0
"""What all subcommands share: the application, options, and errors told in one message."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from thinkrec_crds.exit_codes import Exit
from thinkrec_crds.model import ThinkRecModel
from thinkrec_crds.problems import InvalidManifest
from thinkrec_crds.validation import Resource, load_documents, load_model
from thinkrec_operator.local.state import State, state_folder
from thinkrec_operator.unsupported import unsupported_fields

HELP = """From ratings to explained recommendations: train, gate, serve and ask a ThinkRecModel on this machine.

**Examples**

- `thinkrec validate -f model.yaml`
- `thinkrec run -f model.yaml --serve`
- `thinkrec recommend --user 42 -k 10 --explain`
"""
EPILOG = "Exit codes: " + " · ".join(f"{code.value} {code.meaning[:1].lower()}{code.meaning[1:-1]}" for code in Exit)

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
        _refuse(path, error)


def load_all(path: Path) -> tuple[Resource, ...]:
    """Return every resource of ours in the manifest, or end with all problems."""
    text = read_manifest(path)
    try:
        return load_documents(text, str(path))
    except InvalidManifest as error:
        _refuse(path, error)


def _refuse(path: Path, error: InvalidManifest) -> NoReturn:
    for problem in error.problems:
        typer.echo(str(problem), err=True)
    count = len(error.problems)
    fail(f"{path} has {count} problem{'s' if count > 1 else ''}; nothing was started", Exit.BAD_INPUT)


def open_state(owner: Resource, manifest: Path, chosen: Path | None) -> State:
    """Return the state folder of a model or experiment."""
    return State(state_folder(owner, manifest, chosen))


def warn_of_fields_without_effect(model: ThinkRecModel) -> None:
    """Say in a line each what the manifest asks for in vain on this machine."""
    for line in unsupported_fields(model.spec, local=True):
        typer.echo(f"warning: {line}", err=True)
