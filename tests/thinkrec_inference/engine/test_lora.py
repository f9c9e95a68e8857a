# SPDX-License-Identifier: Apache-2.0
"""Stacked, gated adapters against merged weights and against PEFT itself."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from support.bundles import write_adapter
from support.engine_reference import joint_scores
from thinkrec_crds.prompt import ItemText
from thinkrec_inference.engine.base_model import BaseModel
from thinkrec_inference.engine.errors import BundleError
from thinkrec_inference.engine.lora import LoraStack, read_adapter
from thinkrec_inference.engine.scorer import ScoreJob, Scorer

Catalogue = tuple[ItemText, ...]

# PEFT still reads an attribute that transformers has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


def merged(base: BaseModel, folders: Sequence[Path], weights: Sequence[float]) -> torch.nn.Module:
    """A copy of the base model with W + sum_k w_k s_k B_k A_k in place of W, computed in fp64."""
    model = copy.deepcopy(base.model)
    for folder, weight in zip(folders, weights, strict=True):
        adapter = read_adapter(folder)
        for name, (down, up) in adapter.pairs.items():
            linear = model.get_submodule(name)
            delta = weight * adapter.scaling * (up.double() @ down.double())
            linear.weight.data = (linear.weight.double() + delta).float()
    return model


@pytest.mark.parametrize("gates", [[0.5, 0.2, 0.3, 0.0], [0.1, 0.1, 0.1, 0.7], [0, 1, 0, 0], [0, 0, 0, 1]])
def test_exact_fusion_equals_merged_weights(
    base: BaseModel, catalogue: Catalogue, adapter_dirs: Sequence[Path], job: ScoreJob, gates: list[float]
) -> None:
    scorer = Scorer(base, catalogue, adapters=adapter_dirs)
    weighted = ScoreJob(job.history, job.candidates, gates=torch.tensor(gates))
    found = scorer.score([weighted])[0]
    expected = joint_scores(scorer, weighted, merged(base, adapter_dirs, gates))
    assert (found - expected).abs().max() < 1e-5
    assert (found - joint_scores(scorer, weighted)).abs().max() > 1e-2, (
        "the adapters must matter for this test to mean anything"
    )


@pytest.mark.parametrize("slot", range(4))
def test_a_one_hot_gate_is_that_adapter_alone(
    base: BaseModel, catalogue: Catalogue, adapter_dirs: Sequence[Path], job: ScoreJob, slot: int
) -> None:
    gates = torch.nn.functional.one_hot(torch.tensor(slot), 4).float()
    stacked = Scorer(base, catalogue, adapters=adapter_dirs).score([ScoreJob(job.history, job.candidates, gates=gates)])
    alone = Scorer(base, catalogue, adapters=[adapter_dirs[slot]]).score([ScoreJob(job.history, job.candidates)])
    assert (stacked[0] - alone[0]).abs().max() < 1e-6


def test_zero_gates_are_the_base_model_bit_for_bit(
    base: BaseModel, catalogue: Catalogue, adapter_dirs: Sequence[Path], job: ScoreJob
) -> None:
    stacked = Scorer(base, catalogue, adapters=adapter_dirs)
    zero = ScoreJob(job.history, job.candidates, gates=torch.zeros(4))
    other = ScoreJob(job.history, job.candidates, gates=torch.ones(4))
    plain = Scorer(base, catalogue).score([ScoreJob(job.history, job.candidates)])[0]
    assert torch.equal(stacked.score([zero])[0], plain)
    assert torch.allclose(stacked.score([other, zero])[1], plain, atol=1e-6), "beside a user with adapters"


@pytest.mark.parametrize("gates", [[0.5, 0.2, 0.3, 0.0], [0.37, 0.14, 0.14, 0.35], [0, 0, 1, 0]])
def test_peft_linear_equals_peft_with_dropout_off(
    base: BaseModel, catalogue: Catalogue, adapter_dirs: Sequence[Path], job: ScoreJob, gates: list[float]
) -> None:
    scorer = Scorer(base, catalogue, adapters=adapter_dirs, fusion="PeftLinear")
    weighted = ScoreJob(job.history, job.candidates, gates=torch.tensor(gates))
    model = PeftModel.from_pretrained(copy.deepcopy(base.model), adapter_dirs[0], adapter_name="0")
    for name, folder in enumerate(adapter_dirs[1:], start=1):
        model.load_adapter(folder, adapter_name=str(name))
    used = [(str(slot), weight) for slot, weight in enumerate(gates) if weight]
    names, weights = zip(*used, strict=True)
    model.add_weighted_adapter(list(names), list(weights), adapter_name="fused", combination_type="linear")
    model.set_adapter("fused")
    model.eval()
    found, expected = scorer.score([weighted])[0], joint_scores(scorer, weighted, model)
    assert (found - expected).abs().max() < 1e-5
    exact = Scorer(base, catalogue, adapters=adapter_dirs).score([weighted])[0]
    assert (len(used) == 1) == ((found - exact).abs().max() < 1e-5), (
        "with several adapters linear is not the weighted sum"
    )


def test_peft_opens_an_adapter_and_gets_the_same_scores(
    base: BaseModel, catalogue: Catalogue, adapter_dirs: Sequence[Path], job: ScoreJob
) -> None:
    scorer = Scorer(base, catalogue, adapters=[adapter_dirs[1]])
    plain = ScoreJob(job.history, job.candidates)
    model = PeftModel.from_pretrained(copy.deepcopy(base.model), adapter_dirs[1]).eval()
    assert (scorer.score([plain])[0] - joint_scores(scorer, plain, model)).abs().max() < 1e-5


def test_adapters_of_different_rank_and_modules_stack(
    base: BaseModel, catalogue: Catalogue, job: ScoreJob, tmp_path: Path
) -> None:
    generator = torch.Generator().manual_seed(2)
    folders = [
        write_adapter(tmp_path / "small", base, generator, rank=2, alpha=8, strength=0.5),
        write_adapter(
            tmp_path / "large", base, generator, rank=6, alpha=3, strength=0.5, targets=("q_proj", "up_proj")
        ),
    ]
    scorer = Scorer(base, catalogue, adapters=folders)
    weighted = ScoreJob(job.history, job.candidates, gates=torch.tensor([0.6, 0.4]))
    expected = joint_scores(scorer, weighted, merged(base, folders, [0.6, 0.4]))
    assert (scorer.score([weighted])[0] - expected).abs().max() < 1e-5
    with pytest.raises(BundleError, match="PeftLinear needs the same rank and modules"):
        LoraStack.load(base.model, folders, fusion="PeftLinear")


def test_a_forward_pass_leaves_the_base_model_as_it_was(
    base: BaseModel, catalogue: Catalogue, adapter_dirs: Sequence[Path], job: ScoreJob
) -> None:
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    implementation = base.model.config._attn_implementation
    Scorer(base, catalogue, adapters=adapter_dirs).score([job])
    assert all(torch.equal(before[name], tensor) for name, tensor in base.model.state_dict().items())
    assert base.model.config._attn_implementation == implementation
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in base.model.modules())


def edited(source: Path, target: Path, **settings: object) -> Path:
    shutil.copytree(source, target)
    path = target / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return target


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_rslora": True}, "use_rslora"),
        ({"use_dora": True}, "use_dora"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
    ],
)
def test_settings_that_change_the_formula_are_refused(
    adapter_dirs: Sequence[Path], tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        read_adapter(edited(adapter_dirs[0], tmp_path / "adapter", **settings))


def test_a_missing_file_is_named(adapter_dirs: Sequence[Path], tmp_path: Path) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        folder = edited(adapter_dirs[0], tmp_path / name)
        (folder / name).unlink()
        with pytest.raises(BundleError, match=f"has no {name}"):
            read_adapter(folder)


def test_half_an_adapter_and_foreign_tensors_are_refused(adapter_dirs: Sequence[Path], tmp_path: Path) -> None:
    weights = load_file(adapter_dirs[0] / "adapter_model.safetensors")
    lonely = edited(adapter_dirs[0], tmp_path / "lonely")
    save_file(
        {k: v for k, v in weights.items() if "layers.0.self_attn.q_proj.lora_B" not in k},
        lonely / "adapter_model.safetensors",
    )
    with pytest.raises(BundleError, match=r"layers\.0\.self_attn\.q_proj.*need both"):
        read_adapter(lonely)
    foreign = edited(adapter_dirs[0], tmp_path / "foreign")
    save_file(
        {**weights, "base_model.model.x.lora_magnitude_vector": torch.ones(2)}, foreign / "adapter_model.safetensors"
    )
    with pytest.raises(BundleError, match="lora_magnitude_vector"):
        read_adapter(foreign)


def test_an_adapter_of_another_model_is_refused(base: BaseModel, adapter_dirs: Sequence[Path], tmp_path: Path) -> None:
    other = edited(adapter_dirs[0], tmp_path / "other")
    weights = load_file(other / "adapter_model.safetensors")
    save_file(
        {k: torch.zeros(4, 32) if "lora_A" in k else v for k, v in weights.items()}, other / "adapter_model.safetensors"
    )
    with pytest.raises(BundleError, match="trained on another base model"):
        LoraStack.load(base.model, [other])
    save_file({k.replace("self_attn", "mixer"): v for k, v in weights.items()}, other / "adapter_model.safetensors")
    with pytest.raises(BundleError, match="not in the base model"):
        LoraStack.load(base.model, [other])
