# SPDX-License-Identifier: Apache-2.0
"""Reads what a Markdown page promises: links, headings, code blocks, commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cli_reference

from thinkrec_crds.markdown import anchor
from thinkrec_crds.validation import validate_documents

_FENCE = re.compile(r"^([ ]*)```(\w*)[^\n]*\n(.*?)^\1```[ ]*$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
_SHELL = ("", "sh", "bash", "shell", "console")
_PIPE = re.compile(r"\s[|>&;]|\s#\s")
"""What ends a command on its line: a pipe, a redirection, another command, a comment."""


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    language: str
    text: str


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a page."""
    return [Block(language, body) for _, language, body in _FENCE.findall(text)]


def prose(text: str) -> str:
    """Return a page without its fenced blocks."""
    return _FENCE.sub("", text)


def spans(text: str) -> list[str]:
    """Return what stands in code font inside sentences and tables."""
    return [span.replace("\\|", "|") for span in _SPAN.findall(prose(text))]


def anchors(text: str) -> set[str]:
    """Return the fragments that a page can be entered at."""
    return {anchor(re.sub(r"\]\([^)]*\)", "]", heading)) for heading in _HEADING.findall(prose(text))}


def broken_links(text: str, page: Path) -> Iterator[str]:
    """Yield the relative links of a page that lead nowhere: no such file, or no such heading in it."""
    for target in _LINK.findall(_SPAN.sub("`", prose(text))):
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        name, _, fragment = target.partition("#")
        file = page.parent / name if name else page
        if not file.exists():
            yield f"{target}: there is no {name}"
        elif (
            fragment and file.suffix == ".md" and fragment not in anchors(text if not name else file.read_text("utf-8"))
        ):
            yield f"{target}: there is no heading #{fragment}"


def commands(text: str, program: str) -> Iterator[tuple[str, bool]]:
    """Yield the command lines of a program that a page shows, and whether each must be complete (as in a block)."""
    for block in blocks(text):
        if block.language in _SHELL:
            for line in block.text.replace("\\\n", " ").splitlines():
                if (found := line.strip().removeprefix("$ ")).startswith(f"{program} "):
                    yield _PIPE.split(found)[0], True
    yield from ((_PIPE.split(span)[0], False) for span in spans(text) if span.startswith(f"{program} "))


def wrong_command(line: str, known: Mapping[str, cli_reference.Subcommand], *, complete: bool) -> str:
    """Return what the `thinkrec` command would refuse in a command line; empty when nothing is wrong with it."""
    name, *words = shlex.split(line)[1:]
    if name == "--help":
        return ""
    if name not in known:
        return f"there is no subcommand {name}"
    options = {flag: option for option in known[name].options for flag in option.flags}
    given: list[str] = []
    values = 0
    while words:
        word = words.pop(0)
        if not word.startswith("-"):
            values += 1
            continue
        flag, sign, value = word.partition("=")
        if flag not in options:
            return f"{name} has no option {flag}"
        given += options[flag].flags
        if options[flag].metavar:
            if not sign and not words:
                return f"{flag} needs a value"
            value = value if sign else words.pop(0)
            if options[flag].choices and value not in options[flag].choices:
                return f"{flag} does not take {value}"
    return _incomplete(known[name], given, values) if complete else ""


def _incomplete(command: cli_reference.Subcommand, given: Collection[str], values: int) -> str:
    missing = [option.flags[0] for option in command.options if option.required and option.flags[0] not in given]
    if missing:
        return f"{command.name} needs {', '.join(missing)}"
    expected = len(command.arguments)
    return "" if values == expected else f"{command.name} takes {expected} arguments, not {values}"


def invalid_manifests(text: str) -> Iterator[str]:
    """Yield the problems of the manifests that a page shows."""
    for block in blocks(text):
        if block.language in ("yaml", "yml") and "apiVersion: thinkrec.io/" in block.text:
            yield from (str(problem) for problem in validate_documents(block.text, "block"))


def missing_files(text: str, folders: Collection[str], *bases: Path) -> Iterator[str]:
    """Yield what stands in code font, looks like a path below one of the folders, and is under none of the bases."""
    for span in spans(text):
        promised = "/" in span and span.split("/")[0] in folders and re.fullmatch(r"[\w./-]+", span)
        if promised and not any((base / span).exists() for base in bases):
            yield span
