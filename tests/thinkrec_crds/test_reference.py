# SPDX-License-Identifier: Apache-2.0
"""The generated pages name everything there is: each field, default, rule, column, condition, reason and exit code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from thinkrec_crds.artifact import ExitCode
from thinkrec_crds.conditions import EXPERIMENT_CONDITIONS, MODEL_CONDITIONS, ConditionType, Reason
from thinkrec_crds.exit_codes import Exit, ExplainedCode
from thinkrec_crds.markdown import anchor, either, table, yaml_value
from thinkrec_crds.reference import EXAMPLES, reference
from thinkrec_crds.schema import EXPERIMENT, KINDS, MODEL, Kind, structural_schema
from thinkrec_crds.troubleshooting import troubleshooting
from thinkrec_crds.validation import validate_documents

Node = dict[str, Any]
EVERY_KIND = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)


def fields(node: Node, path: str) -> Iterator[tuple[str, Node]]:
    """Yield every field below a schema node with the path that a manifest gives it."""
    if "items" in node:
        yield from fields(node["items"], f"{path}[]")
    for name, child in node.get("properties", {}).items():
        yield f"{path}.{name}", child
        yield from fields(child, f"{path}.{name}")


def rows(text: str) -> dict[str, list[str]]:
    """Return the cells of every table row of a page by the first cell without its link and code marks."""
    found = {}
    for line in text.splitlines():
        if line.startswith("| "):
            cells = [cell.strip() for cell in line.replace("\\|", "/").strip("|").split("|")]
            found[cells[0].split("](")[0].strip("[`")] = cells
    return found


def everything(kind: Kind) -> Iterator[tuple[str, Node]]:
    schema = structural_schema(kind.type)
    for part in ("spec", "status"):
        yield from fields(schema["properties"][part], part)


@EVERY_KIND
def test_every_field_has_its_row_with_its_words(kind: Kind) -> None:
    found = rows(reference(kind))
    for path, node in everything(kind):
        assert node["description"] in found[path][-1], path
        for value in node.get("enum", []):
            assert value in found[path][1], path


@EVERY_KIND
def test_every_bound_is_told(kind: Kind) -> None:
    found = rows(reference(kind))
    for path, node in everything(kind):
        for key in ("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "maxProperties"):
            if node.get(key) not in (None, 0, 2**31 - 1, 2**53 - 1):
                assert f"{node[key]}" in found[path][1], (path, key)


def filled(node: Node, value: Any) -> Any:
    """Return a value with the defaults of its fields filled in, as the apiserver does."""
    if not isinstance(value, dict) or "properties" not in node:
        return value
    children = node["properties"]
    missing = {name: child["default"] for name, child in children.items() if "default" in child and name not in value}
    return {name: filled(children[name], item) for name, item in {**value, **missing}.items()}


@EVERY_KIND
def test_every_default_is_told_so_that_it_can_be_typed(kind: Kind) -> None:
    found = rows(reference(kind))
    for path, node in fields(structural_schema(kind.type)["properties"]["spec"], "spec"):
        told = found[path][2]
        if "default" not in node:
            assert told in ("**required**", "unset"), path
        else:
            value = {} if told == "as below" else yaml.safe_load(told.strip("`"))
            assert filled(node, value) == filled(node, node["default"]), path


def test_required_fields_and_defaults_that_are_known() -> None:
    found = rows(reference(MODEL))
    assert found["spec.artifacts.storageUri"][2] == "**required**"
    assert found["spec.adapter.lora.dropout"][2] == '`"0.05"`'
    assert found["spec.adapter.lora.targetModules"][2] == "`[q_proj, v_proj]`"
    assert found["spec.serving.score"][1] == '`"Yes"` or `YesMinusNo`'
    assert found["spec.experts"][2] == "`{auto: {}}`"
    assert found["spec.training.seed"][1:3] == ["whole number, at least 0", "`42`"]
    assert found["spec.keywords.maxKeywords"][1] == "whole number, 1 to 50"
    assert found["spec.serving.revision"][2] == "unset"
    assert rows(reference(EXPERIMENT))["spec.variants"][1] == "list of objects, 2 to 8 elements, one for each `name`"


@EVERY_KIND
def test_every_rule_is_a_sentence(kind: Kind) -> None:
    text = reference(kind)
    nodes = [("", structural_schema(kind.type)), *everything(kind)]
    messages = [rule["message"] for _, node in nodes for rule in node.get("x-kubernetes-validations", [])]
    assert messages
    assert [message for message in messages if f"{message}." not in text] == []


@EVERY_KIND
def test_every_printer_column_is_told(kind: Kind) -> None:
    found = rows(reference(kind))
    for column in kind.columns:
        assert column["description"] in found[column["name"]][-1]
        assert ("-o wide" in found[column["name"]][-1]) == ("priority" in column)


@EVERY_KIND
def test_the_example_is_the_smallest_valid_manifest(kind: Kind) -> None:
    assert validate_documents(EXAMPLES[kind.kind], "example") == []
    body = yaml.safe_load(EXAMPLES[kind.kind])
    for name in body["spec"]:
        rest = body | {"spec": {key: value for key, value in body["spec"].items() if key != name}}
        assert validate_documents(yaml.safe_dump(rest), "example") != [], f"{name} could be left out"


@pytest.mark.parametrize("reason", list(Reason), ids=lambda reason: reason.value)
def test_every_reason_is_explained_with_its_remedy(reason: Reason) -> None:
    text = troubleshooting()
    if reason.remedy:
        assert f"### {reason}\n\n{reason.meaning}\n\n**What to do:** {reason.remedy}\n" in text
    else:
        assert rows(text)[reason][1] == reason.meaning


def test_every_condition_is_explained_with_its_reasons() -> None:
    text = troubleshooting()
    model, experiment = text.split("## Reasons that")[0].split("## Conditions of a ThinkRecExperiment")
    for part, conditions in ((model, MODEL_CONDITIONS), (experiment, EXPERIMENT_CONDITIONS)):
        for type_, reasons in conditions.items():
            cells = next(cells for name, cells in rows(part).items() if name == type_)
            assert cells[1].startswith(type_.meaning)
            assert [word.strip("[ ").split("]")[0] for word in cells[2].split(",")] == [f"{item}" for item in reasons]
    assert "Present only while" in rows(model)[ConditionType.STALLED][1]


@pytest.mark.parametrize("codes", [Exit, ExitCode], ids=lambda codes: codes.__name__)
def test_every_exit_code_is_explained(codes: type[ExplainedCode]) -> None:
    heading = "## Exit codes of `thinkrec`" if codes is Exit else "## Exit codes of a stage"
    found = rows(troubleshooting().split(heading)[1].split("\n## ")[0])
    assert [(int(code), *cells[1:]) for code, cells in found.items() if code.isdigit()] == [
        (item.value, item.meaning, item.remedy) for item in codes
    ]


@pytest.mark.parametrize("code", [*Exit, *ExitCode], ids=lambda code: f"{type(code).__name__}.{code.name}")
def test_exit_codes_speak_in_sentences_and_failures_have_a_remedy(code: ExplainedCode) -> None:
    assert code.meaning[0].isupper()
    assert code.meaning.endswith(".")
    assert code.remedy.endswith(".") or code in (Exit.DONE, ExitCode.INTERRUPTED)


@pytest.mark.parametrize("value", ["Yes", "0.05", "None", "1e-4", "q_proj", "a: b", 4, True, [1, "2"], {"a": {}}])
def test_a_value_reads_back_as_itself(value: Any) -> None:
    assert yaml.safe_load(yaml_value(value)) == value


def test_pieces_of_markdown() -> None:
    assert table(("a", "b"), [("x|y", "two\nlines")]) == "| a | b |\n| --- | --- |\n| x\\|y | two lines |"
    assert either(["a"]) == "a"
    assert either(["a", "b", "c"]) == "a, b or c"
    assert anchor("Exit codes of `thinkrec`") == "exit-codes-of-thinkrec"
    assert anchor("`spec.variants`") == "specvariants"
