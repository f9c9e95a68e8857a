# SPDX-License-Identifier: Apache-2.0
"""Values: what is refused and how, and that the schema, the defaults, the page and the operator's settings agree."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import chart as chart_files
import jsonschema
import pytest
import yaml

from support import chart
from thinkrec_operator.cluster.config import OperatorConfig, from_environment

SCHEMA = json.loads((chart.CHART / "values.schema.json").read_text("utf-8"))
DEFAULTS = yaml.safe_load((chart.CHART / "values.yaml").read_text("utf-8"))
LEAVES = {path: field for path, field, _ in chart_files.leaves(SCHEMA, DEFAULTS)}

REFUSED: tuple[tuple[dict[str, Any], str, str], ...] = (
    ({"namespace": ["a"]}, "additional properties 'namespace' not allowed", "a misspelt name"),
    ({"operator": {"worker": 2}}, "additional properties 'worker' not allowed", "a misspelt name further down"),
    ({"namespaces": "team-a"}, "/namespaces': got string, want array", "a text in place of a list"),
    ({"namespaces": ["Team_A"]}, "/namespaces/0': 'Team_A' does not match pattern", "no namespace's name"),
    ({"namespaces": ["a", "a"]}, "/namespaces': items at 0 and 1 are equal", "a namespace twice"),
    ({"crds": {"install": "no"}}, "/crds/install': got string, want boolean", "a text in place of a flag"),
    (
        {"image": {"repository": "x/y:1"}},
        "/image/repository': 'x/y:1' does not match pattern",
        "a tag in the repository",
    ),
    ({"image": {"digest": "sha256:1"}}, "/image/digest': 'sha256:1' does not match pattern", "half a digest"),
    (
        {"image": {"pullPolicy": "always"}},
        "/image/pullPolicy': value must be one of 'Always'",
        "a policy in lower case",
    ),
    ({"imagePullSecrets": ["x"]}, "/imagePullSecrets/0': got string, want object", "a secret's bare name"),
    ({"operator": {"workers": 0}}, "/operator/workers': minimum: got 0, want 1", "no worker"),
    ({"operator": {"resyncSeconds": "10m"}}, "/operator/resyncSeconds': got string, want integer", "a duration"),
    ({"operator": {"healthPort": 80}}, "/operator/healthPort': minimum: got 80", "a port that only root may open"),
    ({"operator": {"logLevel": "trace"}}, "/operator/logLevel': value must be one of 'debug'", "an unknown level"),
    (
        {"operator": {"extraEnv": [{"name": "THINKREC_WORKERS", "value": "1"}]}},
        "/operator/extraEnv/0/name': 'not' failed",
        "a setting given behind the back of its value",
    ),
    ({"metrics": {"serviceMonitor": {"interval": 30}}}, "interval': got number, want string", "a number of seconds"),
    ({"metrics": {"prometheusRule": {"runbookUrl": "wiki"}}}, "runbookUrl': 'wiki' does not match", "no address"),
    ({"networkPolicy": {"operator": {"apiServerPorts": []}}}, "apiServerPorts': minItems: got 0, want 1", "no port"),
    ({"networkPolicy": {"operator": {"apiServerCidrs": ["10.0.0.1"]}}}, "'10.0.0.1' does not match", "no range"),
    (
        {"networkPolicy": {"serving": {"enabled": True}}},
        "`networkPolicy.serving.namespaces` must name the namespaces",
        "a policy for nowhere",
    ),
    (
        {"serviceAccount": {"create": False}},
        "`serviceAccount.name` must name an existing ServiceAccount",
        "an account that is neither made nor named",
    ),
)


@pytest.mark.parametrize(("values", "message", "why"), REFUSED, ids=[row[2] for row in REFUSED])
def test_refused(values: dict[str, Any], message: str, why: str) -> None:
    assert message in chart.refusal(values), why


def test_a_parent_chart_may_pass_globals() -> None:
    assert chart.render({"global": {"anything": 1}}) != []


def test_the_defaults_fit_the_schema() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.validate(DEFAULTS, SCHEMA)


def test_every_default_has_a_schema_and_every_schema_a_default() -> None:
    def walk(values: dict[str, Any], schema: dict[str, Any], path: str) -> None:
        assert values.keys() == schema["properties"].keys() - {"global"}, path
        assert schema["additionalProperties"] is False, path
        for name, value in values.items():
            field = schema["properties"][name]
            if isinstance(value, dict) and "properties" in field:
                walk(value, field, f"{path}.{name}")

    walk(DEFAULTS, SCHEMA, "values")


def test_every_value_is_described_in_a_sentence() -> None:
    assert len(LEAVES) > 50
    assert [path for path, field in LEAVES.items() if not field["description"].endswith(".")] == []


def test_the_page_holds_every_value() -> None:
    page = (chart.CHART / "README.md").read_text("utf-8")
    assert [path for path in LEAVES if f"| `{path}` |" not in page] == []


def test_generated_files_are_fresh() -> None:
    assert [path.name for path, text in chart_files.rendered().items() if path.read_text("utf-8") != text] == []


class TestGeneratedDefinitions:
    def test_braces_of_a_text_are_not_read_as_a_template(self) -> None:
        text = "metadata:\n  name: x\nspec:\n  a: '{{name}}'\n"
        made = chart_files.definition_template(text)
        assert "a: '{{ \"{{\" }}name}}'" in made
        assert made.index("helm.sh/resource-policy") < made.index("\nspec:\n")

    def test_a_text_without_a_spec_is_refused(self) -> None:
        with pytest.raises(ValueError, match="must have one `spec:`"):
            chart_files.definition_template("metadata:\n  name: x\n")


def environment(values: dict[str, Any] | None = None) -> dict[str, str]:
    (container,) = chart.pods([chart.only(chart.render(values), "Deployment")])["Deployment/thinkrec"]["containers"]
    return {item["name"]: item["value"] for item in container["env"]}


class TestTheOperatorsSettings:
    """`OperatorConfig` is what the process reads; the chart must set each field, and to something it accepts."""

    def test_every_setting_has_its_variable_and_no_other_is_set(self) -> None:
        ours = {name for name in environment() if name.startswith("THINKREC_")}
        assert ours == {f"THINKREC_{field.name.upper()}" for field in fields(OperatorConfig)}

    def test_the_defaults_are_those_of_the_process(self) -> None:
        told = from_environment(environment())
        own = OperatorConfig()
        chosen = {"trainer_image", "inference_image", "log_format"}
        same = {field.name for field in fields(OperatorConfig)} - chosen
        assert {name: getattr(told, name) for name in same} == {name: getattr(own, name) for name in same}
        assert (told.trainer_image, told.inference_image) == ("thinkrec-trainer:0.1.0", "thinkrec-inference:0.1.0")
        assert told.log_format == "json", "a cluster's logs are read by machines"

    def test_namespaces_arrive(self) -> None:
        assert from_environment(environment({"namespaces": ["a", "b"]})).namespaces == ("a", "b")

    @pytest.mark.parametrize("name", ["progressPeriodSeconds", "resyncSeconds", "workers"])
    def test_bounds_are_those_of_the_process(self, name: str) -> None:
        field = SCHEMA["properties"]["operator"]["properties"][name]
        variable = "THINKREC_" + "".join(f"_{c}" if c.isupper() else c.upper() for c in name)
        for bound, beyond in (("minimum", -1), ("maximum", 1)):
            from_environment({variable: str(field[bound])})
            with pytest.raises(ValueError, match=variable):
                from_environment({variable: str(field[bound] + beyond)})
