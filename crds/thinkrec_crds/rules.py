# SPDX-License-Identifier: Apache-2.0
"""Rules that span fields, each declared once: the CEL text for the apiserver beside the same predicate in Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import ConfigDict, GetJsonSchemaHandler, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError

from thinkrec_crds.contract import Contract

RULE_ERROR = "rule"
"""pydantic error type of a broken rule."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One sentence that must hold for an object.

    ``cel`` sees the object as ``self``; ``holds`` sees the same object in Python. ``field`` (Python name) is the
    member to blame, empty for the object as a whole. ``presence`` rules ask only which members are set, so they can be
    judged even where a value is wrong.
    """

    cel: str
    message: str
    holds: Callable[[Any], bool]
    field: str = ""
    presence: bool = False


@dataclass(frozen=True, slots=True)
class Transition:
    """One sentence about an update; ``holds(new, old)`` mirrors CEL's ``self`` and ``oldSelf``."""

    cel: str
    message: str
    holds: Callable[[Any, Any], bool]


def is_set(owner: Any, name: str) -> bool:
    """Return whether the optional member ``name`` was given: CEL's ``has``."""
    return getattr(owner, name, None) is not None


def exactly_one(*names: str) -> Rule:
    """Return the rule of a union: one and only one member is set."""
    return Rule(
        cel=f"{_set_members(names)} == 1",
        message=f"exactly one of {quoted(names)} must be set",
        holds=lambda owner: sum(is_set(owner, name) for name in names) == 1,
        presence=True,
    )


def not_both(first: str, second: str) -> Rule:
    """Return the rule of two optional members that exclude each other."""
    one, other = to_camel(first), to_camel(second)
    return Rule(
        cel=f"!(has(self.{one}) && has(self.{other}))",
        message=f"`{one}` and `{other}` must not be set together",
        holds=lambda owner: not (is_set(owner, first) and is_set(owner, second)),
        presence=True,
    )


def at_least_one(*names: str) -> Rule:
    """Return the rule that an object must not be left without any of these members."""
    return Rule(
        cel=f"{_set_members(names)} >= 1",
        message=f"at least one of {quoted(names)} must be set",
        holds=lambda owner: any(is_set(owner, name) for name in names),
        presence=True,
    )


def not_above(low: str, high: str) -> Rule:
    """Return the rule ``low <= high`` for two integers that are always present."""
    return Rule(
        cel=f"self.{to_camel(low)} <= self.{to_camel(high)}",
        message=f"`{to_camel(low)}` must not be greater than `{to_camel(high)}`",
        holds=lambda owner: bool(getattr(owner, low) <= getattr(owner, high)),
        field=low,
    )


def required_when(owner_field: str, value: str, name: str) -> Rule:
    """Return the rule that ``name`` must be set when the enum ``owner_field`` has ``value``."""
    kind, member = to_camel(owner_field), to_camel(name)
    return Rule(
        cel=f"self.{kind} != '{value}' || has(self.{member})",
        message=f"`{member}` must be set when `{kind}` is {value}",
        holds=lambda owner: getattr(owner, owner_field) != value or is_set(owner, name),
        field=name,
    )


def only_when(owner_field: str, value: str, name: str) -> Rule:
    """Return the rule that ``name`` must be left out unless the enum ``owner_field`` has ``value``."""
    kind, member = to_camel(owner_field), to_camel(name)
    return Rule(
        cel=f"self.{kind} == '{value}' || !has(self.{member})",
        message=f"`{member}` must not be set unless `{kind}` is {value}",
        holds=lambda owner: getattr(owner, owner_field) == value or not is_set(owner, name),
        field=name,
    )


def not_when(owner_field: str, value: str, name: str, why: str) -> Rule:
    """Return the rule that ``name`` has no meaning when the enum ``owner_field`` has ``value``, and why."""
    kind, member = to_camel(owner_field), to_camel(name)
    return Rule(
        cel=f"self.{kind} != '{value}' || !has(self.{member})",
        message=f"`{member}` must not be set when `{kind}` is {value}: {why}",
        holds=lambda owner: getattr(owner, owner_field) != value or not is_set(owner, name),
        field=name,
    )


def needs(name: str, other: str) -> Rule:
    """Return the rule that ``name`` has no meaning without ``other``."""
    member, companion = to_camel(name), to_camel(other)
    return Rule(
        cel=f"!has(self.{member}) || has(self.{companion})",
        message=f"`{companion}` must be set when `{member}` is set",
        holds=lambda owner: not is_set(owner, name) or is_set(owner, other),
        field=other,
        presence=True,
    )


def quoted(names: Sequence[str]) -> str:
    """Return the wire names in backquotes, joined as in a sentence."""
    members = [f"`{to_camel(name)}`" for name in names]
    return f"{', '.join(members[:-1])} or {members[-1]}" if len(members) > 1 else members[0]


def _set_members(names: Sequence[str]) -> str:
    members = ", ".join(f"has(self.{to_camel(name)})" for name in names)
    return f"[{members}].filter(x, x).size()"


def _validation(rule: Rule | Transition) -> dict[str, str]:
    body = {"rule": rule.cel, "message": rule.message}
    if isinstance(rule, Rule) and rule.field:
        body["fieldPath"] = f".{to_camel(rule.field)}"
    return body


class ApiType(Contract):
    """A part of a resource's spec: a contract whose cross-field rules are checked on construction."""

    RULES: ClassVar[tuple[Rule, ...]] = ()
    TRANSITIONS: ClassVar[tuple[Transition, ...]] = ()

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Add the CEL form of the rules to the generated schema."""
        body = handler(schema)
        rules: tuple[Rule | Transition, ...] = (*cls.RULES, *cls.TRANSITIONS)
        validations = [_validation(rule) for rule in rules]
        if validations:
            handler.resolve_ref_schema(body)["x-kubernetes-validations"] = validations
        return body

    @model_validator(mode="after")
    def _keep_rules(self) -> Self:
        broken = [rule_error(rule, self) for rule in self.RULES if not rule.holds(self)]
        if broken:
            raise ValidationError.from_exception_data(type(self).__name__, broken)
        return self


class ObservedType(Contract):
    """A part of a resource's status: fields that a newer operator may have written are left out, not refused."""

    model_config = ConfigDict(extra="ignore")


def rule_error(rule: Rule, owner: object) -> InitErrorDetails:
    """Return a broken rule as a pydantic error located at the member to blame."""
    error = PydanticCustomError(RULE_ERROR, "{sentence}", {"sentence": rule.message})
    value = getattr(owner, rule.field) if rule.field else owner
    location: tuple[int | str, ...] = (to_camel(rule.field),) if rule.field else ()
    return InitErrorDetails(type=error, loc=location, input=value)
