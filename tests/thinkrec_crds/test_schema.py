# SPDX-License-Identifier: Apache-2.0
"""The generated definitions are fresh, structural, bounded, described, and agree with the types."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from support.manifests import EXPERIMENT_MISTAKES, MINIMAL_EXPERIMENT, MINIMAL_MODEL, MODEL_MISTAKES, Mistake, edited
from thinkrec_crds import group
from thinkrec_crds.__main__ import main, rendered_crds, rendered_docs, stale_files
from thinkrec_crds.explain import fields_of, model_type
from thinkrec_crds.rules import ApiType
from thinkrec_crds.schema import EXPERIMENT, KINDS, MAX_CRD_BYTES, MODEL, Kind, definition, render, structural_schema
from thinkrec_crds.validation import load_experiment, load_model

Node = dict[str, Any]
EVERY_KIND = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)

STRUCTURAL_KEYS = {
    *("type", "format", "description", "default", "enum", "pattern", "required"),
    *("properties", "additionalProperties", "items"),
    *("minLength", "maxLength", "minItems", "maxItems", "maxProperties", "minimum", "maximum"),
}


def nodes(schema: Node, path: str = "") -> Iterator[tuple[str, Node]]:
    """Yield every schema node with its path."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], f"{path}[]")


@cache
def of(kind: Kind) -> list[tuple[str, Node]]:
    """Return every node of a kind but the standard ones that all kinds share."""
    standard = (".apiVersion", ".kind", ".metadata")
    return [(path, node) for path, node in nodes(structural_schema(kind.type)) if path not in standard]


def types_of(type_: type[ApiType]) -> Iterator[type[ApiType]]:
    """Yield a type and all types of its members."""
    yield type_
    for info in fields_of(type_).values():
        child = model_type(info.annotation)
        if child is not None and issubclass(child, ApiType):
            yield from types_of(child)


def test_the_generated_files_are_fresh() -> None:
    assert list(stale_files(rendered_crds() | rendered_docs())) == [], "run `python -m thinkrec_crds`"


GENERATED = {
    *("crds/thinkrecmodel.yaml", "crds/thinkrecexperiment.yaml", "docs/troubleshooting.md"),
    *("docs/reference/thinkrecmodel.md", "docs/reference/thinkrecexperiment.md"),
}


def test_check_tells_each_stale_file_and_writing_mends_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--root", str(tmp_path)]
    assert main([*arguments, "--check"]) == 1
    assert main(arguments) == 0
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")} == GENERATED
    assert main([*arguments, "--check"]) == 0
    for name in GENERATED:
        (tmp_path / name).write_text("edited by hand")
    capsys.readouterr()
    assert main([*arguments, "--check"]) == 1
    told = capsys.readouterr().err.splitlines()
    assert sorted(told) == sorted(f"{name} is stale: run `python -m thinkrec_crds`" for name in GENERATED)


def test_docs_alone_leave_the_definitions_alone(tmp_path: Path) -> None:
    assert main(["--root", str(tmp_path), "--docs"]) == 0
    assert not (tmp_path / "crds").exists()
    assert (tmp_path / "docs" / "troubleshooting.md").is_file()


@EVERY_KIND
def test_a_definition_is_small_and_says_who_wrote_it(kind: Kind) -> None:
    text = render(kind)
    assert len(text.encode()) < MAX_CRD_BYTES
    assert "DO NOT EDIT" in text.splitlines()[1]
    assert yaml.safe_load(text) == definition(kind)


@EVERY_KIND
def test_only_words_of_a_structural_schema_are_used(kind: Kind) -> None:
    for path, node in of(kind):
        unknown = {key for key in node if not key.startswith("x-kubernetes-")} - STRUCTURAL_KEYS
        assert not unknown, (path, unknown)
        assert not ("properties" in node and "additionalProperties" in node), path
        assert "type" in node or node.get("x-kubernetes-int-or-string"), path


@EVERY_KIND
def test_there_is_no_float(kind: Kind) -> None:
    for path, node in of(kind):
        assert node.get("type") != "number", path
        assert not any(isinstance(value, float) for value in node.values()), path


@EVERY_KIND
def test_every_string_is_bounded(kind: Kind) -> None:
    for path, node in of(kind):
        if node.get("type") == "string":
            assert node.keys() & {"maxLength", "enum"} or node.get("format") == "date-time", path


@EVERY_KIND
def test_every_number_is_bounded_and_has_a_width(kind: Kind) -> None:
    for path, node in of(kind):
        if node.get("type") == "integer":
            assert {"minimum", "maximum"} <= node.keys(), path
            assert node["format"] in ("int32", "int64"), path
            assert int(float(node["maximum"])) == node["maximum"], f"{path}: bounds are kept as floating-point numbers"


@EVERY_KIND
def test_every_list_is_bounded_and_says_how_it_merges(kind: Kind) -> None:
    for path, node in of(kind):
        if node.get("type") == "array":
            assert "maxItems" in node, path
            assert node["x-kubernetes-list-type"] in ("atomic", "set", "map"), path
            assert not node.keys() & {"minLength", "maxLength"}, path
        for key in node.get("x-kubernetes-list-map-keys", []):
            assert key in node["items"]["required"], path


@EVERY_KIND
def test_every_map_is_bounded(kind: Kind) -> None:
    for path, node in of(kind):
        if isinstance(node.get("additionalProperties"), dict):
            assert "maxProperties" in node, path


@EVERY_KIND
def test_every_field_is_described(kind: Kind) -> None:
    for path, node in of(kind):
        for name, child in node.get("properties", {}).items():
            if path or name in ("spec", "status"):
                assert re.match(r"^[A-Z].*\.$", child.get("description", "")), f"{path}.{name}"


@EVERY_KIND
def test_names_are_camel_case_and_units_are_in_the_name(kind: Kind) -> None:
    for path, node in of(kind):
        for name, child in node.get("properties", {}).items():
            assert re.match(r"^[a-z][A-Za-z0-9]*$", name), f"{path}.{name}"
            if re.search(r"\b[Ss]econds\b", child.get("description", "")) and child.get("type") == "integer":
                assert "Seconds" in name, f"{path}.{name}"


@EVERY_KIND
def test_enums_are_camel_case_words(kind: Kind) -> None:
    for path, node in of(kind):
        for value in node.get("enum", []):
            assert re.match(r"^[A-Z][A-Za-z0-9]*$", value) or path.endswith((".name", ".kind")), (path, value)


@EVERY_KIND
def test_status_has_one_default_and_spec_none_of_its_own(kind: Kind) -> None:
    schema = structural_schema(kind.type)
    assert schema["properties"]["status"]["default"] == {"observedGeneration": -1}
    assert "default" not in schema["properties"]["spec"]
    inside = [path for path, node in nodes(schema["properties"]["status"]) if path and "default" in node]
    assert inside == []


@EVERY_KIND
def test_rules_speak_in_words_about_fields_that_exist(kind: Kind) -> None:
    for type_ in types_of(kind.type):
        known = set(fields_of(type_))
        sentences = [(rule.cel, rule.message) for rule in type_.RULES]
        for cel, message in [*sentences, *((rule.cel, rule.message) for rule in type_.TRANSITIONS)]:
            assert "must" in message
            assert "`" in message
            assert set(re.findall(r"\b(?:self|oldSelf)\.(\w+)", cel)) <= known, cel
        for rule in type_.RULES:
            assert not rule.field or rule.field in type_.model_fields, rule


def test_names_of_the_kinds() -> None:
    model, experiment = definition(MODEL), definition(EXPERIMENT)
    assert f"{group.GROUP}/{group.VERSION}" == group.API_VERSION
    assert model["metadata"]["name"] == group.MODEL_CRD_NAME
    assert experiment["metadata"]["name"] == group.EXPERIMENT_CRD_NAME
    assert [body["spec"]["names"]["shortNames"] for body in (model, experiment)] == [["trm"], ["tre"]]
    assert model["spec"]["names"]["categories"] == ["thinkrec"]
    assert model["spec"]["versions"][0]["subresources"]["scale"]["specReplicasPath"] == ".spec.serving.replicas"
    assert "scale" not in experiment["spec"]["versions"][0]["subresources"]


@EVERY_KIND
def test_columns_show_fields_that_exist(kind: Kind) -> None:
    schema = structural_schema(kind.type)
    for column in definition(kind)["spec"]["versions"][0]["additionalPrinterColumns"]:
        node: Node = schema
        for part in re.sub(r"\[\?.*\]\.\w+", "", column["jsonPath"]).strip(".").split("."):
            if part == "metadata":
                break
            node = node["properties"][part]
        assert "[-1" not in column["jsonPath"]


def with_defaults(schema: Node, value: Any) -> Any:
    """Return a value with defaults filled in as the apiserver does."""
    if isinstance(value, list):
        return [with_defaults(schema["items"], item) for item in value]
    if not isinstance(value, dict) or "properties" not in schema:
        return value
    children = schema["properties"]
    missing = {name: child["default"] for name, child in children.items() if "default" in child and name not in value}
    filled = {**value, **missing}
    return {name: with_defaults(children.get(name, {}), item) for name, item in filled.items()}


def test_the_defaults_of_the_schema_are_those_of_the_types() -> None:
    model = load_model(yaml.safe_dump(dict(MINIMAL_MODEL)))
    assert with_defaults(structural_schema(MODEL.type), dict(MINIMAL_MODEL))["spec"] == model.spec.model_dump(
        mode="json", by_alias=True, exclude_none=True
    )
    experiment = load_experiment(yaml.safe_dump(dict(MINIMAL_EXPERIMENT)))
    assert with_defaults(structural_schema(EXPERIMENT.type), dict(MINIMAL_EXPERIMENT))["spec"] == (
        experiment.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    )


@EVERY_KIND
def test_the_schema_is_a_json_schema_that_accepts_the_minimum(kind: Kind) -> None:
    schema = structural_schema(kind.type)
    jsonschema.Draft202012Validator.check_schema(schema)
    minimal = MINIMAL_MODEL if kind is MODEL else MINIMAL_EXPERIMENT
    jsonschema.validate(dict(minimal), schema)
    jsonschema.validate(with_defaults(schema, dict(minimal)), schema)


def judged_by_the_schema(kind: Kind, mistake: Mistake) -> bool:
    """Return whether a mistake is about one value: no rule, pruned field, repeated key or int-or-string."""
    rules = [rule.message for type_ in types_of(kind.type) for rule in type_.RULES]
    elsewhere = ("not a known field", "repeated", "unique", "quantity")
    told_by_a_rule = any(mistake.message in message for message in rules)
    return not (mistake.only_here or told_by_a_rule or any(word in mistake.message for word in elsewhere))


VALUE_MISTAKES = [
    (kind, base, mistake)
    for kind, base, mistakes in (
        (MODEL, MINIMAL_MODEL, MODEL_MISTAKES),
        (EXPERIMENT, MINIMAL_EXPERIMENT, EXPERIMENT_MISTAKES),
    )
    for mistake in mistakes
    if judged_by_the_schema(kind, mistake) and mistake.path != "metadata.name"
]


@pytest.mark.parametrize(("kind", "base", "mistake"), VALUE_MISTAKES, ids=lambda value: getattr(value, "name", ""))
def test_the_schema_refuses_wrong_values_too(kind: Kind, base: Node, mistake: Mistake) -> None:
    body = {key: value for key, value in edited(base, mistake.edits).items() if value is not None}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(body, structural_schema(kind.type))
