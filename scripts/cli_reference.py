# SPDX-License-Identifier: Apache-2.0
"""Write docs/cli.md from the `thinkrec` command: its help texts, options and exit codes.

    python scripts/cli_reference.py            # write
    python scripts/cli_reference.py --check    # only say whether it is stale

The page is made from the declared commands, not from a rendered `--help`, so no terminal has a say in it.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from typer.models import ArgumentInfo, CommandInfo, OptionInfo

from thinkrec_crds.exit_codes import Exit
from thinkrec_crds.markdown import bullets, code, either, generated_note, page, table
from thinkrec_operator.cli import app

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
COMMAND = "python scripts/cli_reference.py"


@dataclass(frozen=True, slots=True)
class Parameter:
    """An option or an argument of a subcommand."""

    flags: tuple[str, ...]
    """Every spelling of an option, its negation too; empty for an argument."""
    metavar: str
    """What stands for its value; empty for a flag."""
    choices: tuple[str, ...]
    required: bool
    default: str
    """Empty where there is none, or where the help tells it."""
    help: str


@dataclass(frozen=True, slots=True)
class Subcommand:
    """One subcommand as it is declared."""

    name: str
    help: str
    parameters: tuple[Parameter, ...]

    @property
    def options(self) -> tuple[Parameter, ...]:
        """Return what is given by a flag."""
        return tuple(item for item in self.parameters if item.flags)

    @property
    def arguments(self) -> tuple[Parameter, ...]:
        """Return what is given by its place."""
        return tuple(item for item in self.parameters if not item.flags)

    @property
    def usage(self) -> str:
        """Return the command line in short: what is required by name, the rest as [OPTIONS]."""
        needed = [f"{item.flags[0]} {item.metavar}" for item in self.options if item.required]
        return " ".join(["thinkrec", self.name, *(item.metavar for item in self.arguments), *needed, "[OPTIONS]"])


def subcommands() -> tuple[Subcommand, ...]:
    """Return every subcommand of `thinkrec`, by name."""
    found = [_subcommand(info) for info in app.registered_commands if not info.hidden]
    return tuple(sorted(found, key=lambda command: command.name))


def reference() -> str:
    """Return the page."""
    commands = subcommands()
    return page(
        "# The `thinkrec` command",
        generated_note("operator/thinkrec_operator/cli", COMMAND),
        inspect.cleandoc(str(app.info.help)),
        table(("subcommand", "what it does"), [(_link(item), item.help.split("\n\n")[0]) for item in commands]),
        "Every subcommand has `--help`. The manifest's fields: [ThinkRecModel](reference/thinkrecmodel.md).",
        *(_section(item) for item in commands),
        "## Exit codes",
        bullets(f"{item.value}: {item.meaning}" for item in Exit),
        "What to do about each: [troubleshooting](troubleshooting.md#exit-codes-of-thinkrec).",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the page; return the exit status."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the page is stale")
    parser.add_argument("--page", type=Path, default=PAGE, help="where the page is")
    options = parser.parse_args(arguments)
    text = reference()
    if options.page.is_file() and options.page.read_text(encoding="utf-8") == text:
        return 0
    if options.check:
        sys.stderr.write(f"{options.page.name} is stale: run `{COMMAND}`\n")
        return 1
    options.page.write_text(text, encoding="utf-8")
    sys.stdout.write(f"wrote {options.page.name}\n")
    return 0


def _link(command: Subcommand) -> str:
    return f"[{code(command.name)}](#thinkrec-{command.name})"


def _section(command: Subcommand) -> str:
    blocks = [f"## `thinkrec {command.name}`", f"```text\n{command.usage}\n```", command.help]
    rows = [(_spelling(item), item.help, _default(item)) for item in (*command.arguments, *command.options)]
    return "\n\n".join([*blocks, table(("option", "meaning", "default"), rows)])


def _spelling(item: Parameter) -> str:
    return code(" ".join([*([", ".join(item.flags)] if item.flags else []), *([item.metavar] if item.metavar else [])]))


def _default(item: Parameter) -> str:
    return "**required**" if item.required else code(item.default) if item.default else ""


def _subcommand(info: CommandInfo) -> Subcommand:
    function = info.callback
    if function is None:
        raise TypeError(f"command {info.name} has no function")
    hints = get_type_hints(function, include_extras=True)
    given = inspect.signature(function).parameters.values()
    parameters = tuple(_parameter(item, hints[item.name]) for item in given)
    name = info.name or function.__name__.replace("_", "-")
    return Subcommand(name, inspect.getdoc(function) or "", parameters)


def _parameter(declared: inspect.Parameter, hint: Any) -> Parameter:
    """Return a parameter from its `Annotated[type, typer.Option(...)]` and its default."""
    type_, *notes = get_args(hint)
    info = next(note for note in notes if isinstance(note, OptionInfo | ArgumentInfo))
    (plain,) = {item for item in _union(type_) if item is not NoneType}
    default = None if declared.default is inspect.Parameter.empty else declared.default
    spelled = (info.default, *(info.param_decls or ()))  # inside Annotated the first spelling takes the default's place
    flags = tuple(flag for text in spelled if isinstance(text, str) for flag in text.split("/"))
    if isinstance(info, OptionInfo) and not flags:
        flags = (f"--{declared.name.replace('_', '-')}",)
    return Parameter(
        flags=flags,
        metavar="" if plain is bool else _metavar(info, plain),
        choices=_choices(plain),
        required=declared.default is inspect.Parameter.empty,
        default="" if default is None or plain is bool or not info.show_default else f"{_plain(default)}",
        help=info.help or "",
    )


def _metavar(info: OptionInfo | ArgumentInfo, type_: Any) -> str:
    if info.metavar:
        return info.metavar
    if _choices(type_):
        return f"<{either(_choices(type_))}>"
    name = {int: "whole number", float: "number", Path: "path"}.get(type_, "text")
    if info.max is not None:
        return f"<{name}, {info.min:g} to {info.max:g}>"
    return f"<{name}, at least {info.min:g}>" if info.min is not None else f"<{name}>"


def _choices(type_: Any) -> tuple[str, ...]:
    if isinstance(type_, type) and issubclass(type_, Enum):
        return tuple(f"{_plain(item)}" for item in type_)
    return get_args(type_) if get_origin(type_) is Literal else ()


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def _union(type_: Any) -> tuple[Any, ...]:
    return get_args(type_) if get_origin(type_) in (Union, UnionType) else (type_,)


if __name__ == "__main__":
    sys.exit(main())
