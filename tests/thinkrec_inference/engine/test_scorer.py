# SPDX-License-Identifier: Apache-2.0
"""Packing, sharing and pooling never change a score."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from support.engine_reference import joint_scores
from thinkrec_crds.prompt import ItemText
from thinkrec_inference.engine.base_model import BaseModel
from thinkrec_inference.engine.collaborative import Collaborative
from thinkrec_inference.engine.errors import BaseModelError
from thinkrec_inference.engine.kv_pool import KvPool
from thinkrec_inference.engine.projector import Projector
from thinkrec_inference.engine.scorer import ScoreJob, Scorer

Catalogue = tuple[ItemText, ...]

# PEFT still reads an attribute that transformers has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def scorer(
    base: BaseModel,
    catalogue: Catalogue,
    adapter_dirs: Sequence[Path],
    projector: Projector,
    collaborative: Collaborative,
) -> Scorer:
    return Scorer(base, catalogue, projector=projector, collaborative=collaborative, adapters=adapter_dirs)


@pytest.fixture(scope="module")
def jobs() -> list[ScoreJob]:
    """Users with different histories, candidates, gates and soft tokens."""
    gates = torch.tensor([[0.5, 0.2, 0.3, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0.2, 0.5, 0.3, 0]])
    histories = [((0, True), (3, False), (5, True)), ((2, False),), (), ((7, True),) * 2, ((9, True), (1, True))]
    return [
        ScoreJob(
            history=history,
            candidates=tuple(range(index, 12, index + 2)),
            user_index=index if index % 2 else None,
            gates=gate,
            soft=index != 3,
        )
        for index, (history, gate) in enumerate(zip(histories, gates, strict=True))
    ]


@pytest.mark.parametrize("soft", [False, True])
def test_the_base_model_scores_as_transformers_on_joint_prompts(scorer: Scorer, job: ScoreJob, soft: bool) -> None:
    plain = ScoreJob(job.history, job.candidates, user_index=3, gates=torch.zeros(4), soft=soft)
    assert (scorer.score([plain])[0] - joint_scores(scorer, plain)).abs().max() < 1e-5


def test_with_soft_tokens_and_an_adapter_peft_gets_the_same_scores(
    scorer: Scorer, adapter_dirs: Sequence[Path], job: ScoreJob
) -> None:
    one = ScoreJob(job.history, job.candidates, user_index=3, gates=torch.tensor([0.0, 0, 1, 0]), soft=True)
    model = PeftModel.from_pretrained(copy.deepcopy(scorer.base.model), adapter_dirs[2]).eval()
    found = scorer.score([one])[0]
    assert (found - joint_scores(scorer, one, model)).abs().max() < 1e-5
    other_user = ScoreJob(job.history, job.candidates, user_index=4, gates=one.gates, soft=True)
    assert (found - scorer.score([other_user])[0]).abs().max() > 1e-4, "the user's soft token must matter"


def test_users_in_one_call_score_as_each_alone(scorer: Scorer, jobs: list[ScoreJob]) -> None:
    together = scorer.score(jobs)
    for job, scores in zip(jobs, together, strict=True):
        assert scores.shape == (len(job.candidates),)
        assert (scores - scorer.score([job])[0]).abs().max() < 1e-5


def test_a_candidate_alone_scores_as_among_many(scorer: Scorer, job: ScoreJob) -> None:
    together = scorer.score([job])[0]
    alone = [
        scorer.score([ScoreJob(job.history, (item,), user_index=job.user_index, gates=job.gates)])[0]
        for item in job.candidates
    ]
    assert (together - torch.cat(alone)).abs().max() < 1e-5


def test_the_order_of_candidates_is_kept(scorer: Scorer, job: ScoreJob) -> None:
    backwards = ScoreJob(job.history, job.candidates[::-1], user_index=job.user_index, gates=job.gates)
    assert torch.allclose(scorer.score([backwards])[0].flip(0), scorer.score([job])[0], atol=1e-6)


def test_two_calls_are_bit_equal(scorer: Scorer, jobs: list[ScoreJob]) -> None:
    assert all(torch.equal(a, b) for a, b in zip(scorer.score(jobs), scorer.score(jobs), strict=True))


@pytest.mark.parametrize("budget", [1, 60, 200])
def test_the_token_budget_only_cuts_the_work(
    base: BaseModel,
    catalogue: Catalogue,
    adapter_dirs: Sequence[Path],
    projector: Projector,
    collaborative: Collaborative,
    scorer: Scorer,
    jobs: list[ScoreJob],
    budget: int,
) -> None:
    cut = Scorer(
        base,
        catalogue,
        projector=projector,
        collaborative=collaborative,
        adapters=adapter_dirs,
        token_budget=budget,
    )
    for a, b in zip(cut.score(jobs), scorer.score(jobs), strict=True):
        assert (a - b).abs().max() < 1e-5


def test_a_pooled_prefix_gives_the_same_bits(
    base: BaseModel, catalogue: Catalogue, adapter_dirs: Sequence[Path], job: ScoreJob
) -> None:
    pooled = Scorer(base, catalogue, adapters=adapter_dirs, pool_bytes=1 << 24)
    first, again = pooled.score([job])[0], pooled.score([job])[0]
    assert (pooled.pool.misses, pooled.pool.hits) == (1, 1)
    assert torch.equal(first, again)
    assert torch.equal(first, Scorer(base, catalogue, adapters=adapter_dirs).score([job])[0])


def test_a_pooled_prefix_is_never_taken_for_other_gates_or_another_user(scorer: Scorer, jobs: list[ScoreJob]) -> None:
    job = jobs[1]
    variants = [
        job,
        ScoreJob(job.history, job.candidates, user_index=1, gates=jobs[0].gates, soft=True),
        ScoreJob(job.history, job.candidates, user_index=2, gates=job.gates, soft=True),
        ScoreJob(job.history, job.candidates, user_index=None, gates=job.gates, soft=True),
        ScoreJob(job.history, job.candidates, user_index=1, gates=job.gates, soft=False),
    ]
    alone = [scorer.score([variant])[0] for variant in variants]
    scorer.pool = KvPool(1 << 24)
    try:
        for variant, expected in zip(variants, alone, strict=True):
            assert torch.equal(scorer.score([variant])[0], expected)
        assert scorer.pool.hits == 0
    finally:
        scorer.pool = KvPool(0)


def test_threads_get_the_scores_they_would_get_alone(scorer: Scorer, jobs: list[ScoreJob]) -> None:
    expected = [scorer.score([job])[0] for job in jobs]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda job: scorer.score([job])[0], jobs * 3))
    assert all(torch.equal(a, b) for a, b in zip(found, expected * 3, strict=True))


def test_the_score_may_be_the_yes_logit_alone(base: BaseModel, catalogue: Catalogue, job: ScoreJob) -> None:
    plain = ScoreJob(job.history, job.candidates[:1])
    yes = Scorer(base, catalogue, score="Yes")
    prompt = yes.encoder.prefix(plain.history, user_index=None, soft=False) + yes.encoder.suffix(6, soft=False)
    logits = base.model(torch.tensor([prompt.ids])).logits[0, -1]
    assert float(yes.score([plain])[0]) == pytest.approx(float(logits[base.yes_id]), abs=1e-5)


def test_no_jobs_and_no_candidates_give_empty_answers(scorer: Scorer, job: ScoreJob) -> None:
    assert scorer.score([]) == []
    nothing = ScoreJob(job.history, (), gates=job.gates)
    assert [scores.shape for scores in scorer.score([nothing])] == [(0,)]
    assert [scores.shape for scores in scorer.score([nothing, job])] == [(0,), (4,)]


def test_gates_must_say_what_to_do_with_several_adapters(scorer: Scorer, job: ScoreJob) -> None:
    with pytest.raises(ValueError, match=r"4 adapters; say in ScoreJob\.gates"):
        scorer.score([ScoreJob(job.history, job.candidates)])
    with pytest.raises(ValueError, match=r"shape \(3,\), expected \(4,\)"):
        scorer.score([ScoreJob(job.history, job.candidates, gates=torch.ones(3))])


def test_soft_tokens_need_their_tables(
    base: BaseModel, catalogue: Catalogue, projector: Projector, job: ScoreJob
) -> None:
    with pytest.raises(ValueError, match="come together"):
        Scorer(base, catalogue, projector=projector)
    with pytest.raises(ValueError, match="no projector and collaborative vectors"):
        Scorer(base, catalogue).score([ScoreJob(job.history, job.candidates, user_index=3, soft=True)])


def test_a_prompt_beyond_the_models_positions_is_refused(base: BaseModel) -> None:
    endless = (ItemText(0, "very " * 2000), ItemText(1, "short"))
    scorer = Scorer(base, endless, token_budget=8192)
    with pytest.raises(ValueError, match=r"a prompt of [46]\d\d\d tokens is longer than the base model's 4096"):
        scorer.score([ScoreJob(((0, True), (0, True), (0, False)), (1,))])


def test_a_model_in_training_mode_is_refused(base: BaseModel, catalogue: Catalogue) -> None:
    base.model.train()
    try:
        with pytest.raises(BaseModelError, match="training mode"):
            Scorer(base, catalogue)
    finally:
        base.model.eval()
