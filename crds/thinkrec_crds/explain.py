# SPDX-License-Identifier: Apache-2.0
"""Turns a pydantic error into a sentence and a remedy in the words of the manifest."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from thinkrec_crds.fields import DUPLICATE_ERROR, PATTERN_REMEDIES, QUANTITY_ERROR
from thinkrec_crds.problems import Location, is_secret, path_text
from thinkrec_crds.rules import RULE_ERROR

Sentence = tuple[str, str]
"""What is wrong, and what would be right."""

_LISTED_FIELDS: Final = 24


def explained(error: ErrorDetails, root: type[BaseModel]) -> Sentence:
    """Return what an error means for the person who typed the manifest."""
    kind = error["type"]
    if kind == "extra_forbidden":
        return _unknown_field(error["loc"], root)
    message, remedy = _SENTENCES.get(kind, _as_it_is)(error)
    says_it_all = kind in (
        RULE_ERROR,
        DUPLICATE_ERROR,
        QUANTITY_ERROR,
        "string_pattern_mismatch",
        "literal_error",
        "enum",
    )
    return message, remedy if remedy or says_it_all else described(error["loc"], root)


def fields_of(type_: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the fields of a type by the name they have in a manifest."""
    return {info.alias or name: info for name, info in type_.model_fields.items()}


def model_type(annotation: Any) -> type[BaseModel] | None:
    """Return the contract type behind an optional, annotated or list annotation; None for plain values."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    origin = get_origin(annotation)
    if origin not in (Annotated, Union, UnionType, tuple):
        return None
    found = (model_type(argument) for argument in get_args(annotation))
    return next((type_ for type_ in found if type_ is not None), None)


def type_at(location: Location, root: type[BaseModel]) -> type[BaseModel] | None:
    """Return the contract type of the object at a location."""
    type_: type[BaseModel] | None = root
    for part in location:
        if isinstance(part, int):
            continue
        info = fields_of(type_).get(part) if type_ is not None else None
        type_ = model_type(info.annotation) if info is not None else None
    return type_


def described(location: Location, root: type[BaseModel]) -> str:
    """Return the description of the field at a location, empty when it has none."""
    names = [part for part in location if isinstance(part, str)]
    for end in range(len(names), 0, -1):
        owner = type_at(tuple(names[: end - 1]), root)
        if owner is not None:
            info = fields_of(owner).get(names[end - 1])
            return (info.description or "") if info is not None else ""
    return ""


def _unknown_field(location: Location, root: type[BaseModel]) -> Sentence:
    key = str(location[-1])
    owner = type_at(location[:-1], root)
    known = list(fields_of(owner)) if owner is not None else []
    near = _near(key, known)
    if near:
        return "is not a known field", f"did you mean `{near}`?"
    elsewhere = sorted({path for name, path in _all_paths(root, ()) if name == key})
    if elsewhere:
        return "is not a known field here", f"`{key}` belongs at {' or '.join(f'`{path}`' for path in elsewhere[:3])}"
    return "is not a known field", f"fields here are {', '.join(known[:_LISTED_FIELDS])}" if known else ""


def _near(key: str, known: list[str]) -> str:
    """Return the known name that the user most likely meant, empty when none is close."""
    by_lower = {name.lower(): name for name in known}
    wanted = to_camel(key.replace("-", "_")).lower()
    close = difflib.get_close_matches(wanted, by_lower, n=1, cutoff=0.75)
    return by_lower[close[0]] if close else ""


def _all_paths(type_: type[BaseModel], prefix: Location) -> Iterator[tuple[str, str]]:
    for name, info in fields_of(type_).items():
        if prefix == () and name in ("metadata", "status"):
            continue
        yield name, path_text((*prefix, name))
        child = model_type(info.annotation)
        if child is not None:
            yield from _all_paths(child, (*prefix, name))


def _as_it_is(error: ErrorDetails) -> Sentence:
    return error["msg"][:1].lower() + error["msg"][1:], ""


def _own_words(error: ErrorDetails) -> Sentence:
    return error["msg"], ""


def _missing(error: ErrorDetails) -> Sentence:
    return "must be set", ""


def _choice(error: ErrorDetails) -> Sentence:
    choices = re.findall(r"'([^']*)'", str(error.get("ctx", {}).get("expected", "")))
    message = f"must be one of {', '.join(choices)}" if len(choices) > 1 else f"must be {choices[0]}"
    value = error["input"]
    if isinstance(value, bool):
        return message, "YAML reads yes, no, on and off as true or false; put the word in quotes"
    near = difflib.get_close_matches(str(value).lower(), [choice.lower() for choice in choices], n=1)
    meant = next((choice for choice in choices if near and choice.lower() == near[0]), "")
    return message, f"did you mean {meant}?" if meant else ""


def _pattern(error: ErrorDetails) -> Sentence:
    pattern = str(error.get("ctx", {}).get("pattern", ""))
    return PATTERN_REMEDIES.get(pattern, f"must match {pattern}"), ""


def _text(error: ErrorDetails) -> Sentence:
    value = error["input"]
    if isinstance(value, bool):
        return "must be text", "put the word in quotes"
    if isinstance(value, int | float):
        hidden = is_secret(str(value), error["loc"])
        return "must be text", "put it in quotes" if hidden else f'put it in quotes: "{value}"'
    return f"must be text, not {_form(value)}", ""


def _whole_number(error: ErrorDetails) -> Sentence:
    value = error["input"]
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value):
        return "must be a whole number", f"write it without quotes: {value}"
    return "must be a whole number", ""


def _flag(error: ErrorDetails) -> Sentence:
    quotes = isinstance(error["input"], str) and error["input"].lower() in ("true", "false")
    return "must be true or false", "write it without quotes" if quotes else ""


def _mapping(error: ErrorDetails) -> Sentence:
    return f"must be a mapping of fields, not {_form(error['input'])}", ""


def _list(error: ErrorDetails) -> Sentence:
    return f"must be a list, not {_form(error['input'])}", "begin each element with a dash"


def _bound(words: str, key: str, unit: str = "") -> Callable[[ErrorDetails], Sentence]:
    """Return the sentence for a bound that pydantic reports under ``key``."""
    return lambda error: (f"must {words} {error.get('ctx', {}).get(key)}{unit}", "")


def _too_short(unit: str) -> Callable[[ErrorDetails], Sentence]:
    """Return the sentence for text or a list below its least length."""

    def sentence(error: ErrorDetails) -> Sentence:
        least = error.get("ctx", {}).get("min_length")
        return ("must not be empty" if least == 1 else f"must have at least {least} {unit}"), ""

    return sentence


def _form(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    return "nothing" if value is None else "text"


_SENTENCES: Final[Mapping[str, Callable[[ErrorDetails], Sentence]]] = {
    RULE_ERROR: _own_words,
    DUPLICATE_ERROR: _own_words,
    QUANTITY_ERROR: _own_words,
    "missing": _missing,
    "literal_error": _choice,
    "enum": _choice,
    "string_pattern_mismatch": _pattern,
    "string_type": _text,
    "int_type": _whole_number,
    "int_from_float": _whole_number,
    "bool_type": _flag,
    "model_type": _mapping,
    "model_attributes_type": _mapping,
    "dict_type": _mapping,
    "tuple_type": _list,
    "greater_than_equal": _bound("be at least", "ge"),
    "less_than_equal": _bound("be at most", "le"),
    "string_too_short": _too_short("characters"),
    "string_too_long": _bound("have at most", "max_length", " characters"),
    "too_short": _too_short("elements"),
    "too_long": _bound("have at most", "max_length", " elements"),
}
