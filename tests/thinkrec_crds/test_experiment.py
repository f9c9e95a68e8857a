# SPDX-License-Identifier: Apache-2.0
"""ThinkRecExperiment: defaults, and what must not change once it exists."""

from __future__ import annotations

from typing import Any

import pytest

from support.manifests import AB_TEST, ANALYSIS, DELETE, MINIMAL_EXPERIMENT, MINIMAL_MODEL, edited, manifest
from thinkrec_crds.experiment import ThinkRecExperiment
from thinkrec_crds.validation import forbidden_changes, load_experiment

ONLINE = {"spec/traffic": AB_TEST, "spec/analysis": ANALYSIS}


def read(edits: dict[str, Any] | None = None) -> ThinkRecExperiment:
    return load_experiment(manifest(MINIMAL_EXPERIMENT, edits))


def test_the_defaults_promote_nothing_and_allow_looking_at_any_time() -> None:
    spec = read(ONLINE).spec
    assert (spec.promotion_policy, spec.rollback_policy) == ("None", "Automatic")
    assert spec.analysis is not None
    assert (spec.analysis.method, spec.analysis.significance_level) == ("AlwaysValid", "0.05")
    assert spec.offline is not None
    assert [metric.name for metric in spec.offline.metrics] == ["UAUC"]


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ({"spec/variants/1/revision": "other"}, "`revision` must not change"),
        ({"spec/variants/1/revision": DELETE}, "`revision` must not change"),
        ({"spec/variants/0/revision": "added"}, "`revision` must not change"),
        ({"spec/variants/0/modelRef/name": "books"}, "`modelRef` must not change"),
        ({"spec/variants/1/name": "other"}, "`variants` must not gain or lose a member"),
        ({"spec/controlVariantName": "next"}, "`controlVariantName` must not change"),
        ({"spec/offline": DELETE, **ONLINE}, "`offline` must not be added or removed"),
        ({"spec/offline/dataset": edited(MINIMAL_MODEL, {})["spec"]["dataset"]}, "`dataset` must not change"),
    ],
)
def test_what_defines_the_comparison_must_not_change(edits: dict[str, Any], message: str) -> None:
    (found,) = forbidden_changes(read(edits), read())
    assert message in found


@pytest.mark.parametrize(
    "edits",
    [
        {},
        {"spec/variants/0/weight": 90, "spec/variants/1/weight": 10},
        {"spec/offline/gates": [{"metric": "AUC", "minimum": "0.6"}]},
        {"spec/suspend": True},
        {"spec/promotionPolicy": "Automatic"},
        ONLINE,
    ],
)
def test_weights_gates_and_policies_may_change(edits: dict[str, Any]) -> None:
    assert forbidden_changes(read(edits), read()) == []


def test_reordering_variants_changes_nothing() -> None:
    swapped = list(reversed(MINIMAL_EXPERIMENT["spec"]["variants"]))
    assert forbidden_changes(read({"spec/variants": swapped}), read()) == []


def test_a_resource_survives_writing_and_reading() -> None:
    experiment = read(ONLINE)
    assert ThinkRecExperiment.from_json(experiment.to_json()) == experiment


MIRROR = {"mode": "Mirror", "mirrorPercent": 5}


@pytest.mark.parametrize(
    ("traffic", "message"),
    [
        (MIRROR, "`mode` must not change"),
        ({**AB_TEST, "assignment": {"type": "Random"}}, "`assignment` must not change"),
        ({**AB_TEST, "gatewayRef": {"name": "front"}}, "`gatewayRef` must not change"),
    ],
)
def test_how_users_are_shared_out_must_not_change(traffic: dict[str, Any], message: str) -> None:
    found = forbidden_changes(read({**ONLINE, "spec/traffic": traffic}), read(ONLINE))
    assert any(message in each for each in found), found
