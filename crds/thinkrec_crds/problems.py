# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a manifest, in a form that a person can act on and that never repeats a secret."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Location = tuple[str | int, ...]
"""Keys and indexes from the root of a document to a value, as the user typed them."""

_SHOWN_CHARACTERS: Final = 80
_SECRET_NAME: Final = re.compile(
    r"secret|passw|token|credential|api_?-?key|access_?-?key|private_?-?key|authorization", re.I
)
_SECRET_VALUE: Final = re.compile(
    r"AKIA[0-9A-Z]{12,}|\bsk-[\w-]{8,}|\bhf_\w{8,}|\bgh[pousr]_\w{8,}|\bxox[a-z]-|\beyJ[\w-]{10,}\."
    r"|-----BEGIN|://[^/\s]*@|(?<![\w/+.-])[A-Za-z0-9/+]{40}(?![\w/+=.-])"
)
_PLAIN_KEY: Final = re.compile(r"^[A-Za-z_][A-Za-z0-9_-]*$")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to correct."""

    source: str
    """File name, or what stands for it."""
    document: int
    """Number of the YAML document in the source, from 1; 0 means the source as a whole."""
    kind: str
    """Kind of the document as typed; empty when there is none."""
    name: str
    """`metadata.name` of the document; empty when there is none."""
    path: str
    """Where, as the user typed it: `spec.experts.count`; empty means the document as a whole."""
    value: str
    """What was received, shortened and without secrets; empty when that says nothing."""
    message: str
    """What is wrong, as the rest of a sentence that begins with the path."""
    remedy: str
    """What would be right; empty when the message says it."""
    line: int | None = None
    """Line in the source, from 1."""
    column: int | None = None
    """Column in the line, from 1; only for YAML syntax."""

    def __str__(self) -> str:
        """Return the problem as one line of text."""
        place = ":".join(str(part) for part in (self.source, self.line, self.column) if part is not None)
        about = f"{self.kind}/{self.name}" if self.kind and self.name else self.kind
        where = " ".join(part for part in (about, self.path) if part)
        received = f" (received {self.value})" if self.value else ""
        remedy = f". {self.remedy[0].upper()}{self.remedy[1:]}" if self.remedy else ""
        return f"{place}: {where + ': ' if where else ''}{self.message}{received}{remedy}"


class InvalidManifest(ValueError):  # noqa: N818 (the API reads `raise InvalidManifest`)
    """A manifest that cannot be used; carries every problem found in it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Keep the problems and say them all."""
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def path_text(location: Location) -> str:
    """Return a location as a path: dots, indexes in brackets, odd keys in quotes."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN_KEY.match(part):
            text += f".{part}" if text else part
        else:
            text += f"[{json.dumps(shortened(part), ensure_ascii=False)}]"
    return text


def shown(value: Any, location: Location) -> str:
    """Return a value as the user would recognise it, shortened, secrets hidden."""
    if isinstance(value, Mapping):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}" if value else "an empty list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return "a hidden value" if is_secret(value, location) else json.dumps(shortened(value), ensure_ascii=False)
    return shortened(str(value))


def is_secret(value: str, location: Location) -> bool:
    """Return whether a text may be a secret, by its place or by its looks."""
    named = any(isinstance(part, str) and _SECRET_NAME.search(part) for part in location[-2:])
    return bool(named or _SECRET_VALUE.search(value))


def shortened(text: str) -> str:
    """Return a text cut to what fits in a message."""
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"
