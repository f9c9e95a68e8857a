# SPDX-License-Identifier: Apache-2.0
"""Checks manifests without a cluster: every problem at once, each with its place, its value and its remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from thinkrec_crds import group
from thinkrec_crds.experiment import ThinkRecExperiment
from thinkrec_crds.explain import explained, fields_of, model_type
from thinkrec_crds.manifest import Document, Fault, read_documents
from thinkrec_crds.model import ThinkRecModel
from thinkrec_crds.problems import InvalidManifest, Location, Problem, path_text, shortened, shown
from thinkrec_crds.rules import RULE_ERROR, ApiType, Rule

Resource = ThinkRecModel | ThinkRecExperiment

_TYPES: Final[Mapping[str, type[ThinkRecModel] | type[ThinkRecExperiment]]] = {
    group.MODEL_KIND: ThinkRecModel,
    group.EXPERIMENT_KIND: ThinkRecExperiment,
}


def validate_documents(text: str, source: str) -> list[Problem]:
    """Return every problem of a YAML text with one or more documents, in the order of the text.

    Documents of other API groups are left to their own tools; there must be at least one of ours.
    """
    return _checked(text, source)[1]


def load_documents(text: str, source: str = "manifest") -> tuple[Resource, ...]:
    """Return every resource of ours in a YAML text; raise InvalidManifest with all problems if there is any."""
    resources, problems = _checked(text, source)
    if problems:
        raise InvalidManifest(problems)
    return resources


def load_model(text: str, source: str = "manifest") -> ThinkRecModel:
    """Return the one ThinkRecModel in a YAML text; raise InvalidManifest otherwise."""
    return _only(load_documents(text, source), ThinkRecModel, source)


def load_experiment(text: str, source: str = "manifest") -> ThinkRecExperiment:
    """Return the one ThinkRecExperiment in a YAML text; raise InvalidManifest otherwise."""
    return _only(load_documents(text, source), ThinkRecExperiment, source)


def forbidden_changes(new: Resource, old: Resource) -> list[str]:
    """Return what an update changes although it must not, as the apiserver would say it."""
    return list(dict.fromkeys(_broken_transitions(new.spec, old.spec)))


_R = TypeVar("_R", ThinkRecModel, ThinkRecExperiment)


def _only(resources: tuple[Resource, ...], type_: type[_R], source: str) -> _R:
    found = [resource for resource in resources if isinstance(resource, type_)]
    if len(found) == 1:
        return found[0]
    message = f"must contain one {type_.__name__}, but has {len(found)}"
    raise InvalidManifest([Problem(source, 0, "", "", "", "", message, "put each one in a file of its own")])


def _checked(text: str, source: str) -> tuple[tuple[Resource, ...], list[Problem]]:
    resources: list[Resource] = []
    problems: list[Problem] = []
    documents = [document for document in read_documents(text) if document.value is not None or document.faults]
    foreign = 0
    for document in documents:
        if _is_foreign(document):
            foreign += 1
            continue
        check = _Check(document, source)
        resource = check.run()
        problems += check.problems
        resources += [resource] if resource is not None else []
    if foreign == len(documents):
        message = f"there is no {group.MODEL_KIND} and no {group.EXPERIMENT_KIND} in it"
        problems.append(Problem(source, 0, "", "", "", "", message, f"begin with apiVersion: {group.API_VERSION}"))
    return tuple(resources), problems + _repeated(resources, source)


def _repeated(resources: list[Resource], source: str) -> list[Problem]:
    """Return a problem for each object that is defined more than once."""
    names = [(item.kind, item.metadata.namespace, item.metadata.name) for item in resources]
    twice = sorted({name for name in names if names.count(name) > 1})
    return [
        Problem(source, 0, kind, name, "metadata.name", "", "is defined more than once", "keep one, or rename one")
        for kind, _, name in twice
    ]


def _is_foreign(document: Document) -> bool:
    """Return whether a document belongs to another API group and does not look like a misspelt one of ours."""
    if document.faults or not isinstance(document.value, dict):
        return False
    kind, version = document.value.get("kind"), document.value.get("apiVersion")
    if not isinstance(kind, str) or not isinstance(version, str):
        return False
    theirs = version.partition("/")[0] != group.GROUP
    return theirs and not _close(kind, list(_TYPES)) and not _close(version, [group.API_VERSION])


def _close(word: str, known: list[str]) -> str:
    """Return the known word that was most likely meant; empty when none is close."""
    by_lower = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.7)
    return by_lower[found[0]] if found else ""


class _Check:
    """The check of one document."""

    def __init__(self, document: Document, source: str) -> None:
        self.problems: list[Problem] = []
        self._document = document
        self._source = source
        self._body: dict[str, Any] = document.value if isinstance(document.value, dict) else {}
        self._bad: set[Location] = set()

    def run(self) -> Resource | None:
        """Collect the problems; return the resource when there are none."""
        for fault in self._document.faults:
            self._add_fault(fault)
        type_ = self._type() if self._is_mapping() else None
        if type_ is None:
            return None
        body = {key: item for key, item in _without_nulls(self._body).items() if key != "status"}
        resource, errors = _validated(type_, body)
        for error in errors:
            self._add_error(error, type_)
        for location, rule, view in _broken_rules(type_, body, ()):
            self._add_rule(location, rule, view)
        self.problems.sort(key=lambda problem: problem.line or 0)
        return None if self.problems else resource

    def _is_mapping(self) -> bool:
        if isinstance(self._document.value, dict):
            return True
        if not self._document.faults:
            message = "must be a mapping with apiVersion, kind, metadata and spec"
            self._add((), shown(self._document.value, ()), message, "")
        return False

    def _type(self) -> type[ThinkRecModel] | type[ThinkRecExperiment] | None:
        """Return the type that `kind` asks for; the version is checked but does not stop the check."""
        kind, version = self._body.get("kind"), self._body.get("apiVersion")
        if version != group.API_VERSION:
            message = "must be set" if version is None else f"must be {group.API_VERSION}"
            self._add(("apiVersion",), _received(version), message, f"write apiVersion: {group.API_VERSION}")
        if isinstance(kind, str) and kind in _TYPES:
            return _TYPES[kind]
        near = _close(str(kind), list(_TYPES))
        message = "must be set" if kind is None else "is not a known kind"
        remedy = f"did you mean {near}?" if near else f"use {' or '.join(_TYPES)}"
        self._add(("kind",), _received(kind), message, remedy)
        return None

    def _add_fault(self, fault: Fault) -> None:
        self._bad.add(fault.location)
        self._add(fault.location, "", fault.message, fault.remedy, line=fault.line, column=fault.column)

    def _add_error(self, error: ErrorDetails, type_: type[BaseModel]) -> None:
        location = tuple(part for part in error["loc"] if part != "[key]")
        if error["type"] == RULE_ERROR or location[:1] in (("apiVersion",), ("kind",)) or location in self._bad:
            return  # rules have a pass of their own, which also looks at objects with other errors
        if error["type"] == "too_short" and len(error["input"]) >= error["ctx"]["min_length"]:
            return  # pydantic counts only the valid elements; the wrong ones are told by themselves
        self._bad.add(location)
        message, remedy = explained(error, type_)
        missing = error["type"] == "missing"
        self._add(location, "" if missing else shown(error["input"], location), message, remedy)

    def _add_rule(self, location: Location, rule: Rule, view: SimpleNamespace) -> None:
        names = [name.split(".") for name in re.findall(r"`([\w.]+)`", rule.message)]
        if not rule.presence and any(_touches((*location, *name), bad) for name in names for bad in self._bad):
            return  # it follows from an error that is already told
        raw = _value_at(self._body, location)
        if not rule.field:
            given = [f"`{name[0]}`" for name in names if isinstance(raw, dict) and raw.get(name[0]) is not None]
            self._add(location, " and ".join(given) or "none of them", rule.message, "")
            return
        member = (*location, to_camel(rule.field))
        self._add(member, _value_or_default(raw, to_camel(rule.field), getattr(view, rule.field)), rule.message, "")

    def _add(
        self,
        location: Location,
        value: str,
        message: str,
        remedy: str,
        *,
        line: int | None = None,
        column: int | None = None,
    ) -> None:
        metadata = self._body.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        kind = self._body.get("kind")
        self.problems.append(
            Problem(
                source=self._source,
                document=self._document.number,
                kind=shortened(kind) if isinstance(kind, str) else "",
                name=shortened(name) if isinstance(name, str) else "",
                path=path_text(location),
                value=value,
                message=message,
                remedy=remedy,
                line=line or self._document.line(location),
                column=column,
            )
        )


def _validated(
    type_: type[ThinkRecModel] | type[ThinkRecExperiment], body: dict[str, Any]
) -> tuple[Resource | None, list[ErrorDetails]]:
    try:
        return type_.model_validate(body, by_alias=True, by_name=False), []
    except ValidationError as error:
        return None, error.errors(include_url=False)


def _received(value: Any) -> str:
    return "" if value is None else shown(value, ())


def _touches(member: Location, bad: Location) -> bool:
    """Return whether a wrong value lies at, around or inside a member."""
    shorter = min(len(member), len(bad))
    return member[:shorter] == bad[:shorter] and bad != ()


def _value_at(body: Any, location: Location) -> Any:
    for part in location:
        body = body[part]
    return body


def _value_or_default(raw: Any, name: str, value: Any) -> str:
    if isinstance(raw, dict) and raw.get(name) is not None:
        return shown(raw[name], (name,))
    return "nothing" if value is None else f"{shown(value, (name,))}, the default"


def _without_nulls(value: Any) -> Any:
    """Return a value without null members, which the apiserver drops before it validates."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _broken_rules(
    type_: type[BaseModel], raw: Any, location: Location
) -> Iterator[tuple[Location, Rule, SimpleNamespace]]:
    """Yield the rules that a raw object and its members break, wherever they can be judged."""
    if isinstance(raw, list):
        for index, item in enumerate(raw):
            yield from _broken_rules(type_, item, (*location, index))
    if not isinstance(raw, dict):
        return
    known = fields_of(type_)
    if issubclass(type_, ApiType) and raw.keys() <= known.keys():
        view = _view(type_, raw)
        yield from ((location, rule, view) for rule in type_.RULES if not _holds(rule, view))
    for name, info in known.items():
        child = model_type(info.annotation)
        if child is not None and name in raw:
            yield from _broken_rules(child, raw[name], (*location, name))


def _holds(rule: Rule, view: SimpleNamespace) -> bool:
    try:
        return rule.holds(view)
    except (AttributeError, TypeError, ValueError):
        return True  # a member has the wrong type, which is a problem of its own


def _view(type_: type[BaseModel], raw: Mapping[str, Any]) -> SimpleNamespace:
    """Return a raw object with Python names and defaults, so that rules can look at it although it is not valid."""
    members = {}
    for wire_name, name in ((info.alias or name, name) for name, info in type_.model_fields.items()):
        info = type_.model_fields[name]
        default = None if info.is_required() else info.get_default(call_default_factory=True)
        members[name] = _viewed(model_type(info.annotation), raw[wire_name]) if wire_name in raw else default
    return SimpleNamespace(**members)


def _viewed(type_: type[BaseModel] | None, value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_viewed(type_, item) for item in value)
    return _view(type_, value) if type_ is not None and isinstance(value, dict) else value


def _broken_transitions(new: ApiType, old: ApiType) -> Iterator[str]:
    yield from (transition.message for transition in new.TRANSITIONS if not transition.holds(new, old))
    for name in type(new).model_fields:
        before, after = getattr(old, name), getattr(new, name)
        for pair in _matched(before, after):
            yield from _broken_transitions(pair[1], pair[0])


def _matched(before: Any, after: Any) -> list[tuple[ApiType, ApiType]]:
    """Return the members of two versions that are about the same thing, as the apiserver correlates them."""
    if isinstance(before, ApiType) and isinstance(after, ApiType):
        return [(before, after)]
    if not isinstance(before, tuple) or not isinstance(after, tuple):
        return []
    named = {item.name: item for item in before if hasattr(item, "name")}
    return [(named[item.name], item) for item in after if hasattr(item, "name") and item.name in named]
