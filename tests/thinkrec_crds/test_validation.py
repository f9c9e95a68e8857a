# SPDX-License-Identifier: Apache-2.0
"""Every mistake is told at once, where the user typed it, with its value and its remedy, and without secrets."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.manifests import (
    AB_TEST,
    ANALYSIS,
    EXPERIMENT_MISTAKES,
    MINIMAL_EXPERIMENT,
    MINIMAL_MODEL,
    MODEL_MISTAKES,
    Mistake,
    edited,
    manifest,
)
from thinkrec_crds.problems import InvalidManifest, Problem
from thinkrec_crds.validation import load_documents, load_experiment, load_model, validate_documents

KEY = "AKIAABCDEFGHIJKLMNOP"


def problems_of(text: str) -> list[Problem]:
    return validate_documents(text, "model.yaml")


def expect(mistake: Mistake, found: list[Problem]) -> None:
    at_path = [problem for problem in found if problem.path == mistake.path]
    assert at_path, f"expected {mistake.path}, got {[str(problem) for problem in found]}"
    problem = at_path[0]
    assert mistake.message in problem.message
    assert mistake.remedy in problem.remedy
    assert mistake.value in problem.value
    assert len(found) == 1, [str(problem) for problem in found]


@pytest.mark.parametrize("mistake", MODEL_MISTAKES, ids=lambda mistake: mistake.name)
def test_a_mistake_in_a_model_gives_one_problem_at_its_place(mistake: Mistake) -> None:
    expect(mistake, problems_of(manifest(MINIMAL_MODEL, mistake.edits)))


@pytest.mark.parametrize("mistake", EXPERIMENT_MISTAKES, ids=lambda mistake: mistake.name)
def test_a_mistake_in_an_experiment_gives_one_problem_at_its_place(mistake: Mistake) -> None:
    expect(mistake, problems_of(manifest(MINIMAL_EXPERIMENT, mistake.edits)))


def test_minimal_manifests_have_no_problem() -> None:
    both = f"{manifest(MINIMAL_MODEL)}---\n{manifest(MINIMAL_EXPERIMENT)}---\n"
    assert problems_of(both) == []
    online = {"spec/traffic": AB_TEST, "spec/analysis": ANALYSIS}
    assert problems_of(manifest(MINIMAL_EXPERIMENT, online)) == []


def test_all_problems_of_all_documents_are_told_at_once() -> None:
    independent = [
        m for m in MODEL_MISTAKES if m.name in ("typing error", "unknown format", "too small", "empty schedule")
    ]
    edits = {path: value for mistake in independent for path, value in mistake.edits.items()}
    text = f"{manifest(MINIMAL_MODEL, edits)}---\n{manifest(MINIMAL_EXPERIMENT, {'spec/controlVariantName': 'old'})}"
    found = problems_of(text)
    assert [problem.path for problem in found if problem.document == 1] == [
        "spec.dataset.format",
        "spec.expert",
        "spec.experts.count",
        "spec.schedule",
    ]
    (last,) = (problem for problem in found if problem.document == 2)
    assert (last.kind, last.name, last.path) == ("ThinkRecExperiment", "fusion-test", "spec.controlVariantName")


def test_rules_are_judged_beside_wrong_values() -> None:
    edits = {"spec/experts": {"count": 0, "auto": {}}, "spec/traces/poolSize": "many"}
    assert {problem.path for problem in problems_of(manifest(MINIMAL_MODEL, edits))} == {
        "spec.experts.count",
        "spec.experts",
        "spec.traces.poolSize",  # and nothing about maxSamples, which cannot be judged
    }


def test_a_problem_names_the_line() -> None:
    text = manifest(MINIMAL_MODEL, {"spec/gate/temperature": "warm"})
    (problem,) = problems_of(text)
    assert text.splitlines()[(problem.line or 0) - 1].strip() == "temperature: warm"
    assert str(problem).startswith(f"model.yaml:{problem.line}: ThinkRecModel/movies spec.gate.temperature: must be")


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("a: [\n", 2, 1),
        ("kind: ThinkRecModel\n  spec: 1\n", 2, 7),
        ('a: "unfinished\n', 2, 1),
        ("a: &x\nb: *y\n", 2, 4),
        ("\tkind: x\n", 1, 1),
    ],
)
def test_a_syntax_error_has_a_line_and_a_column(text: str, line: int, column: int) -> None:
    (problem,) = problems_of(text)
    assert (problem.line, problem.column) == (line, column)
    assert "YAML syntax" in problem.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is no ThinkRecModel"),
        ("---\n---\n", "there is no ThinkRecModel"),
        ("apiVersion: v1\nkind: Secret\n", "there is no ThinkRecModel"),
        ("just text", "must be a mapping with apiVersion"),
        ("- a\n- b\n", "must be a mapping with apiVersion"),
        ("a: !!python/object:os.system x\n", "read as python/object"),
        ("a: !secret x\n", "read as !secret"),
        ("a: &a [*a]\n", "an alias contains itself"),
        ("[" * 2000, "nested too deeply"),
        ('a: "\\UFFFFFFFF"\n', "cannot be read"),
        ("a: \x00\n", "YAML syntax"),
        ("? [1]\n: 2\n", "every field name must be text"),
        ("a: 2001-01-99\n", "must be set"),
        ("a: 1\na: 2\n", "is given twice"),
        (f"a: 0x{'f' * 10}\nb: {'9' * 6000}\n", "read as int"),
        ("<<: 5\n", "must refer to a mapping"),
    ],
)
def test_odd_yaml_is_told_without_a_traceback(text: str, message: str) -> None:
    assert message in "\n".join(map(str, problems_of(text)))


def test_aliases_that_multiply_are_refused() -> None:
    levels = "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9))
    assert "values" in str(problems_of(f"a0: &a0 [1]\n{levels}\n")[0])


def test_a_merge_key_fills_in_what_is_missing() -> None:
    text = manifest(MINIMAL_MODEL).replace(
        "    items:\n", "    <<: {historyLength: 7, format: CSV}\n    format: Parquet\n    items:\n"
    )
    dataset = load_model(text).spec.dataset
    assert (dataset.history_length, dataset.format) == (7, "Parquet")


def test_a_date_stays_text_and_an_exponent_is_a_number() -> None:
    text = manifest(MINIMAL_MODEL).replace("    items:\n", "    revision: 2026-01-02\n    items:\n")
    assert load_model(text).spec.dataset.revision == "2026-01-02"
    text = f"{manifest(MINIMAL_MODEL)}  adapter: {{learningRate: 1e-4}}\n"
    assert 'Put it in quotes: "0.0001"' in str(problems_of(text)[0])


def test_null_members_are_left_out_as_the_apiserver_does() -> None:
    assert problems_of(manifest(MINIMAL_MODEL, {"spec/schedule": None, "spec/adapter/steps": None})) == []


def test_documents_of_other_groups_are_left_alone() -> None:
    secret = "apiVersion: v1\nkind: Secret\nstringData: {a: b}\n"
    assert problems_of(f"{secret}---\n{manifest(MINIMAL_MODEL)}") == []


def test_the_same_object_twice_is_a_problem() -> None:
    text = manifest(MINIMAL_MODEL)
    (problem,) = problems_of(f"{text}---\n{text}")
    assert problem.message == "is defined more than once"


@pytest.mark.parametrize(
    "edits",
    [
        {"spec/artifacts/storageUri": KEY},
        {"spec/teacher": {"apiKey": "plain-looking"}},
        {"spec/artifacts/secretRef": "plain-looking"},
        {"spec/artifacts/endpoint": "https://me:plain-looking@host"},
        {"spec/dataset/format": "sk-abcdefgh12345678"},
        {"spec/suspend": "hf_abcdefgh12345678"},
        {"spec/training/nodes": KEY},
        {"spec/artifacts/accessKey": {"id": "plain-looking"}},
    ],
)
def test_a_secret_is_not_repeated(edits: dict[str, object]) -> None:
    found = problems_of(manifest(MINIMAL_MODEL, edits))
    assert found
    told = "\n".join(map(str, found))
    assert not any(secret in told for secret in (KEY, "plain-looking", "sk-abcdefgh", "hf_abcdefgh"))


def test_loading_raises_with_all_problems() -> None:
    with pytest.raises(InvalidManifest, match="at least 1") as caught:
        load_model(manifest(MINIMAL_MODEL, {"spec/experts/count": 0, "spec/gate/temperature": "0"}), "m.yaml")
    assert [problem.path for problem in caught.value.problems] == ["spec.experts.count", "spec.gate.temperature"]


def test_loading_wants_exactly_one() -> None:
    with pytest.raises(InvalidManifest, match="one ThinkRecExperiment, but has 0"):
        load_experiment(manifest(MINIMAL_MODEL))
    other = manifest(MINIMAL_MODEL, {"metadata/name": "books"})
    with pytest.raises(InvalidManifest, match="one ThinkRecModel, but has 2"):
        load_model(f"{manifest(MINIMAL_MODEL)}---\n{other}")
    assert len(load_documents(f"{manifest(MINIMAL_MODEL)}---\n{other}")) == 2


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
WORDS = st.sampled_from(
    ["spec", "experts", "count", "auto", "min", "dataset", "items", "storageUri", "traces", "weight"]
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=8), inner, max_size=4)
)
PATHS = st.sampled_from(["spec", "metadata", "spec/experts", "spec/dataset", "spec/teacher", "spec/training", "kind"])


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(path=PATHS, value=VALUES)
def test_any_value_anywhere_gives_problems_or_a_resource(path: str, value: object) -> None:
    text = yaml.safe_dump(edited(MINIMAL_MODEL, {path: value}), allow_unicode=True)
    if not problems_of(text):
        assert load_documents(text)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(text=st.text(alphabet="kinda: spec-\n[]{}&*!|>'\"#,\t?%@`0", max_size=60))
def test_any_text_is_told_without_a_traceback(text: str) -> None:
    assert problems_of(text)
