# SPDX-License-Identifier: Apache-2.0
"""What the documents promise is there: files, headings, commands, targets, valid manifests."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import cli_reference
import pytest

from support import markdown

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "inference" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
COMMANDS = {command.name: command for command in cli_reference.subcommands()}
FOLDERS = {path.name for path in ROOT.iterdir() if path.is_dir()} | {"thinkrec_inference"}
TARGETS = {line.split(":")[0] for line in (ROOT / "Makefile").read_text("utf-8").splitlines() if ": ##" in line}
PACKAGES = sorted(path.parent for path in ROOT.glob("*/thinkrec_*/**/__init__.py"))
EVERY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@EVERY_PAGE
def test_links_lead_somewhere(page: Path) -> None:
    assert list(markdown.broken_links(page.read_text("utf-8"), page)) == []


@EVERY_PAGE
def test_commands_exist_with_the_options_shown(page: Path) -> None:
    shown = markdown.commands(page.read_text("utf-8"), "thinkrec")
    wrong = {line: markdown.wrong_command(line, COMMANDS, complete=complete) for line, complete in shown}
    assert {line: problem for line, problem in wrong.items() if problem} == {}


@EVERY_PAGE
def test_manifests_are_valid(page: Path) -> None:
    assert list(markdown.invalid_manifests(page.read_text("utf-8"))) == []


@EVERY_PAGE
def test_make_targets_exist(page: Path) -> None:
    shown = {line.split()[1] for line, _ in markdown.commands(page.read_text("utf-8"), "make")}
    assert shown - TARGETS == set()


@EVERY_PAGE
def test_files_in_code_font_exist(page: Path) -> None:
    assert list(markdown.missing_files(page.read_text("utf-8"), FOLDERS, ROOT, page.parent)) == []


def test_something_is_checked_at_all() -> None:
    texts = [page.read_text("utf-8") for page in PAGES]
    assert len([line for text in texts for line in markdown.commands(text, "thinkrec")]) > 20
    assert (
        len([block for text in texts for block in markdown.blocks(text) if "apiVersion: thinkrec.io/" in block.text])
        > 2
    )
    assert {"demo", "test", "check"} <= TARGETS


def test_every_document_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text("utf-8")
    pages = [page.relative_to(ROOT / "docs") for page in PAGES if page.is_relative_to(ROOT / "docs")]
    assert [str(page) for page in pages if f"]({page}" not in index and page.name != "README.md"] == []


@pytest.mark.parametrize("package", PACKAGES, ids=lambda folder: folder.name)
def test_a_package_map_names_every_module(package: Path) -> None:
    told = set(re.findall(r"\w+", ast.get_docstring(ast.parse((package / "__init__.py").read_text("utf-8"))) or ""))
    modules = {path.stem for path in package.glob("*.py") if not path.stem.startswith("__")}
    packages = {path.parent.name for path in package.glob("*/__init__.py")}
    assert (modules | packages) - told == set(), "add them to the docstring of __init__.py"


class TestTheChecksThemselves:
    """Each check finds the mistake that it is for."""

    def test_a_link_to_a_missing_file_or_heading(self, tmp_path: Path) -> None:
        (tmp_path / "other.md").write_text("# One `code` heading\n```\n# no heading\n```\n")
        text = (
            "# Here\n[a](other.md#one-code-heading) [b](other.md#no-heading) [c](gone.md) [d](#here) [e](#there)\n"
            "[f](https://x.invalid/y) [`g`](gone.txt) `[h](in/code)`\n```\n[i](in/block)\n```\n"
        )
        page = tmp_path / "page.md"
        page.write_text(text)
        assert list(markdown.broken_links(text, page)) == [
            "other.md#no-heading: there is no heading #no-heading",
            "gone.md: there is no gone.md",
            "#there: there is no heading #there",
            "gone.txt: there is no gone.txt",
        ]

    def test_commands_are_found_in_blocks_and_sentences(self) -> None:
        text = (
            "The `thinkrec` command, `thinkrec stop`, `~/.cache/thinkrec`.\n\n```sh\n$ thinkrec run -f a.yaml   # go\n"
            "cat x | thinkrec\nthinkrec plan -f a.yaml --json | jq .\n```\n\n```python\nthinkrec = 1\n```\n"
        )
        assert list(markdown.commands(text, "thinkrec")) == [
            ("thinkrec run -f a.yaml  ", True),
            ("thinkrec plan -f a.yaml --json", True),
            ("thinkrec stop", False),
        ]

    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            ("thinkrec --help", ""),
            ("thinkrec trian -f x", "there is no subcommand trian"),
            ("thinkrec run -f x --srve", "run has no option --srve"),
            ("thinkrec run --serve", "run needs --file"),
            ("thinkrec run --file=x --no-serve", ""),
            ("thinkrec status -f x -o json", "-o does not take json"),
            ("thinkrec status -f", "-f needs a value"),
            ("thinkrec logs -f x", "logs takes 1 arguments, not 0"),
            ("thinkrec logs adapter -f x --follow", ""),
            ("thinkrec validate x -f x", "validate takes 0 arguments, not 1"),
        ],
    )
    def test_a_wrong_command_line(self, line: str, problem: str) -> None:
        assert markdown.wrong_command(line, COMMANDS, complete=True) == problem

    def test_a_sentence_may_leave_out_what_is_required(self) -> None:
        assert markdown.wrong_command("thinkrec serve --detach", COMMANDS, complete=False) == ""
        assert markdown.wrong_command("thinkrec serve --detatch", COMMANDS, complete=False) != ""

    def test_an_invalid_manifest(self) -> None:
        text = "```yaml\napiVersion: thinkrec.io/v1alpha1\nkind: ThinkRecModel\n```\n\n```yaml\nspec: {a: 1}\n```\n"
        assert any("spec" in problem for problem in markdown.invalid_manifests(text))

    def test_a_missing_file_in_code_font(self, tmp_path: Path) -> None:
        (tmp_path / "docs").mkdir()
        text = "`docs/gone.md` `docs/` `other/gone.md` `docs/<name>.md`"
        assert list(markdown.missing_files(text, {"docs"}, tmp_path)) == ["docs/gone.md"]
