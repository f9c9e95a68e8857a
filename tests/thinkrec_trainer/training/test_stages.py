# SPDX-License-Identifier: Apache-2.0
"""The three training stages on data whose truth is known: they learn it, resume exactly, publish what others open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from support.llm_stages import (
    GROUPS,
    USERS,
    MemoryCheckpoints,
    ProgressList,
    basic_artifacts,
    seal,
    stage_context,
    write_traces,
)
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_crds.stages import (
    AdapterParameters,
    BaseModelRef,
    ExpertParameters,
    LoopParameters,
    LoraParameters,
    ProjectorParameters,
)
from thinkrec_inference.engine.base_model import load_base
from thinkrec_inference.engine.collaborative import Collaborative
from thinkrec_inference.engine.projector import Projector
from thinkrec_inference.engine.scorer import ScoreJob, Scorer
from thinkrec_trainer import adapter, expert, projector
from thinkrec_trainer.context import LocalArtifact
from thinkrec_trainer.errors import BadInput, Interrupted
from thinkrec_trainer.timelines import read_catalogue, read_timelines

LOOP = LoopParameters(
    steps=10, learning_rate=0.02, warmup_steps=2, history_block=4, evaluate_every_steps=5, validation_users=6
)
LORA = LoraParameters(rank=4, alpha=8)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LocalArtifact]:
    """Everything before the adapter."""
    return basic_artifacts(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture(scope="module")
def base(tiny_llama_dir: Path) -> BaseModelRef:
    """The tiny model as a manifest would name it."""
    return BaseModelRef(storage_uri=str(tiny_llama_dir))


def adapter_parameters(base: BaseModelRef, **loop: Any) -> AdapterParameters:
    """Short text-only training."""
    return AdapterParameters(base_model=base, lora=LORA, loop=LOOP.model_copy(update=loop), history_length=4)


def picked(artifacts: dict[str, LocalArtifact], *names: str) -> dict[str, LocalArtifact]:
    """Some of the artifacts."""
    return {name: artifacts[name] for name in names}


@pytest.fixture(scope="module")
def trained(
    artifacts: dict[str, LocalArtifact], base: BaseModelRef, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, LocalArtifact]:
    """All artifacts with an adapter and a projector trained on them."""
    root = tmp_path_factory.mktemp("trained")
    made = dict(artifacts)
    context = stage_context(root / "adapter", adapter_parameters(base), picked(made, "dataset", "keywords", "traces"))
    adapter.run(context)
    made["adapter"] = seal(context.output, StageKind.ADAPTER)
    parameters = ProjectorParameters(base_model=base, hidden_multiplier=4, loop=LOOP, history_length=4)
    names = ("dataset", "keywords", "collaborative", "adapter")
    context = stage_context(root / "projector", parameters, picked(made, *names))
    projector.run(context)
    made["projector"] = seal(context.output, StageKind.PROJECTOR)
    return made


def test_the_adapter_learns_that_comedies_are_liked(
    artifacts: dict[str, LocalArtifact], base: BaseModelRef, tmp_path: Path
) -> None:
    """A random model has AUC about one half; the rule is in the candidate's words."""
    context = stage_context(
        tmp_path / "out",
        adapter_parameters(base, steps=60, evaluate_every_steps=20),
        picked(artifacts, "dataset", "keywords", "traces"),
    )
    result = adapter.run(context)
    assert result.metrics["validation_uauc"] > 0.95
    assert result.counts["traces"] == 4
    assert result.counts["steps"] == 60
    assert isinstance(context.progress, ProgressList)
    assert context.progress.updates[-1][:2] == (60, 60)


def test_an_interrupted_run_ends_with_the_same_bytes(
    artifacts: dict[str, LocalArtifact], base: BaseModelRef, tmp_path: Path
) -> None:
    """Ten steps straight, against five, a signal, and five more in a fresh process state; dropout on, traces in."""
    inputs = picked(artifacts, "dataset", "keywords", "traces")
    straight = stage_context(tmp_path / "straight", adapter_parameters(base), inputs)
    adapter.run(straight)
    checkpoints = MemoryCheckpoints(tmp_path / "checkpoints", interrupt_at=5)
    with pytest.raises(Interrupted):
        adapter.run(stage_context(tmp_path / "first", adapter_parameters(base), inputs, checkpoint=checkpoints))
    assert checkpoints.saves == 1
    torch.manual_seed(99)  # the resumed run must not depend on anyone else's random numbers
    checkpoints.interrupt_at = None
    second = stage_context(tmp_path / "second", adapter_parameters(base), inputs, checkpoint=checkpoints)
    result = adapter.run(second)
    assert result.counts["steps"] == 10
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (second.output / name).read_bytes() == (straight.output / name).read_bytes()


def test_without_traces_every_step_is_a_plain_one(
    artifacts: dict[str, LocalArtifact], base: BaseModelRef, tmp_path: Path
) -> None:
    """The traces stage may keep nothing; the counts say so."""
    (tmp_path / "traces").mkdir()
    write_traces(tmp_path / "traces", count=0)
    inputs = picked(artifacts, "dataset", "keywords") | {"traces": seal(tmp_path / "traces", StageKind.TRACES)}
    result = adapter.run(stage_context(tmp_path / "out", adapter_parameters(base, steps=3), inputs))
    assert result.counts["traces"] == 0
    assert result.counts["samples"] == 3 * 4


def test_steps_and_epochs_together_are_refused(
    artifacts: dict[str, LocalArtifact], base: BaseModelRef, tmp_path: Path
) -> None:
    """Both would contradict each other."""
    context = stage_context(
        tmp_path / "out", adapter_parameters(base, epochs=1), picked(artifacts, "dataset", "keywords", "traces")
    )
    with pytest.raises(BadInput, match="steps or epochs, not both: got steps=10 and epochs=1"):
        adapter.run(context)


def test_an_unknown_target_module_is_bad_input(
    artifacts: dict[str, LocalArtifact], base: BaseModelRef, tmp_path: Path
) -> None:
    """The message names the manifest's field."""
    lora = LoraParameters(target_modules=("query_key_value",))
    parameters = adapter_parameters(base).model_copy(update={"lora": lora})
    context = stage_context(tmp_path / "out", parameters, picked(artifacts, "dataset", "keywords", "traces"))
    with pytest.raises(BadInput, match=r"spec\.adapter\.lora\.targetModules \['query_key_value'\]"):
        adapter.run(context)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT's own use of a renamed attribute
def test_peft_opens_the_adapter_and_gets_the_engines_logits(
    trained: dict[str, LocalArtifact], tiny_llama_dir: Path
) -> None:
    """The published folder is PEFT's own layout, and the engine's score is the logit difference PEFT computes."""
    plain = AutoModelForCausalLM.from_pretrained(tiny_llama_dir, dtype=torch.float32)
    model = PeftModel.from_pretrained(plain, trained["adapter"].path).eval()
    catalogue = read_catalogue(trained["dataset"], trained["keywords"])
    base_model = load_base(tiny_llama_dir)
    scorer = Scorer(base_model, catalogue, adapters=[trained["adapter"].path])
    history = ((0, True), (3, False))
    ids = scorer.encoder.prefix(history, user_index=None, soft=False) + scorer.encoder.suffix(7, soft=False)
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids.ids])).logits[0, -1]
    [scores] = scorer.score([ScoreJob(history=history, candidates=(7,))])
    assert float(scores[0]) == pytest.approx(float(logits[base_model.yes_id] - logits[base_model.no_id]), abs=1e-4)


def test_the_adapter_names_the_base_model_as_the_manifest_does(trained: dict[str, LocalArtifact], base: Any) -> None:
    """And no path of the training machine beside it."""
    text = (trained["adapter"].path / "adapter_config.json").read_text()
    assert f'"base_model_name_or_path": "{base.storage_uri}"' in text


def test_the_projector_trains_alone(trained: dict[str, LocalArtifact], base: BaseModelRef, tmp_path: Path) -> None:
    """CF vectors tell comedies from horror, so soft tokens make the model good whatever the adapter knew."""
    parameters = ProjectorParameters(
        base_model=base,
        hidden_multiplier=4,
        loop=LOOP.model_copy(update={"steps": 40, "evaluate_every_steps": 20}),
        history_length=4,
    )
    context = stage_context(
        tmp_path / "out", parameters, picked(trained, "dataset", "keywords", "collaborative", "adapter")
    )
    result = projector.run(context)
    assert result.metrics["validation_uauc"] > 0.95
    made = Projector.load(context.output / "projector.safetensors")
    assert made.fc1.weight.shape == (4 * 4, 4 + 2)
    assert made.fc2.weight.shape == (64, 4 * 4)


def expert_context(trained: dict[str, LocalArtifact], parameters: ExpertParameters, output: Path) -> Any:
    """A context with every input of an expert."""
    names = ("dataset", "keywords", "collaborative", "adapter", "projector", "gate")
    return stage_context(output, parameters, picked(trained, *names))


def test_an_expert_starts_from_the_general_adapter_on_its_own_users(
    trained: dict[str, LocalArtifact], base: BaseModelRef, tmp_path: Path
) -> None:
    """The first point of its curve is the general adapter's, and half of the users are its own."""
    parameters = ExpertParameters(base_model=base, group=1, name="expert-1", loop=LOOP, history_length=4)
    result = expert.run(expert_context(trained, parameters, tmp_path / "out"))
    assert result.counts["users"] == USERS // GROUPS
    assert result.counts["steps"] > 0
    assert result.metrics["validation_uauc"] >= 0.5


def test_a_group_without_a_block_publishes_the_general_adapter(
    trained: dict[str, LocalArtifact], base: BaseModelRef, tmp_path: Path
) -> None:
    """A gate whose group holds nobody with enough rows: same weights, zero steps, no crash."""
    import polars as pl

    (tmp_path / "dataset").mkdir()
    for path in trained["dataset"].path.iterdir():
        table = pl.read_parquet(path)
        if path.name == "train.parquet":
            table = table.filter((pl.col("user_index") % GROUPS == 0) | (pl.col("position") < 1))
        table.write_parquet(tmp_path / "dataset" / path.name)
    inputs = {**trained, "dataset": seal(tmp_path / "dataset", StageKind.DATASET)}
    parameters = ExpertParameters(base_model=base, group=1, name="expert-1", loop=LOOP, history_length=4)
    context = expert_context(inputs, parameters, tmp_path / "out")
    result = expert.run(context)
    assert result.counts["steps"] == 0
    name = "adapter_model.safetensors"
    assert (context.output / name).read_bytes() == (trained["adapter"].path / name).read_bytes()


def test_a_small_group_gets_one_epoch_at_most(
    trained: dict[str, LocalArtifact], base: BaseModelRef, tmp_path: Path
) -> None:
    """Six users with three blocks each, one block a step: 1000 steps asked, eighteen done."""
    loop = LOOP.model_copy(update={"steps": 1000, "evaluate_every_steps": 1000, "learning_rate": 1e-4})
    parameters = ExpertParameters(base_model=base, group=0, name="expert-0", loop=loop, history_length=4)
    result = expert.run(expert_context(trained, parameters, tmp_path / "out"))
    assert result.counts["steps"] == result.counts["train_blocks"] == 18


def test_a_group_that_the_gate_lacks_is_bad_input(
    trained: dict[str, LocalArtifact], base: BaseModelRef, tmp_path: Path
) -> None:
    """The message says which groups there are."""
    parameters = ExpertParameters(base_model=base, group=5, name="expert-5", loop=LOOP, history_length=4)
    with pytest.raises(BadInput, match=r"group 5 is not in gate .* groups \[0, 1\]"):
        expert.run(expert_context(trained, parameters, tmp_path / "out"))


def test_trainer_and_engine_give_the_same_score_with_soft_tokens(
    trained: dict[str, LocalArtifact], tiny_llama_dir: Path
) -> None:
    """One history block through transformers and PEFT, the same rows through the serving engine: 1e-4 apart at most."""
    from thinkrec_inference.engine.projector import soft_table
    from thinkrec_trainer.batches import collate
    from thinkrec_trainer.blocks import user_blocks
    from thinkrec_trainer.forward import BlockModel
    from thinkrec_trainer.lora import load_lora
    from thinkrec_trainer.samples import SCORE_ONLY, Packer

    catalogue = read_catalogue(trained["dataset"], trained["keywords"])
    collaborative = Collaborative.load(trained["collaborative"].file("collaborative.safetensors"))
    made = Projector.load(trained["projector"].file("projector.safetensors"))
    scorer = Scorer(
        load_base(tiny_llama_dir),
        catalogue,
        projector=made,
        collaborative=collaborative,
        adapters=[trained["adapter"].path],
    )
    own = load_base(tiny_llama_dir)
    model = load_lora(own.model, trained["adapter"].path, trainable=False).eval()
    block_model = BlockModel(
        model.get_base_model(),
        yes=own.yes_id,
        no=own.no_id,
        score="YesMinusNo",
        soft=soft_table(made, collaborative).__getitem__,
    )
    packer = Packer(scorer.encoder, own, soft=True, warm=frozenset(range(USERS)))
    rows = read_timelines(trained["dataset"]).rows(5)
    [block] = user_blocks(rows, range(6, 12), user_index=5, size=6, history_length=4)
    with torch.inference_mode():
        ours = block_model.scores(collate([packer.pack(block, SCORE_ONLY)]))
    history = tuple((row.item_index, row.liked) for row in block.history)
    candidates = tuple(target.row.item_index for target in block.targets)
    job = ScoreJob(history=history, candidates=candidates, user_index=5, gates=torch.ones(1), soft=True)
    [theirs] = scorer.score([job])
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
