# SPDX-License-Identifier: Apache-2.0
"""The same equalities on a real pretrained model, thirty layers deep, where noise has room to grow."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from support.bundles import write_adapter
from support.engine_reference import joint_scores
from thinkrec_crds.prompt import ItemText
from thinkrec_inference.engine.base_model import BaseModel, load_base
from thinkrec_inference.engine.decoding import Writer, WritingOptions
from thinkrec_inference.engine.lora import read_adapter
from thinkrec_inference.engine.scorer import ScoreJob, Scorer

TITLES = ("Toy Story (1995)", "Heat (1995)", "Amélie (2001)", "Twelve Monkeys (1995)", "Alien (1979)", "Fargo (1996)")
ITEMS = tuple(ItemText(index, title, ("drama", "comedy")[: index % 3]) for index, title in enumerate(TITLES))
GATES = torch.tensor([0.45, 0.35, 0.2])
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def real(smollm2_dir: Path) -> BaseModel:
    return load_base(smollm2_dir)


@pytest.fixture(scope="module")
def experts(real: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> Sequence[Path]:
    root, generator = tmp_path_factory.mktemp("experts"), torch.Generator().manual_seed(1)
    return [write_adapter(root / str(k), real, generator, rank=8, alpha=16, strength=0.02) for k in range(3)]


def test_fused_scores_equal_merged_weights_in_any_company(real: BaseModel, experts: Sequence[Path]) -> None:
    scorer = Scorer(real, ITEMS, adapters=experts, pool_bytes=1 << 26)
    job = ScoreJob(((0, True), (1, False), (2, True)), (3, 4, 5), gates=GATES)
    other = ScoreJob(((5, False),), (0,), gates=torch.tensor([0.0, 0, 1]))
    together = scorer.score([other, job])
    model = copy.deepcopy(real.model)
    for folder, weight in zip(experts, GATES.tolist(), strict=True):
        adapter = read_adapter(folder)
        for name, (down, up) in adapter.pairs.items():
            model.get_submodule(name).weight.data += weight * adapter.scaling * (up @ down)
    expected = joint_scores(scorer, job, model)
    base = joint_scores(scorer, ScoreJob(job.history, job.candidates[:1], gates=torch.zeros(3)))
    assert (expected[0] - base[0]).abs() > 0.05, "the adapters must matter for this test to mean anything"
    assert (together[1] - expected).abs().max() < TOLERANCE
    assert (scorer.score([job])[0] - expected).abs().max() < TOLERANCE, "alone, from a pooled prefix"
    assert scorer.pool.hits == 1


def test_users_explained_together_read_as_explained_alone(real: BaseModel, experts: Sequence[Path]) -> None:
    writer = Writer(Scorer(real, ITEMS, adapters=experts))
    jobs = [ScoreJob(((k, True),), (3 + k,), gates=torch.eye(3)[k]) for k in range(2)]
    options = WritingOptions(max_tokens=9)
    together = writer.write(jobs, options)
    assert [w.text for w in together] == [writer.write([job], options)[0].text for job in jobs]
    assert all(8 <= w.reason_tokens <= 9 for w in together)
    assert all(w.text.startswith(f"{w.decision}.") and "\n" not in w.text for w in together)
    free = writer.write(jobs, WritingOptions(max_tokens=9, min_tokens=0))
    assert all(len(w.text) <= len("Yes.") for w in free), "this untrained model would give no reason at all"
