# SPDX-License-Identifier: Apache-2.0
"""The bundle: complete, opened by the serving engine, and true to what it was made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from support.llm_stages import (
    DIMENSION,
    GROUPS,
    ITEMS,
    USERS,
    basic_artifacts,
    interactions,
    seal,
    stage_context,
    title,
)
from thinkrec_crds.bundle import BundleIndex, GoldenFile
from thinkrec_crds.engine_api import Branch, ScoreRequest, ScoreResponse
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_crds.stages import BaseModelRef, BundleParameters, ComputeOptions, LoraParameters
from thinkrec_inference.engine.base_model import load_base
from thinkrec_inference.engine.collaborative import Collaborative
from thinkrec_inference.engine.engine import Engine
from thinkrec_inference.engine.projector import Projector, input_table
from thinkrec_trainer import bundle
from thinkrec_trainer.context import LocalArtifact, StageContext
from thinkrec_trainer.errors import BadInput
from thinkrec_trainer.lora import add_lora, save_adapter, trained_parameters
from thinkrec_trainer.projector import embedding_table
from thinkrec_trainer.timelines import Timelines

CPU = ComputeOptions(device="Cpu", precision="Float32", threads=1)
HISTORY = 4
EXPERT_NAMES = ("night", "day")


def make_adapter(folder: Path, base: Path, kind: StageKind, seed: int) -> LocalArtifact:
    """Publish an adapter with random weights in both halves."""
    model = add_lora(load_base(base).model, LoraParameters(rank=4, alpha=8), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    weights = {
        name: 0.2 * torch.randn(value.shape, generator=generator) for name, value in trained_parameters(model).items()
    }
    save_adapter(folder, model, weights, base_model="file:models/tiny")
    return seal(folder, kind)


@pytest.fixture(scope="module")
def inputs(tiny_llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, LocalArtifact]:
    """Everything a bundle is made of; the last user has no CF vector."""
    root = tmp_path_factory.mktemp("inputs")
    made = basic_artifacts(root)
    assignment = pl.read_parquet(root / "gate" / "assignment.parquet")
    assignment.filter(pl.col("user_index") < USERS - 1).write_parquet(root / "gate" / "assignment.parquet")
    collaborative = Collaborative.load(root / "collaborative" / "collaborative.safetensors")
    projector = Projector.create(
        input_table(collaborative),
        hidden_size=8,
        embeddings=embedding_table(load_base(tiny_llama_dir)),
        generator=torch.Generator().manual_seed(0),
    )
    (root / "projector").mkdir()
    projector.save(root / "projector" / "projector.safetensors")
    made["projector"] = seal(root / "projector", StageKind.PROJECTOR)
    made["adapter"] = make_adapter(root / "adapter", tiny_llama_dir, StageKind.ADAPTER, seed=1)
    for group in range(GROUPS):
        name = f"expert-{group}"
        made[name] = make_adapter(root / name, tiny_llama_dir, StageKind.EXPERT, seed=2 + group)
    del made["traces"]
    return made


def bundle_context(inputs: dict[str, LocalArtifact], base: Path, output: Path) -> StageContext:
    """The context of the bundle stage."""
    reference = BaseModelRef(storage_uri=str(base), revision="1")
    parameters = BundleParameters(
        base_model=reference, history_length=HISTORY, golden_prompts=6, expert_names=EXPERT_NAMES
    )
    return stage_context(output, parameters, inputs)


@pytest.fixture(scope="module")
def made(inputs: dict[str, LocalArtifact], tiny_llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle."""
    context = bundle_context(inputs, tiny_llama_dir, tmp_path_factory.mktemp("made") / "bundle")
    result = bundle.run(context)
    assert result.counts == {"experts": GROUPS, "users": USERS, "items": ITEMS, "golden_prompts": 6}
    return context.output


@pytest.fixture(scope="module")
def engine(made: Path, tiny_llama_dir: Path) -> Engine:
    """The serving engine on that bundle; loading reproduces the golden prompts."""
    return Engine.load(made, tiny_llama_dir, CPU)


def test_the_index_says_what_the_bundle_is(made: Path, inputs: dict[str, LocalArtifact], tiny_llama_dir: Path) -> None:
    """Shapes, digests of the base model and of every input, the method's own threshold."""
    index = BundleIndex.from_json((made / "index.json").read_bytes())
    base = load_base(tiny_llama_dir)
    assert (index.base_model_digest, index.tokenizer_digest) == (base.digest, base.tokenizer_digest)
    assert (index.hidden_size, index.collaborative_dimension) == (64, DIMENSION)
    assert index.lora == LoraParameters(rank=4, alpha=8, target_modules=("q_proj", "v_proj"))
    assert index.hard_route_threshold == pytest.approx(0.5 + 0.6 / GROUPS)
    assert [expert.path for expert in index.experts] == ["adapters/expert-0", "adapters/expert-1"]
    assert tuple(expert.name for expert in index.experts) == EXPERT_NAMES
    assert index.inputs == {name: artifact.digest for name, artifact in inputs.items()}


def test_experts_without_names_are_named_by_their_roles_and_too_few_names_are_bad_input() -> None:
    """Names come from the spec alone; a list that does not fit is not padded."""
    unnamed = BundleParameters(base_model=BaseModelRef(storage_uri="file:base"))
    assert bundle.expert_names(unnamed, ("expert-0", "expert-1")) == ("expert-0", "expert-1")
    with pytest.raises(BadInput, match=r"names 1 experts, \['night'\]"):
        bundle.expert_names(unnamed.model_copy(update={"expert_names": ("night",)}), ("expert-0", "expert-1"))


def test_histories_hold_everything_known_and_seen_items_are_all(made: Path) -> None:
    """The newest four of train, validation and test together; every item ever met."""
    row = pl.read_parquet(made / "users.parquet").row(3, named=True)
    assert (row["user_id"], row["group"]) == ("u3", 1)
    assert row["history_items"] == interactions(3)[-HISTORY:]
    assert row["history_likes"] == [item % 2 == 0 for item in interactions(3)[-HISTORY:]]
    assert row["seen_items"] == sorted(interactions(3))


def test_items_carry_title_keywords_and_the_users_own_ids(made: Path) -> None:
    """What the prompt says of item 5."""
    row = pl.read_parquet(made / "items.parquet").row(5, named=True)
    assert row == {"item_index": 5, "item_id": "i5", "title": title(5), "keywords": ["horror"]}


def test_golden_prompts_meet_every_branch_that_the_users_take(made: Path, engine: Engine) -> None:
    """Both experts and the user without a CF vector."""
    golden = GoldenFile.from_json((made / "golden.json").read_bytes())
    requests = [ScoreRequest(user_id=prompt.user_id, item_ids=prompt.item_ids) for prompt in golden.prompts]
    plans = [engine.plan(request) for request in requests]
    assert {plan.branch for plan in plans} == {Branch.ONE_HOT, Branch.COLD_START}
    assert {int(plan.slots.argmax()) for plan in plans} == {0, 1, GROUPS}
    assert engine.plan(ScoreRequest(user_id=f"u{USERS - 1}", item_ids=("i0",))).branch is Branch.COLD_START


def test_the_engine_scores_as_peft_with_the_users_expert(engine: Engine, made: Path, tiny_llama_dir: Path) -> None:
    """A one-hot user: the expert's own adapter through PEFT, soft tokens put in by hand, gives the served score."""
    request = ScoreRequest(user_id="u3", item_ids=("i7",))
    [answer] = engine.score([request])
    assert isinstance(answer, ScoreResponse)
    assert answer.gates == (0.0, 1.0, 0.0)
    job = engine.plan(request).job
    encoder = engine.scorer.encoder
    prompt = encoder.prefix(job.history, user_index=3, soft=True) + encoder.suffix(7, soft=True)
    table = engine.bundle.projector(input_table(engine.bundle.collaborative))
    plain = AutoModelForCausalLM.from_pretrained(tiny_llama_dir, dtype=torch.float32)
    with pytest.warns(FutureWarning, match="is_gradient_checkpointing"):  # PEFT's own use of a renamed attribute
        model = PeftModel.from_pretrained(plain, made / "adapters" / "expert-1").eval()
    with torch.inference_mode():
        embeds = model.get_input_embeddings()(torch.tensor([prompt.ids]))
        for slot in prompt.slots:
            embeds[0, slot.position] = table[slot.row]
        logits = model(inputs_embeds=embeds).logits[0, -1]
    base = engine.scorer.base
    assert answer.scores[0] == pytest.approx(float(logits[base.yes_id] - logits[base.no_id]), abs=1e-4)


def test_the_same_inputs_give_the_same_bytes(
    made: Path, inputs: dict[str, LocalArtifact], tiny_llama_dir: Path, tmp_path: Path
) -> None:
    """Bundles are compared and cached by digest."""
    context = bundle_context(inputs, tiny_llama_dir, tmp_path / "again")
    bundle.run(context)
    for path in sorted(p for p in made.rglob("*") if p.is_file()):
        assert (context.output / path.relative_to(made)).read_bytes() == path.read_bytes(), path.name


def test_a_missing_expert_is_bad_input(inputs: dict[str, LocalArtifact], tiny_llama_dir: Path, tmp_path: Path) -> None:
    """The gate's groups have no gap, so the experts must not have one."""
    some = {name: artifact for name, artifact in inputs.items() if name != "expert-0"}
    with pytest.raises(BadInput, match="without a gap"):
        bundle.run(bundle_context(some, tiny_llama_dir, tmp_path / "out"))


def test_an_adapter_of_another_base_model_is_bad_input(
    inputs: dict[str, LocalArtifact], tiny_llama_dir: Path, tmp_path: Path
) -> None:
    """A wrong width is found here, not by the first pod."""
    folder = tmp_path / "expert-0"
    folder.mkdir()
    for path in inputs["expert-0"].path.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    weights = load_file(folder / "adapter_model.safetensors")
    save_file(
        {name: value.repeat_interleave(2, -1) for name, value in weights.items()}, folder / "adapter_model.safetensors"
    )
    changed = {**inputs, "expert-0": seal(folder, StageKind.EXPERT)}
    with pytest.raises(BadInput, match="do not fit a weight"):
        bundle.run(bundle_context(changed, tiny_llama_dir, tmp_path / "out"))


def test_a_user_without_any_row_has_an_empty_history(inputs: dict[str, LocalArtifact], tmp_path: Path) -> None:
    """Lists may be empty but never null: the engine zips them."""
    empty = Timelines(
        np.zeros(USERS + 1, np.int64), np.zeros(0, np.int64), np.zeros(0, bool), np.zeros(USERS, np.int64)
    )
    table = bundle.users_table(inputs["dataset"], inputs["gate"], empty, length=HISTORY)
    assert table.height == USERS
    assert table["seen_items"].to_list() == [[]] * USERS
