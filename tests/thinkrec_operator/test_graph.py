# SPDX-License-Identifier: Apache-2.0
"""The graph: which stages, which inputs, and keys that change exactly with what a stage reads."""

from __future__ import annotations

from typing import Any

import pytest

from support.model_world import SPEC, merged, model
from support.model_world import STAGES as ALL
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_crds.stages import BundleParameters
from thinkrec_operator.graph import Comparator, Graph, build_graph

AFTER_ADAPTER = {"projector", "expert-0", "expert-1", "bundle", "evaluate"}
EXPERTS_ON = {"expert-0", "expert-1", "bundle", "evaluate"}


def graph(changes: dict[str, Any] | None = None, **options: Any) -> Graph:
    return build_graph(model(merged(SPEC, changes or {})).spec, **options)


def keys(found: Graph) -> dict[str, str]:
    return {stage.role: stage.key for stage in found.stages}


def test_every_stage_follows_its_inputs() -> None:
    seen: set[str] = set()
    for stage in graph().stages:
        assert {item.role for item in stage.inputs} <= seen, stage.role
        seen.add(stage.role)
    assert seen == ALL


def test_inputs_are_those_of_the_contract() -> None:
    roles = {stage.role: {item.role for item in stage.inputs} for stage in graph().stages}
    assert roles["traces"] == {"dataset", "keywords"}
    assert roles["gate"] == {"dataset", "collaborative"}
    assert roles["expert-1"] == {"dataset", "keywords", "collaborative", "adapter", "projector", "gate"}
    assert roles["bundle"] == ALL - {"traces", "bundle", "evaluate"}
    assert roles["evaluate"] == ALL - {"evaluate"}


@pytest.mark.parametrize(
    ("changes", "again"),
    [
        ({"dataset": {"revision": "2"}}, ALL),
        ({"training": {"seed": 7}}, ALL),
        ({"keywords": {"maxKeywords": 5}}, {"keywords", "traces", "adapter"} | AFTER_ADAPTER),
        ({"teacher": {"maxRounds": 2}}, {"traces", "adapter"} | AFTER_ADAPTER),
        ({"adapter": {"steps": 5}}, {"adapter"} | AFTER_ADAPTER),
        ({"projector": {"steps": 5}}, AFTER_ADAPTER),
        ({"collaborative": {"epochs": 3}}, {"collaborative", "gate"} | AFTER_ADAPTER),
        ({"experts": {"steps": 5}}, EXPERTS_ON),
        ({"experts": {"grouping": {"method": "Ward"}}}, {"gate"} | EXPERTS_ON),
        ({"gate": {"temperature": "0.2"}}, {"bundle", "evaluate"}),
        ({"evaluation": {"maxUsers": 10}}, {"evaluate"}),
        ({"evaluation": {"maxRowsPerUser": 3}}, {"evaluate"}),
        ({"evaluation": {"gates": [{"metric": "AUC", "minimum": "0.5"}]}}, set()),
        ({"evaluation": {"gates": [{"metric": "MAP@9", "minimum": "0.5"}]}}, {"evaluate"}),
        ({"serving": {"replicas": 3}}, set()),
        ({"training": {"resources": {"limits": {"cpu": 2}}, "image": "other:1", "backoffLimit": 9}}, set()),
        ({"artifacts": {"storageUri": "s3://elsewhere/x"}}, set()),
        ({"baseModel": {"revision": "2"}}, ALL - {"dataset", "keywords", "collaborative", "gate"}),
    ],
)
def test_a_change_trains_again_exactly_what_reads_it(changes: dict[str, Any], again: set[str]) -> None:
    before, after = keys(graph()), keys(graph(changes))
    assert {role for role in ALL if before[role] != after[role]} == again


def test_a_new_expert_leaves_the_gate_to_group_anew() -> None:
    before, after = keys(graph()), keys(graph({"experts": {"count": 3}}))
    assert before["adapter"] == after["adapter"]
    assert before["gate"] != after["gate"]
    assert "expert-2" in after


def test_named_experts_keep_the_roles_of_the_contract() -> None:
    found = graph({"experts": {"count": None, "items": [{"name": "night"}, {"name": "day"}]}})
    assert found.expert_count == 2
    experts = [stage for stage in found.stages if stage.kind is StageKind.EXPERT]
    assert [(stage.role, stage.title) for stage in experts] == [("expert-0", "night"), ("expert-1", "day")]
    bundle = found.find("bundle")
    assert bundle is not None
    assert isinstance(bundle.parameters, BundleParameters)
    assert bundle.parameters.expert_names == ("night", "day")


def test_experts_without_names_of_their_own_leave_the_bundles_key_as_it_was() -> None:
    stage = graph().find("bundle")
    assert stage is not None
    assert "expertNames" not in stage.parameters.model_dump(mode="json", by_alias=True, exclude_none=True)
    renamed = graph({"experts": {"count": None, "items": [{"name": "night"}, {"name": "day"}]}}).find("bundle")
    assert renamed is not None
    assert renamed.key != stage.key


def test_the_gate_opens_the_rest_of_an_automatic_graph() -> None:
    auto = {"experts": {"count": None, "auto": {"min": 2, "max": 5}}}
    unknown, known = graph(auto), graph(auto, groups=4)
    assert unknown.expert_count is None
    assert unknown.find("bundle") is None
    assert known.expert_count == 4
    assert keys(unknown).items() <= keys(known).items(), "what was known keeps its key"
    assert known.find("expert-3") is not None


def test_the_serving_bundle_enters_only_the_evaluation() -> None:
    compared = Comparator("movies-old", "a" * 40, "sha256:" + "0" * 64, "s3://store/movies/bundle/a")
    before, after = keys(graph()), keys(graph(comparator=compared))
    assert {role for role in ALL if before[role] != after[role]} == {"evaluate"}


def test_a_retrain_token_changes_every_key() -> None:
    before, after = keys(graph()), keys(graph(retrain="monday"))
    assert all(before[role] != after[role] for role in ALL)


def test_neither_steps_nor_epochs_means_one_epoch() -> None:
    stage = graph().find("adapter")
    assert stage is not None
    assert (stage.parameters.loop.steps, stage.parameters.loop.epochs) == (None, 1)  # type: ignore[union-attr]
