# SPDX-License-Identifier: Apache-2.0
"""docs/cli.md is what the command says of itself, whatever the terminal."""

from __future__ import annotations

from pathlib import Path

import cli_reference
import pytest
import typer.main

from thinkrec_crds.exit_codes import Exit
from thinkrec_operator.cli import app

EVERY_COMMAND = pytest.mark.parametrize("command", cli_reference.subcommands(), ids=lambda command: command.name)


def test_the_page_is_fresh() -> None:
    assert cli_reference.main(["--check"]) == 0, f"run `{cli_reference.COMMAND}`"


def test_check_tells_a_stale_page_and_writing_mends_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--page", str(tmp_path / "cli.md")]
    assert cli_reference.main([*arguments, "--check"]) == 1
    assert "cli.md is stale" in capsys.readouterr().err
    assert cli_reference.main(arguments) == 0
    assert cli_reference.main([*arguments, "--check"]) == 0


def test_no_terminal_has_a_say_in_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("TERMINAL_WIDTH", "30")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert cli_reference.reference() == cli_reference.PAGE.read_text("utf-8")


def test_it_knows_the_commands_that_typer_runs() -> None:
    assert {command.name for command in cli_reference.subcommands()} == set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


@EVERY_COMMAND
def test_it_knows_the_options_that_typer_takes(command: cli_reference.Subcommand) -> None:
    run = typer.main.get_command(app).commands[command.name]  # type: ignore[attr-defined]
    taken = [item for item in run.params if item.opts[0].startswith("-") and item.opts != ["--help"]]
    assert [item.flags for item in command.options] == [(*item.opts, *item.secondary_opts) for item in taken]
    assert [item.required for item in command.options] == [item.required for item in taken]
    assert [item.help for item in command.options] == [item.help for item in taken]
    assert [bool(item.metavar) for item in command.options] == [not item.is_flag for item in taken]


@EVERY_COMMAND
def test_a_section_says_all_of_a_command(command: cli_reference.Subcommand) -> None:
    page = cli_reference.reference()
    section = page.split(f"## `thinkrec {command.name}`")[1].split("\n## ")[0]
    assert command.help in section
    for item in command.parameters:
        assert item.help
        assert item.help in section
        assert all(flag in section for flag in item.flags)


def test_values_and_choices_that_are_known() -> None:
    page = cli_reference.reference()
    assert "| `--output, -o <auto, live or json>` | auto is live on a terminal and json otherwise. | `auto` |" in page
    assert "| `-k <whole number, 1 to 1000>` | Items to recommend. | `10` |" in page
    assert "| `--serve, --no-serve` |" in page
    assert "thinkrec logs STAGE --file FILE [OPTIONS]" in page


def test_every_exit_code_is_listed() -> None:
    assert all(f"- {code.value}: {code.meaning}" in cli_reference.reference() for code in Exit)
