# SPDX-License-Identifier: Apache-2.0
"""From the pydantic types to CustomResourceDefinitions with a structural OpenAPI v3 schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from thinkrec_crds import group
from thinkrec_crds.experiment import ThinkRecExperiment
from thinkrec_crds.fields import PATTERN_REMEDIES
from thinkrec_crds.model import ThinkRecModel
from thinkrec_crds.rules import ApiType

HEADER: Final = (
    "# SPDX-License-Identifier: Apache-2.0\n"
    "# DO NOT EDIT: generated from crds/thinkrec_crds by `python -m thinkrec_crds`.\n"
)
MAX_CRD_BYTES: Final = 256 * 1024
"""Size limit of the annotation that a client-side `kubectl apply` writes."""

Schema = dict[str, Any]

_INT32_MAX: Final = 2**31 - 1
_DROPPED_KEYS: Final = frozenset({"title", "propertyNames", "$defs"})
_RULES: Final = "x-kubernetes-validations"
_OPEN: Final = "additionalProperties"
"""A structural schema has either named properties or this, never both."""


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """What the apiserver needs to know about a kind beside its schema."""

    type: type[ApiType]
    kind: str
    plural: str
    singular: str
    short_names: tuple[str, ...]
    columns: tuple[Mapping[str, Any], ...]
    scale: Mapping[str, str] | None = None


def _column(name: str, path: str, description: str, *, type_: str = "string", wide: bool = False) -> Schema:
    body: Schema = {"name": name, "type": type_, "jsonPath": path, "description": description}
    return body | {"priority": 1} if wide else body


def _condition(name: str, part: str = "status") -> str:
    return f'.status.conditions[?(@.type=="{name}")].{part}'


_AGE: Final = _column("Age", ".metadata.creationTimestamp", "Time since creation.", type_="date")

MODEL: Final = Kind(
    type=ThinkRecModel,
    kind=group.MODEL_KIND,
    plural=group.MODEL_PLURAL,
    singular=group.MODEL_SINGULAR,
    short_names=group.MODEL_SHORT_NAMES,
    columns=(
        _column("Ready", _condition("Ready"), "The spec is trained, gated and served."),
        _column("Reason", _condition("Ready", "reason"), "Why it is ready or not."),
        _column("Serving", ".status.servingRevision", "Revision that answers requests."),
        _column("Latest", ".status.latestRevision", "Newest trained revision."),
        _column("Suspended", ".spec.suspend", "No new training is started.", type_="boolean"),
        _AGE,
        _column("Experts", ".status.expertCount", "Number of experts.", type_="integer", wide=True),
        _column("Progress", ".status.progressPercent", "Training done, in percent.", type_="integer", wide=True),
        _column("Queue", ".spec.training.queueName", "Kueue queue.", wide=True),
        _column("URL", ".status.url", "Address of the gateway.", wide=True),
    ),
    scale={
        "specReplicasPath": ".spec.serving.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    },
)
EXPERIMENT: Final = Kind(
    type=ThinkRecExperiment,
    kind=group.EXPERIMENT_KIND,
    plural=group.EXPERIMENT_PLURAL,
    singular=group.EXPERIMENT_SINGULAR,
    short_names=group.EXPERIMENT_SHORT_NAMES,
    columns=(
        _column("Ready", _condition("Ready"), "The experiment is set up as specified."),
        _column("Succeeded", _condition("Succeeded"), "The experiment ended with a verdict."),
        _column("Mode", ".spec.traffic.mode", "How users are shared out."),
        _column("Step", ".status.currentStepIndex", "Step of a canary.", type_="integer"),
        _column("Winner", ".status.conclusion.winner", "The better variant."),
        _AGE,
    ),
)
KINDS: Final = (MODEL, EXPERIMENT)


def definition(kind: Kind) -> Schema:
    """Return the CustomResourceDefinition of a kind."""
    version: Schema = {
        "name": group.VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": structural_schema(kind.type)},
        "subresources": {"status": {}} | ({"scale": dict(kind.scale)} if kind.scale else {}),
        "additionalPrinterColumns": [dict(column) for column in kind.columns],
    }
    names = {
        "kind": kind.kind,
        "listKind": f"{kind.kind}List",
        "plural": kind.plural,
        "singular": kind.singular,
        "shortNames": list(kind.short_names),
        "categories": [group.CATEGORY],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{group.GROUP}"},
        "spec": {"group": group.GROUP, "names": names, "scope": "Namespaced", "versions": [version]},
    }


def render(kind: Kind) -> str:
    """Return the generated file: header and YAML."""
    body = yaml.dump(definition(kind), Dumper=_PlainDumper, sort_keys=False, width=120, allow_unicode=True)
    return HEADER + body


def structural_schema(type_: type[ApiType]) -> Schema:
    """Return the structural schema of a resource type, as the apiserver demands it."""
    generated = type_.model_json_schema(by_alias=True, mode="validation")
    schema = _structural(generated, generated.get("$defs", {}))
    properties = schema["properties"]
    properties["apiVersion"] = {"type": "string", "description": "Version of this schema."}
    properties["kind"] = {"type": "string", "description": "Kind of this object."}
    properties["metadata"] = {"type": "object"}
    status = _observed(properties["status"])
    properties["status"] = status | {"default": {"observedGeneration": group.SCHEMA_ONLY_STATUS_GENERATION}}
    schema["required"] = ["spec"]
    return schema


def _structural(node: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """Return a node with references inlined and everything removed that a structural schema must not have."""
    merged = _inlined(node, definitions)
    if merged.get("x-kubernetes-int-or-string") or merged.get("x-kubernetes-preserve-unknown-fields"):
        merged.pop(_OPEN, None)
    body = {key: value for key, value in merged.items() if key not in _DROPPED_KEYS}
    _translate(body)
    if "items" in body:
        body["items"] = _structural(body["items"], definitions)
    if "properties" in body:
        body.pop(_OPEN, None)
        body["properties"] = {name: _structural(child, definitions) for name, child in body["properties"].items()}
    elif isinstance(body.get(_OPEN), dict):
        body[_OPEN] = _structural(body[_OPEN], definitions)
    return _ordered(body)


def _inlined(node: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """Return the node without references and without null; the referring field's own words win.

    An optional member is published as its plain type, because the apiserver drops nulls before it validates.
    """
    rest = dict(node)
    if "$ref" in rest:
        target = definitions[rest.pop("$ref").removeprefix("#/$defs/")]
        return {**_inlined(target, definitions), **rest}
    if "anyOf" in rest:
        (member,) = (choice for choice in rest.pop("anyOf") if choice.get("type") != "null")
        return {**_inlined(member, definitions), **rest}
    return rest


def _translate(body: Schema) -> None:
    """Rewrite what OpenAPI v3 says differently, name the width of integers, and clean the default."""
    if "const" in body:
        body["enum"] = [body.pop("const")]
    if body.get("type") == "integer":
        body["format"] = "int64" if body.get("maximum", 0) > _INT32_MAX else "int32"
    if remedy := PATTERN_REMEDIES.get(body.get("pattern", "")):
        # For a pattern alone the apiserver shows the regular expression, which says nothing to who wrote the manifest.
        body[_RULES] = [{"rule": f"self.matches(r'{body['pattern']}')", "message": remedy}]
    if "default" in body:
        default = _without_nulls(body.pop("default"))
        if default is not None:
            body["default"] = default


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_nulls(item) for item in value]
    return value


def _observed(node: Schema) -> Schema:
    """Return a status schema: without defaults, for only the operator says what it observed, and without sentences."""
    body = {key: value for key, value in node.items() if key not in ("default", _RULES)}
    if "items" in body:
        body["items"] = _observed(body["items"])
    if "properties" in body:
        body["properties"] = {name: _observed(child) for name, child in body["properties"].items()}
    return body


_KEY_ORDER: Final = ("description", "type", "format", "enum", "default", "required", "properties", "items")


def _ordered(body: Schema) -> Schema:
    return {key: body[key] for key in sorted(body, key=_rank)}


def _rank(key: str) -> tuple[int, str]:
    return (_KEY_ORDER.index(key) if key in _KEY_ORDER else len(_KEY_ORDER), key)


class _PlainDumper(yaml.SafeDumper):
    """Writes every value out: CRDs are read by tools that know no YAML anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        """Never use an anchor."""
        return True
