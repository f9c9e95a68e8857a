# SPDX-License-Identifier: Apache-2.0
"""Reads YAML as the apiserver's clients do, remembering the line of every value.

Differences from plain PyYAML: a repeated key is an error, dates stay text, `1e-4` is a number, tags and self-containing
aliases are refused, and an error in one document does not hide those before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from thinkrec_crds.problems import Location, is_secret, path_text, shortened

MAX_CHARACTERS: Final = 3 * 1024 * 1024
"""Twice the largest object that a cluster stores."""
MAX_VALUES: Final = 200_000
"""Values in one document, aliases counted as often as they are used."""

_PREFIX: Final = "tag:yaml.org,2002:"
_TEXT_TAGS: Final = frozenset({f"{_PREFIX}str", f"{_PREFIX}timestamp", f"{_PREFIX}value"})
_MERGE_TAG: Final = f"{_PREFIX}merge"
_EXPONENT_NUMBER: Final = re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that YAML itself, or its use here, does not allow."""

    location: Location
    message: str
    remedy: str = ""
    line: int | None = None
    column: int | None = None


@dataclass(slots=True)
class Document:
    """One YAML document: its value, the line of each location, and what is wrong with it as YAML."""

    number: int
    value: Any = None
    lines: dict[Location, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def line(self, location: Location) -> int | None:
        """Return the line of a location, or of the nearest one around it."""
        for end in range(len(location), -1, -1):
            if location[:end] in self.lines:
                return self.lines[location[:end]]
        return None


class _TooLargeError(Exception):
    """A document has more values than any real one."""


def read_documents(text: str) -> list[Document]:
    """Return every document of a YAML text; a syntax error is the fault of the last one returned."""
    if len(text) > MAX_CHARACTERS:
        return [Document(1, faults=[Fault((), f"the text is longer than {MAX_CHARACTERS} characters")])]
    return list(_documents(text))


def _documents(text: str) -> Iterator[Document]:
    number = 1
    try:
        loader = yaml.SafeLoader(text)
        while loader.check_node() and (node := loader.get_node()) is not None:
            yield _converted(loader, node, number)
            number += 1
    except yaml.YAMLError as error:
        yield Document(number, faults=[_syntax_fault(error)])
    except RecursionError:
        yield Document(number, faults=[Fault((), "the YAML is nested too deeply")])
    except (ValueError, OverflowError) as error:  # PyYAML lets bad escapes through, for example "\UFFFFFFFF"
        yield Document(number, faults=[Fault((), f"the YAML cannot be read: {shortened(str(error))}")])


def _converted(loader: yaml.SafeLoader, node: yaml.Node, number: int) -> Document:
    document = Document(number)
    try:
        document.value = _Converter(loader, document).convert(node, ())
    except _TooLargeError:
        document.faults.append(
            Fault((), f"the document has more than {MAX_VALUES} values", line=node.start_mark.line + 1)
        )
    except RecursionError:
        document.faults.append(Fault((), "the YAML is nested too deeply, or an alias contains itself"))
    return document


def _syntax_fault(error: yaml.YAMLError) -> Fault:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    detail = str(getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be read")
    message = f"the YAML syntax is wrong: {detail}"
    if mark is None:
        return Fault((), message)
    return Fault((), message, "look at the indentation, quotes and colons there", mark.line + 1, mark.column + 1)


class _Converter:
    """Turns nodes into plain values; every fault is recorded and the reading goes on."""

    def __init__(self, loader: yaml.SafeLoader, document: Document) -> None:
        self._loader = loader
        self._document = document
        self._left = MAX_VALUES

    def convert(self, node: yaml.Node, location: Location) -> Any:
        """Return the value of a node."""
        self._left -= 1
        if self._left < 0:
            raise _TooLargeError
        self._document.lines.setdefault(location, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, location)
        if isinstance(node, yaml.SequenceNode):
            return [self.convert(item, (*location, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, location)

    def _mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE_TAG:
                self._merge(merged, value_node, location)
                continue
            key = self._key(key_node, location)
            if key is None:
                continue
            if key in own:
                self._fault((*location, key), "is given twice", "keep one of them", key_node)
            self._document.lines[(*location, key)] = key_node.start_mark.line + 1
            own[key] = self.convert(value_node, (*location, key))
        return {**merged, **own}

    def _merge(self, merged: dict[str, Any], node: yaml.Node, location: Location) -> None:
        value = self.convert(node, location)
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, dict):
                merged.update({key: item for key, item in part.items() if key not in merged})
            else:
                self._fault(location, "a merge key (<<) must refer to a mapping", "", node)

    def _key(self, node: yaml.Node, location: Location) -> str | None:
        if isinstance(node, yaml.ScalarNode) and node.tag in _TEXT_TAGS | {f"{_PREFIX}int"}:
            return str(node.value)
        self._fault(location, "every field name must be text", "put the name in quotes", node)
        return None

    def _scalar(self, node: yaml.Node, location: Location) -> Any:
        text = str(node.value)
        plain = getattr(node, "style", None) is None
        if node.tag in _TEXT_TAGS:
            return float(text) if plain and _EXPONENT_NUMBER.match(text) else text
        try:
            return self._typed(node.tag, text)
        except (KeyError, ValueError, OverflowError):
            self._fault(location, f"is not a value that can be read as {_tag_name(node.tag)}", "put it in quotes", node)
            return None if is_secret(text, location) else text

    def _typed(self, tag: str, text: str) -> Any:
        """Return a bool, number or null; raise for any other tag, because values must not choose their own type."""
        if tag == f"{_PREFIX}null":
            return None
        if tag == f"{_PREFIX}bool":
            return yaml.SafeLoader.bool_values[text.lower()]
        if ":" in text:
            return text  # YAML 1.1 reads 1:30 as 90; nobody else does
        node = yaml.ScalarNode(tag, text)
        if tag == f"{_PREFIX}int":
            return int(self._loader.construct_yaml_int(node))
        if tag == f"{_PREFIX}float":
            return float(self._loader.construct_yaml_float(node))
        raise KeyError(tag)

    def _fault(self, location: Location, message: str, remedy: str, node: yaml.Node) -> None:
        at = path_text(location) or "the document"
        line = node.start_mark.line + 1
        self._document.faults.append(Fault(location, message if location else f"{at}: {message}", remedy, line))


def _tag_name(tag: str) -> str:
    return tag.removeprefix(_PREFIX)
