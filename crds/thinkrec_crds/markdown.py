# SPDX-License-Identifier: Apache-2.0
"""The few pieces of Markdown that generated pages are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import yaml


def generated_note(source: str, command: str) -> str:
    """Return the comment that tells an editor where the page comes from."""
    return f"<!-- Generated from {source} by `{command}`, do not edit. -->"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; a bar inside a cell is escaped, for it would end the cell."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(_cell(text) for text in line)} |" for line in lines)


def page(*blocks: str) -> str:
    """Return blocks as one text, an empty line between them; empty blocks are left out."""
    return "\n\n".join(block for block in blocks if block) + "\n"


def bullets(items: Iterable[str]) -> str:
    """Return a list with one line for each item."""
    return "\n".join(f"- {item}" for item in items)


def code(text: str) -> str:
    """Return text in code font."""
    return f"`{text}`"


def either(words: Sequence[str]) -> str:
    """Return alternatives as in a sentence."""
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]


def yaml_value(value: Any) -> str:
    """Return a value as one has to type it in a manifest: in quotes where YAML would read something else."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...").replace("'", '"')


def anchor(heading: str) -> str:
    """Return the fragment that a heading gets on GitHub."""
    kept = "".join(letter for letter in heading.lower() if letter.isalnum() or letter in "-_ ")
    return kept.strip().replace(" ", "-")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
