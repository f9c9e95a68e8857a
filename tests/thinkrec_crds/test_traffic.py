# SPDX-License-Identifier: Apache-2.0
"""traffic.json: what it refuses, in words."""

from __future__ import annotations

import json
from typing import Any

import pydantic
import pytest

from thinkrec_crds.traffic import TrafficTable


def variant(name: str, weight: int, **more: Any) -> dict[str, Any]:
    return {"name": name, "revision": f"{name}-1", "weight": weight, "ready": True, **more}


def experiment(**changes: Any) -> dict[str, Any]:
    body = {
        "uid": "6b0f8b6e",
        "name": "fusion",
        "mode": "ABTest",
        "control": "control",
        "variants": [variant("control", 50), variant("new", 50, url="http://new.shop.svc:8080")],
        **changes,
    }
    return {key: value for key, value in body.items() if value is not None}


def read(*experiments: dict[str, Any]) -> TrafficTable:
    return TrafficTable.from_json(json.dumps({"experiments": experiments}))


def refusal(*experiments: dict[str, Any]) -> str:
    with pytest.raises(pydantic.ValidationError) as error:
        read(*experiments)
    return "\n".join(problem["msg"] for problem in error.value.errors())


def test_a_table_survives_the_wire() -> None:
    table = read(experiment(), experiment(uid="2", name="layer", assignment={"type": "Cookie", "key": "session"}))
    assert TrafficTable.from_json(table.to_json()) == table
    assert table.experiments[0].assignment.key is None, "no key: the request's userId"


def test_weights_put_control_first_whatever_the_order_of_the_file() -> None:
    variants = [variant("b", 20), variant("a", 30), variant("control", 50)]
    (found,) = read(experiment(variants=variants)).experiments
    assert found.weights == (("control", 50), ("a", 30), ("b", 20))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": [variant("control", 50), variant("new", 40)]}, "add up to 90; they must add up to 100"),
        ({"control": "old"}, "control 'old' is none of the variants control, new"),
        ({"variants": [variant("control", 50), variant("control", 50)]}, "variant 'control' is named twice"),
        (
            {"mode": "Canary", "variants": [variant("control", 80), variant("a", 10), variant("b", 10)]},
            "a Canary has two variants, not 3",
        ),
        ({"mode": "Mirror"}, "a Mirror needs mirrorPercent"),
        ({"mirrorPercent": 10}, "mirrorPercent belongs to a Mirror only"),
        ({"assignment": {"type": "Random", "key": "x-user"}}, "assignment.key has no meaning for type Random"),
    ],
)
def test_a_broken_rule_is_told_with_the_experiment(changes: dict[str, Any], message: str) -> None:
    told = refusal(experiment(**changes))
    assert message in told
    assert "experiment 'fusion'" in told


def test_all_broken_rules_of_an_experiment_are_told_at_once() -> None:
    told = refusal(experiment(control="old", mirrorPercent=5, variants=[variant("control", 50), variant("new", 40)]))
    assert [words in told for words in ("is none of", "add up to 90", "belongs to a Mirror")] == [True] * 3


def test_a_mirror_needs_no_weights() -> None:
    variants = [variant("control", 0), variant("new", 0)]
    assert read(experiment(mode="Mirror", mirrorPercent=5, variants=variants)).experiments[0].mirror_percent == 5


def test_experiments_have_uids_and_names_of_their_own() -> None:
    assert "two experiments have the uid '6b0f8b6e'" in refusal(experiment(), experiment(name="other"))
    assert "two experiments are called 'fusion'" in refusal(experiment(), experiment(uid="other"))


def test_an_address_holds_no_credentials() -> None:
    refusal(experiment(variants=[variant("control", 50), variant("new", 50, url="http://me:secret@new")]))
