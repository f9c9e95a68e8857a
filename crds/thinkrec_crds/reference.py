# SPDX-License-Identifier: Apache-2.0
"""From the structural schema to a reference page of each kind: every field, every rule, status, printer columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from thinkrec_crds import group
from thinkrec_crds.fields import INT32_MAX, INT53_MAX, PATTERN_REMEDIES
from thinkrec_crds.markdown import anchor, bullets, code, either, generated_note, page, table, yaml_value
from thinkrec_crds.schema import Kind, Schema, structural_schema

SOURCE: Final = "crds/thinkrec_crds"
COMMAND: Final = "python -m thinkrec_crds"
EXAMPLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        group.MODEL_KIND: """\
apiVersion: thinkrec.io/v1alpha1
kind: ThinkRecModel
metadata:
  name: movies
spec:
  baseModel:
    storageUri: hf://HuggingFaceTB/SmolLM2-135M-Instruct
  dataset:
    storageUri: s3://data/ratings.parquet
    items:
      storageUri: s3://data/items.parquet
  artifacts:
    storageUri: s3://models/movies""",
        group.EXPERIMENT_KIND: """\
apiVersion: thinkrec.io/v1alpha1
kind: ThinkRecExperiment
metadata:
  name: movies-fusion
spec:
  variants:
    - name: now
      modelRef: {name: movies}
      revision: movies-7f3a91c0
    - name: next
      modelRef: {name: movies}
  controlVariantName: now
  offline: {}""",
    }
)
"""The smallest manifest of each kind, with every other field at its default."""

_ENDLESS: Final = (INT32_MAX, INT53_MAX)
"""Bounds that only say how wide the number is stored."""
_HEADER: Final = ("field", "type", "default", "meaning")
_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {"string": "text", "integer": "whole number", "boolean": "true or false", "object": "object"}
)


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One field."""

    path: str
    node: Schema
    required: bool


def reference(kind: Kind) -> str:
    """Return the reference page of a kind."""
    schema = structural_schema(kind.type)
    spec, status = (Row(name, schema["properties"][name], required=True) for name in ("spec", "status"))
    return page(
        f"# {kind.kind}",
        generated_note(SOURCE, COMMAND),
        f"{(kind.type.__doc__ or '').strip()} On a cluster `kubectl get {either(kind.short_names)}` lists them, and"
        f" `kubectl explain {kind.singular}.spec` shows what stands here.",
        f"```yaml\n{EXAMPLES[kind.kind]}\n```",
        "A path is written as `thinkrec validate` writes it; `[]` is any element of a list. A required field inside an"
        " object that is left out is not asked for. Text that YAML would read as a number or as true and false stands"
        " in quotes.",
        _rules(Row("", schema, required=True), deep=False),
        "## `spec`",
        _overview(spec),
        _rules(spec, deep=False),
        *(_section(row) for row in _members(spec) if _holds_fields(row.node)),
        "## `status`",
        "Written by the operator alone. Conditions and reasons: [troubleshooting](../troubleshooting.md).",
        _status(status),
        "## What `kubectl get` shows",
        _columns(kind),
        _scale(kind),
    )


def _overview(spec: Row) -> str:
    """Return the direct members of spec; those with fields of their own refer to their section."""
    rows = []
    for row in _members(spec):
        path = f"[{code(row.path)}](#{anchor(row.path)})" if _holds_fields(row.node) else code(row.path)
        rows.append((path, _type(row.node), _default(row), _meaning(row.node)))
    return table(_HEADER, rows)


def _section(row: Row) -> str:
    fields = [(code(item.path), _type(item.node), _default(item), _meaning(item.node)) for item in _below(row)]
    blocks = (f"## `{row.path}`", row.node["description"], table(_HEADER, fields), _rules(row, deep=True))
    return "\n\n".join(block for block in blocks if block)


def _status(status: Row) -> str:
    fields = [(code(item.path), _type(item.node), item.node["description"]) for item in _below(status)]
    return table(("field", "type", "meaning"), fields)


def _columns(kind: Kind) -> str:
    rows = []
    for column in kind.columns:
        wide = " Only with `-o wide`." if column.get("priority") else ""
        rows.append((column["name"], code(column["jsonPath"].removeprefix(".")), column["description"] + wide))
    return table(("column", "from", "meaning"), rows)


def _scale(kind: Kind) -> str:
    if kind.scale is None:
        return ""
    paths = [code(kind.scale[key].removeprefix(".")) for key in ("specReplicasPath", "statusReplicasPath")]
    return f"`kubectl scale` and autoscalers write {paths[0]} and read {paths[1]}."


def _members(row: Row) -> Iterator[Row]:
    """Yield the fields of an object, or of the elements of a list of objects."""
    node, prefix = (row.node["items"], f"{row.path}[]") if "items" in row.node else (row.node, row.path)
    for name, child in node.get("properties", {}).items():
        yield Row(f"{prefix}.{name}", child, required=name in node.get("required", ()))


def _below(row: Row) -> Iterator[Row]:
    """Yield every field below a row, parents before children."""
    for member in _members(row):
        yield member
        yield from _below(member)


def _holds_fields(node: Schema) -> bool:
    return "properties" in node.get("items", node)


def _rules(row: Row, *, deep: bool) -> str:
    """Return the rules of an object, and with ``deep`` of all objects below it, as sentences."""
    sentences = list(_sentences(row))
    if deep:
        sentences += [sentence for item in _below(row) for sentence in _sentences(item)]
    return f"Rules:\n\n{bullets(sentences)}" if sentences else ""


def _sentences(row: Row) -> Iterator[str]:
    node = row.node
    path = f"{row.path}[]" if "items" in node else row.path
    for holder in (node, node.get("items", {})):
        for rule in holder.get("x-kubernetes-validations", ()):
            if rule["message"] in PATTERN_REMEDIES.values():
                continue  # stands beside the field
            update = " (on an update)" if "oldSelf" in rule["rule"] else ""
            yield f"{code(path)}{update}: {rule['message']}." if path else f"{rule['message']}."


def _type(node: Schema) -> str:
    """Return the form of a value and its bounds in words."""
    if node.get("x-kubernetes-int-or-string"):
        return "quantity"
    if node.get("x-kubernetes-preserve-unknown-fields"):
        return "object of another API"
    if "enum" in node:
        return either([code(yaml_value(value)) for value in node["enum"]])
    if node["type"] == "array":
        return _list_type(node)
    if isinstance(node.get("additionalProperties"), dict):
        return f"map of text to {_type(node['additionalProperties'])}{_count(node, 'Properties', 'entries')}"
    if node.get("format") == "date-time":
        return "time (RFC 3339)"
    return f"{_TYPES[node['type']]}{_range(node)}{_count(node, 'Length', 'characters')}"


def _list_type(node: Schema) -> str:
    keys = node.get("x-kubernetes-list-map-keys")
    element, _, bounds = _type(node["items"]).partition(", ")
    elements = "objects" if _holds_fields(node) else f"{element} ({bounds})" if bounds else element
    merge = f", one for each {code(keys[0])}" if keys else ""
    unique = ", none twice" if node["x-kubernetes-list-type"] == "set" else ""
    return f"list of {elements}{_count(node, 'Items', 'elements')}{merge}{unique}"


def _range(node: Schema) -> str:
    low, high = node.get("minimum"), node.get("maximum")
    if low is None:
        return ""
    return f", at least {low}" if high in _ENDLESS else f", {low} to {high}"


def _count(node: Schema, what: str, unit: str) -> str:
    low, high = node.get(f"min{what}", 0), node.get(f"max{what}")
    if high is None:
        return f", at least {low} {unit}" if low else ""
    return f", {low} to {high} {unit}" if low else f", at most {high} {unit}"


def _meaning(node: Schema) -> str:
    """Return the description, and the form of the text where one is demanded."""
    shape = PATTERN_REMEDIES.get(node.get("items", node).get("pattern", ""), "")
    subject = "Each" if "items" in node else "It"
    return f"{node['description']} {subject} {shape}." if shape else str(node["description"])


def _default(row: Row) -> str:
    if "default" not in row.node:
        return "**required**" if row.required else "unset"
    own = row.node["default"]
    if not isinstance(own, dict) or not _holds_fields(row.node):
        return code(yaml_value(own))
    rest = _beyond_defaults(own, row.node)
    return code(yaml_value(rest)) if rest else "as below"


def _beyond_defaults(value: Mapping[str, Any], node: Schema) -> dict[str, Any]:
    """Return those members of an object's default that the defaults of its fields do not already say."""
    rest = {}
    for name, item in value.items():
        child = node["properties"][name]
        if isinstance(item, dict) and "properties" in child:
            inner = _beyond_defaults(item, child)
            if inner or "default" not in child:
                rest[name] = inner
        elif item != child.get("default"):
            rest[name] = item
    return rest
