# SPDX-License-Identifier: Apache-2.0
"""ThinkRecModel: defaults, round trips, and what the types themselves refuse."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from support.manifests import MINIMAL_MODEL, as_yaml, edited, manifest
from thinkrec_crds.fields import as_float
from thinkrec_crds.model import ThinkRecModel
from thinkrec_crds.model_status import Condition, ModelStatus, StageStatus
from thinkrec_crds.spec_learning import Adapter, Collaborative, Experts, Lora
from thinkrec_crds.spec_serving import Autoscaling, Serving
from thinkrec_crds.spec_training import StageOverride
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_crds.validation import load_model

NOON = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)


def condition(type_: str, status: str) -> Condition:
    return Condition.model_validate(
        {"type": type_, "status": status, "reason": "Pending", "lastTransitionTime": "2026-01-02T12:00:00Z"}
    )


def test_the_defaults_are_the_method_of_the_paper() -> None:
    spec = load_model(manifest(MINIMAL_MODEL)).spec
    lora = spec.adapter.lora
    assert (lora.rank, lora.alpha, as_float(lora.dropout), lora.target_modules) == (8, 16, 0.05, ("q_proj", "v_proj"))
    assert (as_float(spec.adapter.learning_rate), spec.adapter.warmup_steps) == (1e-4, 200)
    assert as_float(spec.experts.learning_rate) == 1e-5
    assert (as_float(spec.gate.temperature), spec.gate.hard_route_threshold) == (0.1, None)
    assert spec.experts.auto is not None
    assert (spec.experts.auto.min, spec.experts.auto.max) == (2, 10)
    assert (spec.dataset.label_threshold, spec.dataset.split, spec.dataset.history_length) == (
        "4",
        "PerUserTemporal",
        10,
    )
    assert (spec.projector.hidden_multiplier, spec.keywords.max_keywords) == (10, 10)


@pytest.mark.parametrize(("encoder", "width"), [("MF", 256), ("LightGCN", 64), ("SASRec", 64)])
def test_the_width_of_the_vectors_follows_the_encoder(encoder: Any, width: int) -> None:
    assert Collaborative(encoder=encoder).effective_dimension == width
    assert Collaborative(encoder=encoder, dimension=32).effective_dimension == 32


def test_replicas_in_force() -> None:
    assert Serving().effective_replicas == 1
    assert Serving(replicas=0).effective_replicas == 0
    assert Serving(autoscaling=Autoscaling(min_replicas=2, max_replicas=4)).effective_replicas == 2


def test_rules_hold_for_objects_made_in_python_too() -> None:
    with pytest.raises(ValidationError, match="exactly one of `count`, `items` or `auto`"):
        Experts()
    with pytest.raises(ValidationError, match="`steps` and `epochs` must not be set together"):
        Adapter(steps=1, epochs=1)


def test_a_stage_override_leaves_open_what_is_not_given() -> None:
    override = StageOverride(name=StageKind.ADAPTER, nodes=2)
    assert override.model_dump(by_alias=True, exclude_none=True) == {"name": "adapter", "nodes": 2}


def test_unknown_metadata_is_kept_and_unknown_status_is_dropped() -> None:
    body = edited(
        MINIMAL_MODEL,
        {
            "metadata/managedFields": [{"manager": "kubectl"}],
            "metadata/uid": "b2c1",
            "metadata/generation": 3,
            "metadata/creationTimestamp": "2026-01-02T12:00:00Z",
            "status": {"observedGeneration": 2, "newerField": 1},
        },
    )
    model = ThinkRecModel.model_validate(body)
    assert (model.metadata.uid, model.metadata.generation, model.status.observed_generation) == ("b2c1", 3, 2)
    dumped = model.model_dump(mode="json", by_alias=True)
    assert dumped["metadata"]["managedFields"] == [{"manager": "kubectl"}]
    assert "newerField" not in dumped["status"]


def test_a_model_before_its_first_visit() -> None:
    model = load_model(manifest(MINIMAL_MODEL))
    assert model.status == ModelStatus()
    assert model.status.observed_generation == -1
    assert not model.status.is_true("Ready")


def test_conditions_are_found_by_type() -> None:
    status = ModelStatus(conditions=(condition("Ready", "False"), condition("Available", "True")))
    assert status.is_true("Available")
    assert not status.is_true("Ready")
    assert status.condition("Stale") is None
    with pytest.raises(ValidationError, match="every type must be unique; repeated: Ready"):
        ModelStatus(conditions=(condition("Ready", "False"), condition("Ready", "True")))


def test_a_moment_is_kept_in_utc_to_the_second() -> None:
    stage = StageStatus(
        name="gate",
        kind=StageKind.GATE,
        start_time=datetime(2026, 1, 2, 14, 0, 0, 999, tzinfo=timezone(timedelta(hours=2))),
    )
    assert stage.start_time == NOON
    assert stage.model_dump(mode="json", by_alias=True)["startTime"] == "2026-01-02T12:00:00Z"
    with pytest.raises(ValidationError, match="timezone"):
        StageStatus(name="gate", kind=StageKind.GATE, start_time=datetime(2026, 1, 2))


LORAS = st.builds(
    Lora,
    rank=st.integers(1, 256),
    alpha=st.integers(1, 1024),
    dropout=st.sampled_from(["0", "0.05", "1"]),
    target_modules=st.lists(st.sampled_from(["q_proj", "k_proj", "v_proj"]), min_size=1, unique=True).map(tuple),
)
EXPERTS = st.builds(Experts, count=st.integers(1, 64)) | st.builds(
    lambda names: Experts.model_validate({"items": [{"name": name} for name in names]}),
    st.lists(st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True), min_size=1, max_size=5, unique=True),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(lora=LORAS, experts=EXPERTS, suspend=st.booleans(), seed=st.integers(0, 2**31 - 1))
@example(lora=Lora(), experts=Experts.model_validate({"items": [{"name": "0e0"}]}), suspend=False, seed=0)
def test_a_manifest_survives_writing_and_reading(lora: Lora, experts: Experts, suspend: bool, seed: int) -> None:
    edits = {
        "spec/adapter/lora": lora.model_dump(mode="json", by_alias=True),
        "spec/experts": experts.model_dump(mode="json", by_alias=True, exclude_none=True),
        "spec/suspend": suspend,
        "spec/training/seed": seed,
    }
    model = load_model(as_yaml(edited(MINIMAL_MODEL, edits)))
    assert (model.spec.adapter.lora, model.spec.experts) == (lora, experts)
    assert ThinkRecModel.from_json(model.to_json()) == model
    assert load_model(as_yaml(json.loads(model.to_json()))) == model
