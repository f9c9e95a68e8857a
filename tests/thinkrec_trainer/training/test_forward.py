# SPDX-License-Identifier: Apache-2.0
"""A block trains exactly what its samples would train one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from thinkrec_crds.stages import LoraParameters
from thinkrec_inference.engine.tokens import Encoded, Slot
from thinkrec_trainer.batches import collate, tree_mask
from thinkrec_trainer.blocks import Answer, PackedBlock, pack
from thinkrec_trainer.forward import BlockModel
from thinkrec_trainer.lora import add_lora

YES, NO = 9230, 2838
ITEM = 4
"""First item row of the soft table."""
ROWS = 13


@pytest.fixture(scope="module")
def peft_model(tiny_llama_dir: Path) -> Any:
    """The tiny Llama with LoRA whose B is not zero, without dropout."""
    base = AutoModelForCausalLM.from_pretrained(tiny_llama_dir, dtype=torch.float32, attn_implementation="sdpa")
    model = add_lora(base, LoraParameters(rank=4, alpha=8, dropout=0.0), seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


def example(seed: int, targets: int, *, soft: bool) -> tuple[Encoded, list[Encoded], list[Answer]]:
    """A random prefix, suffixes of several lengths and answers of several lengths."""
    generator = torch.Generator().manual_seed(seed)

    def ids(low: int, high: int) -> tuple[int, ...]:
        length = int(torch.randint(low, high, (1,), generator=generator))
        return tuple(torch.randint(10, 4000, (length,), generator=generator).tolist())

    prefix = Encoded(ids(20, 30), (Slot(3, 2), Slot(9, ITEM + 5)) if soft else ())
    suffixes = [Encoded(ids(4, 9), (Slot(1, ITEM + number),) if soft else ()) for number in range(targets)]
    answers = [
        Answer(number % 2 == 0, (YES if number % 2 == 0 else NO, *ids(0, 5)), 0.1 + 0.2 * number, 0.9)
        for number in range(targets)
    ]
    return prefix, suffixes, answers


def gradients(model: Any, blocks: list[list[PackedBlock]], *, score: Any = "YesMinusNo", soft: bool = False) -> Any:
    """Gradient of the summed loss over some batches, flat."""
    table = torch.randn(ROWS, 64, generator=torch.Generator().manual_seed(7))
    block_model = BlockModel(
        model.get_base_model(), yes=YES, no=NO, score=score, soft=table.__getitem__ if soft else None
    )
    model.zero_grad(set_to_none=True)
    for batch in blocks:
        torch.autograd.backward(block_model.losses(collate(batch)).total)
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.requires_grad])


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("score", ["Yes", "YesMinusNo"])
def test_block_gradient_equals_the_samples_one_by_one(peft_model: Any, soft: bool, score: str) -> None:
    """Relative difference at fp32 noise, with reasons and soft slots inside."""
    prefix, suffixes, answers = example(0, 5, soft=soft)
    singles = [[pack(prefix, [s], [a])] for s, a in zip(suffixes, answers, strict=True)]
    one_by_one = gradients(peft_model, singles, score=score, soft=soft)
    together = gradients(peft_model, [[pack(prefix, suffixes, answers)]], score=score, soft=soft)
    assert float((together - one_by_one).norm() / one_by_one.norm()) <= 1e-5


def test_padding_blocks_of_different_users_changes_nothing(peft_model: Any) -> None:
    """Two blocks of different length in one batch give the sum of their gradients."""
    blocks = [pack(*example(user, 2 + user, soft=True)) for user in (0, 2)]
    apart = gradients(peft_model, [[block] for block in blocks], soft=True)
    padded = gradients(peft_model, [blocks], soft=True)
    assert float((padded - apart).norm() / apart.norm()) <= 1e-5


def test_scores_equal_plain_causal_prompts(peft_model: Any) -> None:
    """The reference is the unpacked prompt through the whole model and its full logits."""
    prefix, suffixes, answers = example(3, 4, soft=False)
    model = BlockModel(peft_model.get_base_model(), yes=YES, no=NO, score="YesMinusNo")
    with torch.inference_mode():
        scores = model.scores(collate([pack(prefix, suffixes, answers)]))
        for suffix, score in zip(suffixes, scores, strict=True):
            logits = peft_model(input_ids=torch.tensor([prefix.ids + suffix.ids])).logits[0, -1]
            assert float(score) == pytest.approx(float(logits[YES] - logits[NO]), abs=1e-5)


def test_slots_keep_their_rows_and_move_with_their_suffix() -> None:
    """Places count over the packed sequence."""
    prefix, suffixes, answers = example(4, 2, soft=True)
    batch = collate([pack(prefix, suffixes, answers)])
    assert batch.slot_rows.tolist() == [2, ITEM + 5, ITEM + 0, ITEM + 1]
    second = len(prefix.ids) + len(suffixes[0].ids) + len(answers[0].next_ids) - 1
    assert batch.slot_at.tolist() == [3, 9, len(prefix.ids) + 1, second + 1]


def test_tree_mask_keeps_suffixes_apart() -> None:
    """Two prefix tokens, suffixes of two and one, one padding token: written out by hand."""
    mask = tree_mask(torch.tensor([[0, 0, 1, 1, 2, -1]]))[0].int().tolist()
    assert mask == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]


def test_an_empty_batch_is_refused() -> None:
    """A step without blocks is a defect of the caller."""
    with pytest.raises(ValueError, match="at least one block"):
        collate([])
