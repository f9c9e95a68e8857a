# SPDX-License-Identifier: Apache-2.0
"""Requests on ids: routing by branch, cold users, refusals, golden prompts and the swap of bundles."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from support.bundles import FLOAT32, BundleShape, make_bundle
from thinkrec_crds.bundle import GoldenFile
from thinkrec_crds.engine_api import (
    Branch,
    EngineError,
    ExplainRequest,
    HistoryItem,
    ScoreRequest,
    ScoreResponse,
)
from thinkrec_inference.engine.engine import Engine
from thinkrec_inference.engine.errors import BundleError, RequestRefusedError
from thinkrec_inference.engine.golden import reordered_pairs
from thinkrec_inference.engine.scorer import ScoreJob, Scorer

ITEMS = ("i3", "i7", "i11")


@pytest.fixture(scope="module")
def engine(bundle_dir: Path, tiny_llama_dir: Path) -> Engine:
    return Engine.load(bundle_dir, tiny_llama_dir, FLOAT32)


def answer(engine: Engine, user: str, items: tuple[str, ...] = ITEMS, **fields: object) -> ScoreResponse:
    (found,) = engine.score([ScoreRequest(user_id=user, item_ids=items, **fields)])
    assert isinstance(found, ScoreResponse), found
    return found


def alone(engine: Engine, user: str, slot: int, *, cold: bool = False) -> torch.Tensor:
    """Scores of a scorer that has just this one adapter."""
    bundle = engine.bundle
    row = bundle.users.get(user)
    scorer = Scorer(
        engine.scorer.base,
        bundle.items,
        bundle.index.prompt,
        projector=bundle.projector,
        collaborative=bundle.collaborative,
        adapters=[bundle.adapters[slot]],
    )
    history = row.history if row else ()
    index = row.index if row and not cold else None
    return scorer.score([ScoreJob(history, (3, 7, 11), user_index=index, soft=True)])[0]


def test_a_user_of_one_group_is_scored_by_that_expert_alone(engine: Engine) -> None:
    found = answer(engine, "u4")
    assert (found.branch, found.gates, found.cold_start) == (Branch.ONE_HOT, (0, 1, 0, 0), False)
    assert torch.tensor(found.scores) == pytest.approx(alone(engine, "u4", 1), abs=1e-5)


def test_a_user_of_no_group_is_scored_by_the_general_adapter_alone(engine: Engine) -> None:
    found = answer(engine, "uniform")
    assert (found.branch, found.gates, found.cold_start) == (Branch.GENERAL, (0, 0, 0, 1), False)
    assert torch.tensor(found.scores) == pytest.approx(alone(engine, "uniform", 3), abs=1e-5)


def test_a_user_between_groups_is_scored_by_the_weighted_experts(engine: Engine) -> None:
    found = answer(engine, "mixed")
    assert found.branch is Branch.FUSED
    assert sum(found.gates) == pytest.approx(1, abs=1e-6)
    assert found.gates[0] > found.gates[1] > found.gates[2] > found.gates[3] == 0
    assert torch.tensor(found.scores) != pytest.approx(alone(engine, "mixed", 0), abs=1e-5)


@pytest.mark.parametrize("user", ["cold", "never seen"])
def test_a_user_without_a_vector_takes_the_general_adapter_and_is_told(engine: Engine, user: str) -> None:
    found = answer(engine, user)
    assert (found.branch, found.gates, found.cold_start) == (Branch.COLD_START, (0, 0, 0, 1), True)
    assert torch.tensor(found.scores) == pytest.approx(alone(engine, user, 3, cold=True), abs=1e-5)


def test_a_given_history_replaces_the_stored_one(engine: Engine) -> None:
    given = (HistoryItem(item_id="i5", liked=True), HistoryItem(item_id="i6", liked=False))
    assert answer(engine, "u0", history=given).scores != answer(engine, "u0").scores
    stored = engine.bundle.users.get("u0")
    assert stored is not None
    same = tuple(HistoryItem(item_id=f"i{item}", liked=liked) for item, liked in stored.history)
    assert answer(engine, "u0", history=same).scores == answer(engine, "u0").scores


def test_a_long_history_is_cut_to_its_newest_part(engine: Engine) -> None:
    long = tuple(HistoryItem(item_id=f"i{index}", liked=True) for index in range(20))
    newest = long[-engine.bundle.index.history_length :]
    assert answer(engine, "u0", history=long).scores == answer(engine, "u0", history=newest).scores


def test_a_refused_request_does_not_touch_its_neighbours(engine: Engine) -> None:
    requests = [
        ScoreRequest(user_id="u0", item_ids=ITEMS),
        ScoreRequest(user_id="u1", item_ids=("i1", "no such item")),
        ScoreRequest(user_id="mixed", item_ids=ITEMS),
        ScoreRequest(user_id="u2", item_ids=ITEMS, history=(HistoryItem(item_id="gone", liked=True),)),
    ]
    found = engine.score(requests)
    for index, name in ((1, "no such item"), (3, "gone")):
        refused = found[index]
        assert isinstance(refused, EngineError)
        assert (refused.status, name in refused.error, "24 items" in refused.remedy) == (404, True, True)
    for index, user in ((0, "u0"), (2, "mixed")):
        response = found[index]
        assert isinstance(response, ScoreResponse)
        assert response.scores == pytest.approx(answer(engine, user).scores, abs=1e-5)


def test_an_explanation_streams_the_decision_first_and_everything_last(engine: Engine) -> None:
    events = list(engine.explain(ExplainRequest(user_id="mixed", item_id="i7", max_tokens=10)))
    first, last = events[0], events[-1]
    scored = answer(engine, "mixed", ("i7",))
    assert first.score == last.score == pytest.approx(scored.scores[0], abs=1e-5)
    assert first.text == f"{'Yes' if scored.scores[0] > 0 else 'No'}." == f"{first.decision}."
    assert [event.done for event in events] == [False] * (len(events) - 1) + [True]
    assert (last.gates, last.branch, last.generation) == (scored.gates, Branch.FUSED, engine.generation)
    assert last.finish_reason in ("stop", "length")
    (whole,) = engine.explain_batch([ExplainRequest(user_id="mixed", item_id="i7", max_tokens=10)])
    assert not isinstance(whole, EngineError)
    assert whole.text == "".join(event.text for event in events)


def test_an_explanation_can_be_dropped_halfway(engine: Engine) -> None:
    stream = engine.explain(ExplainRequest(user_id="u0", item_id="i7", max_tokens=50))
    next(stream)
    stream.close()
    assert next(stream, None) is None
    assert answer(engine, "u0").scores == answer(engine, "u0").scores


def test_explaining_an_unknown_item_is_refused_before_any_work(engine: Engine) -> None:
    with pytest.raises(RequestRefusedError, match="'nothing' is not in the catalogue") as refused:
        engine.explain(ExplainRequest(user_id="u0", item_id="nothing"))
    assert refused.value.error.status == 404


def test_explanations_of_several_users_are_each_their_own(engine: Engine) -> None:
    requests = [
        ExplainRequest(user_id=user, item_id="i7", max_tokens=6) for user in ("u0", "mixed", "uniform", "stranger")
    ]
    together = engine.explain_batch([*requests, ExplainRequest(user_id="u0", item_id="nothing")])
    refused = together.pop()
    assert isinstance(refused, EngineError)
    assert refused.status == 404
    for request, event in zip(requests, together, strict=True):
        (single,) = engine.explain_batch([request])
        assert not isinstance(event, EngineError)
        assert not isinstance(single, EngineError)
        assert (event.text, event.branch, event.gates) == (single.text, single.branch, single.gates)


def test_golden_prompts_hold_for_another_fusion_where_one_slot_decides(bundle_dir: Path, tiny_llama_dir: Path) -> None:
    linear = Engine.load(bundle_dir, tiny_llama_dir, FLOAT32, fusion="PeftLinear")
    exact = Engine.load(bundle_dir, tiny_llama_dir, FLOAT32)
    assert answer(linear, "u0").scores == pytest.approx(answer(exact, "u0").scores, abs=1e-5)
    assert answer(linear, "mixed").scores != pytest.approx(answer(exact, "mixed").scores, abs=1e-5)


def test_a_golden_score_that_is_not_reproduced_stops_the_load(
    bundle_dir: Path, tiny_llama_dir: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(bundle_dir, tmp_path / "bundle")
    golden = json.loads((folder / "golden.json").read_text())
    golden["prompts"][1]["scores"][0] += 0.01
    (folder / "golden.json").write_text(json.dumps(golden))
    with pytest.raises(BundleError, match=r"1 of 4 golden prompts .*'mixed'.*differ by 0.01"):
        Engine.load(folder, tiny_llama_dir, FLOAT32)


def test_golden_prompts_are_needed_unless_they_are_being_made(
    bundle_dir: Path, tiny_llama_dir: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(bundle_dir, tmp_path / "bundle")
    stored = GoldenFile.from_json((folder / "golden.json").read_bytes())
    (folder / "golden.json").unlink()
    with pytest.raises(BundleError, match=r"has no golden\.json"):
        Engine.load(folder, tiny_llama_dir, FLOAT32)
    engine = Engine.load(folder, tiny_llama_dir, FLOAT32, golden=False)
    made = engine.make_golden([ScoreRequest(user_id=p.user_id, item_ids=p.item_ids) for p in stored.prompts])
    assert made == stored


def test_other_precisions_are_held_to_the_order_of_clearly_different_items(
    bundle_dir: Path, tiny_llama_dir: Path
) -> None:
    half = Engine.load(bundle_dir, tiny_llama_dir, FLOAT32.model_copy(update={"precision": "BFloat16"}))
    assert half.precision == "BFloat16"
    assert answer(half, "mixed").scores != answer(Engine.load(bundle_dir, tiny_llama_dir, FLOAT32), "mixed").scores
    with pytest.raises(ValueError, match="computes in BFloat16"):
        half.make_golden([])
    assert reordered_pairs((3.0, 1.0, 0.9), (2.0, 1.0, 1.1)) == 0
    assert reordered_pairs((3.0, 1.0, 0.9), (0.5, 1.0, 0.2)) == 1


def test_a_swap_changes_the_generation_and_the_scores(bundle_dir: Path, tiny_llama_dir: Path, tmp_path: Path) -> None:
    engine = Engine.load(bundle_dir, tiny_llama_dir, FLOAT32)
    other = make_bundle(tmp_path / "other", tiny_llama_dir, seed=1, shape=BundleShape(groups=2))
    before = answer(engine, "u0")
    started = engine.explain(ExplainRequest(user_id="u0", item_id="i7", max_tokens=6))
    next(started)
    engine.swap(other)
    after = answer(engine, "u0")
    assert after.generation == engine.generation != before.generation
    assert len(after.gates) == 3
    assert after.scores == answer(Engine.load(other, tiny_llama_dir, FLOAT32), "u0").scores
    assert list(started)[-1].generation == before.generation, "a request ends with the generation it began with"


def test_a_bundle_that_fails_its_golden_prompts_leaves_the_old_one_in_place(
    bundle_dir: Path, tiny_llama_dir: Path, tmp_path: Path
) -> None:
    engine = Engine.load(bundle_dir, tiny_llama_dir, FLOAT32)
    before = answer(engine, "mixed")
    bad = make_bundle(tmp_path / "bad", tiny_llama_dir, seed=3)
    golden = json.loads((bad / "golden.json").read_text())
    golden["prompts"][0]["gates"] = [0.0, 1.0, 0.0, 0.0]
    (bad / "golden.json").write_text(json.dumps(golden))
    with pytest.raises(BundleError, match="gates differ"):
        engine.swap(bad)
    assert answer(engine, "mixed") == before
