# SPDX-License-Identifier: Apache-2.0
"""What the Python validation refuses, the apiserver refuses too: at the same place, for the same reason."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import pytest

from embedded_cluster.api import ApiError
from embedded_cluster.cluster import Cluster
from support.manifests import (
    AB_TEST,
    ANALYSIS,
    EXPERIMENT_MISTAKES,
    MINIMAL_EXPERIMENT,
    MINIMAL_MODEL,
    MODEL_MISTAKES,
    Mistake,
    edited,
)
from support.thinkrec_api import causes, refusal
from thinkrec_crds.problems import Problem
from thinkrec_crds.validation import validate_documents

OTHER_WORDS: Final = {
    "no name": (422, "metadata.name", "Required value"),
    "no metadata": (422, "metadata.name", "Required value"),
    "name too long": (422, "", "at most 52 characters"),
    "name in capitals": (422, "metadata.name", "lowercase RFC 1123"),
    "name begins with a digit": (422, "", "must start with a letter"),
    "namespace of dots": (400, "", "namespace of the provided object does not match"),
    "unknown kind": (422, "kind", "must be ThinkRecModel"),
    "unknown version": (400, "", 'version "v1" cannot be handled'),
    "no kind": (400, "", "Object 'Kind' is missing"),
    "no version": (400, "", "does not match the expected API version"),
    "number for a text label": (400, "", "cannot unmarshal number into Go struct field ObjectMeta.labels"),
}
"""Everything outside spec: Kubernetes' own checks of names and types come first, in their own words."""

BUILT_IN: Final = (
    ("must be set", "Required value"),
    ("must be one of", "Unsupported value"),
    ("must be unique", "Duplicate value"),
    ("whole number or a quantity", "must be of type integer,string"),
    ("whole number", "must be of type integer"),
    ("text", "must be of type string"),
    ("true or false", "must be of type boolean"),
    ("mapping", "must be of type object"),
    ("list", "must be of type array"),
    ("must not be empty", "should have at least 1 items"),
    ("characters", "Too long"),
    ("must have at most", "Too many"),
    ("must have at least", "should have at least"),
    ("must be at least", "should be greater than or equal to"),
    ("must be at most", "should be less than or equal to"),
)
"""Our words for what an OpenAPI schema says by itself, and the apiserver's."""

CASES: Final = [(MINIMAL_MODEL, mistake) for mistake in MODEL_MISTAKES] + [
    (MINIMAL_EXPERIMENT, mistake) for mistake in EXPERIMENT_MISTAKES
]


def problems_of(body: Mapping[str, Any]) -> list[Problem]:
    return validate_documents(json.dumps(body, ensure_ascii=False), "manifest")


def api_paths(problem: Problem) -> tuple[str, str]:
    """Return the place as the apiserver's schema writes it, and its rules: neither quotes the keys of maps."""
    return problem.path.replace('["', ".").replace('"]', ""), problem.path.replace('"', "")


def agrees(problem: Problem, error: ApiError) -> bool:
    """Return whether a cause is at the problem's place and says the same, verbatim or in the schema's own words."""
    words = {problem.message, *(theirs for ours, theirs in BUILT_IN if ours in problem.message)}
    here = [message for field, message in causes(error) if field.startswith(api_paths(problem))]
    return any(word in message for word in words for message in here)


def test_there_are_enough_mistakes() -> None:
    assert len(CASES) >= 90
    names = {mistake.name for _, mistake in CASES}
    assert names >= OTHER_WORDS.keys()


@pytest.mark.parametrize(("base", "mistake"), CASES, ids=lambda value: getattr(value, "name", ""))
def test_a_mistake_is_refused_for_its_reason(control_plane: Cluster, base: dict[str, Any], mistake: Mistake) -> None:
    body = edited(base, mistake.edits)
    error = refusal(control_plane.api, body, kind=str(base["kind"]))
    assert error is not None, f"accepted, although {problems_of(body)[0]}"
    if mistake.name in OTHER_WORDS:
        code, field, words = OTHER_WORDS[mistake.name]
        assert (error.code, words in error.body["message"]) == (code, True), error
        assert not field or field in dict(causes(error)), error
        return
    (problem,) = problems_of(body)
    if "not a known field" in problem.message:  # refused by strict field validation only, and pruned without it
        assert error.code == 400
        assert f'unknown field "{problem.path}"' in error.body["message"]
        return
    assert error.code == 422
    assert agrees(problem, error), f"{problem}\n{causes(error)}"


def test_without_strict_validation_an_unknown_field_is_pruned_with_a_warning(control_plane: Cluster) -> None:
    path = "/apis/thinkrec.io/v1alpha1/namespaces/default/thinkrecmodels"
    body = edited(MINIMAL_MODEL, {"spec/expert": {"count": 2}})
    answer = control_plane.api.request("POST", path, json=body, params={"fieldValidation": "Warn", "dryRun": "All"})
    assert "expert" not in answer.json()["spec"]
    assert 'unknown field "spec.expert"' in answer.headers["Warning"].replace("\\", "")


ONLINE: Final = edited(MINIMAL_EXPERIMENT, {"spec/traffic": AB_TEST, "spec/analysis": ANALYSIS})
_KEYS = ("spec/training/nodeSelector", "spec/training/resources/limits", "spec/serving/resources/requests")
MODEL_EDGES: Final[list[tuple[str, Any]]] = [
    *((path, {key: "1"}) for path in _KEYS for key in ("", "k" * 256, "k" * 257)),
    *(("spec/training/nodeSelector", {f"k{index}": "v" for index in range(count)}) for count in (32, 33)),
    *(("spec/training/resources/limits", {f"k{index}": 1 for index in range(count)}) for count in (16, 17)),
    *(
        ("spec/training/resources/limits/cpu", value)
        for value in (0, 1, -1, 2.5, True, "", "1\n", "-1", "+1", "1.5Gi", "500m", "1e3", "1e-3", "1E", "x", "9" * 30)
    ),
    *(
        ("spec/training/image", value)
        for value in ("r/n:tag", "r/n@sha256:0", "a b", "a\u00a0b", "a\u2028b", "a\n", "\t", "é", "i" * 512, "i" * 513)
    ),
    *(
        ("spec/artifacts/endpoint", value)
        for value in (
            "http://h",
            "http://h:9/p?q=1",
            "http://h\u00a0x",
            "http://h x",
            "http://u@h",
            "http://h/\n",
            "h:9",
        )
    ),
    *(
        ("spec/dataset/storageUri", value)
        for value in (
            "file:x",
            "file:///x",
            "file:/x",
            "file://x",
            "file:x\ny",
            "file:é",
            "s3://b/k",
            "s3://bkt/\u00a0",
        )
    ),
    *(("spec/dataset/columns/user", value) for value in ("é" * 128, "é" * 129, "\U0001f600" * 128, "", " ")),
    *(
        ("spec/gate/temperature", value)
        for value in (
            "1",
            "01",
            "0.5",
            ".5",
            "0.5\n",
            "1e-4",
            "1E-4",
            "1e+4",
            "0",
            "0.0",
            "-1",
            "٣",
            "1_000",
            "Infinity",
        )
    ),
    *(("spec/dataset/labelThreshold", value) for value in ("-4", "4.", "00", "1e5", "NaN", "")),
    *(("spec/adapter/lora/dropout", value) for value in ("0", "1", "1.0", "1.01", "0.1234567890")),
    *(("spec/dataset/revision", value) for value in ("1", "v1.2+b/c:d", "-1", "r" * 128, "r" * 129, "a b")),
    *(("spec/schedule/cron", value) for value in ("@daily", "@Daily", "0 3 * * MON", "0 3 * * 1 7", "0\t3 * * 1")),
    *(("spec/evaluation/metrics", value) for value in (["NDCG@50"], ["NDCG@51"], ["NDCG@0"], [], [None], "AUC")),
    *(("spec/experts", {"count": value}) for value in (1, 64, 1.5, "1", None, 10**20)),
    *(("spec/revisionHistoryLimit", value) for value in (0, 2**31 - 1, 2**31)),
    *(("spec/training/tolerations", value) for value in ([{}], [{"operator": "exists"}], [None], [{}] * 17)),
    *(("spec/training/podTemplate", value) for value in ({}, {"spec": {"any": [1, {"a": None}]}}, {"spec": 1}, [])),
    *((f"spec/{name}", None) for name in ("schedule", "experts", "serving", "dataset", "suspend")),
    *((f"spec/{name}", {}) for name in ("experts", "serving", "dataset", "teacher")),
    *(("metadata/labels", {f"k{index}": "v" for index in range(count)}) for count in (32, 40)),
]
EXPERIMENT_EDGES: Final[list[tuple[str, Any]]] = [
    *(("spec/analysis/significanceLevel", value) for value in ("0.05", "0.0", "0.999999999", "1.0", 0.05)),
    *(("spec/variants/0/revision", value) for value in ("movies-7f3a", "Movies", "-a", "a-", "a.b", "a" * 64, "")),
    *(("spec/variants/0/weight", value) for value in (None, 0, 100, -1)),
    *(("spec/analysis/metrics/0/name", value) for value in ("clicks", "Clicks", "1", "a_b")),
    *(("spec/traffic/durationSeconds", value) for value in (59, 60, "60", 2**31)),
    ("spec/variants", [{"name": f"v{index}", "modelRef": {"name": "movies"}} for index in range(9)]),
    ("spec/analysis", {}),
    ("spec/offline", None),
    ("spec/offline", {"dataset": {"storageUri": "s3://bkt/k"}}),
]
EDGES: Final[list[tuple[Mapping[str, Any], str, Any]]] = [
    *((MINIMAL_MODEL, path, value) for path, value in MODEL_EDGES),
    *((ONLINE, path, value) for path, value in EXPERIMENT_EDGES),
]


def test_both_judge_the_edges_alike(control_plane: Cluster) -> None:
    differing, refused = [], 0
    for base, path, value in EDGES:
        body = edited(base, {path: value})
        problems = problems_of(body)
        error = refusal(control_plane.api, body, kind=str(base["kind"]))
        refused += error is not None
        if bool(problems) != (error is not None):
            differing.append((path, str(value)[:40], [str(problem) for problem in problems], str(error)))
    assert differing == []
    assert refused >= 60
    assert len(EDGES) - refused >= 40


@pytest.mark.parametrize("path", ["spec/adapter/lora/rank", "spec/dataset/historyLength", "spec/training/seed"])
def test_the_one_exception_a_whole_number_with_a_point(control_plane: Cluster, path: str) -> None:
    """Where no rule reads it the apiserver stores 2.0 as 2: the operator never sees it, a laptop calls it a mistake."""
    body = edited(MINIMAL_MODEL, {path: 2.0})
    (problem,) = problems_of(body)
    assert "whole number" in problem.message
    stored = control_plane.api.create(
        "/apis/thinkrec.io/v1alpha1/namespaces/default/thinkrecmodels", body, fieldValidation="Strict", dryRun="All"
    )
    assert problems_of(stored) == []
