# SPDX-License-Identifier: Apache-2.0
"""Explanations against transformers' own generate, and the rules by which they end."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GenerationConfig

from support.engine_reference import joint_embeddings
from thinkrec_crds.prompt import ItemText
from thinkrec_inference.engine.base_model import BaseModel
from thinkrec_inference.engine.decoding import Writer, WritingOptions, forbid_pairs, penalise
from thinkrec_inference.engine.scorer import ScoreJob, Scorer

GREEDY = WritingOptions(max_tokens=20, min_tokens=0)


@pytest.fixture(scope="module")
def scorer(base: BaseModel, catalogue: Sequence[ItemText], adapter_dirs: Sequence[Path]) -> Scorer:
    return Scorer(base, catalogue, adapters=adapter_dirs)


def jobs(count: int = 3) -> list[ScoreJob]:
    gates = torch.tensor([[0.5, 0.2, 0.3, 0], [0, 0, 0, 1], [0, 0, 0, 0]])
    return [ScoreJob(((i, True), (i + 1, False))[: i % 3], (9 + i,), gates=gates[i % 3]) for i in range(count)]


def generate(scorer: Scorer, job: ScoreJob, answer: Sequence[int], new_tokens: int) -> list[int]:
    """transformers' greedy generation from the joint prompt, its first tokens held to the decision."""
    model = scorer.base.model
    embedded = joint_embeddings(scorer, job, job.candidates[0], model)
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=new_tokens,
        repetition_penalty=1.2,
        no_repeat_ngram_size=2,
        eos_token_id=sorted(Writer(scorer).stop_ids),
        pad_token_id=0,
    )
    everything = list(range(model.config.vocab_size))
    return model.generate(  # type: ignore[no-any-return]
        inputs_embeds=embedded,
        attention_mask=torch.ones(embedded.shape[:2], dtype=torch.long),
        generation_config=settings,
        prefix_allowed_tokens_fn=lambda _, ids: [answer[len(ids)]] if len(ids) < len(answer) else everything,
    )[0].tolist()


@pytest.mark.filterwarnings("ignore:Passing .* with `inputs_embeds`:UserWarning")
def test_greedy_text_is_that_of_transformers_from_the_joint_prompt(scorer: Scorer) -> None:
    plain = ScoreJob(((0, True), (3, False)), (6,), gates=torch.zeros(4))
    (writing,) = Writer(scorer).write([plain], GREEDY)
    answer = scorer.encoder.text(f" {writing.decision}.")
    expected = generate(scorer, plain, answer, len(answer) + GREEDY.max_tokens)
    assert writing.ids[: len(answer)] == list(answer)
    assert writing.ids == expected[: len(writing.ids)]
    assert writing.finish_reason == "stop" or len(writing.ids) == len(expected)
    assert writing.reason_tokens > 5


def test_explanations_written_together_equal_those_written_alone(scorer: Scorer) -> None:
    writer = Writer(scorer)
    together = writer.write(jobs(), GREEDY)
    alone = [writer.write([job], GREEDY)[0] for job in jobs()]
    assert [w.ids for w in together] == [w.ids for w in alone]
    assert [w.text for w in together] == [w.text for w in alone]
    assert len({w.text for w in together}) == 3, "three users with other gates write other things"


def test_a_row_may_join_while_others_are_being_written(scorer: Scorer) -> None:
    writer = Writer(scorer)
    first, late = jobs()[:2]
    rows = writer.start([first], [GREEDY])
    for _ in range(4):
        writer.step(rows)
    rows += writer.start([late], [GREEDY])
    while any(row.finish_reason is None for row in rows):
        writer.step(rows)
    assert [row.ids for row in rows] == [writer.write([job], GREEDY)[0].ids for job in (first, late)]


def test_the_decision_is_the_sign_of_the_score(scorer: Scorer) -> None:
    many = [
        ScoreJob(((3, True),), (item,), gates=torch.nn.functional.one_hot(torch.tensor(slot), 4).float())
        for item in (1, 9)
        for slot in range(4)
    ]
    writings = Writer(scorer).start(many, [GREEDY] * len(many))
    assert {writing.decision for writing in writings} == {"Yes", "No"}, "both must occur for the test to mean anything"
    for writing, scores in zip(writings, scorer.score(many), strict=True):
        assert writing.score == pytest.approx(float(scores[0]), abs=1e-5)
        assert writing.decision == ("Yes" if writing.score > 0 else "No")
        assert writing.text == f"{writing.decision}."


def test_the_limit_counts_the_tokens_after_the_decision(scorer: Scorer) -> None:
    (writing,) = Writer(scorer).write(jobs(1), WritingOptions(max_tokens=3))
    assert writing.finish_reason == "length"
    assert writing.reason_tokens == 3
    assert len(writing.ids) == len(scorer.encoder.text(f" {writing.decision}.")) + 3


def test_a_line_end_stops_and_is_not_shown(scorer: Scorer) -> None:
    writer = Writer(scorer)
    (writing,) = writer.start(jobs(1), [GREEDY])
    writer._advance(writing, scorer.encoder.text("\n")[0])
    assert (writing.finish_reason, writing.text) == ("stop", f"{writing.decision}.")


def test_a_special_token_stops_and_is_not_shown(scorer: Scorer) -> None:
    writer = Writer(scorer)
    (writing,) = writer.start(jobs(1), [GREEDY])
    writer._advance(writing, scorer.base.tokenizer.eos_token_id)
    assert (writing.finish_reason, writing.text) == ("stop", f"{writing.decision}.")


def test_half_a_character_waits_for_its_other_half(scorer: Scorer) -> None:
    writer = Writer(scorer)
    (writing,) = writer.start(jobs(1), [GREEDY])
    shown = []
    for token in scorer.encoder.text(" 映"):
        writer._advance(writing, token)
        shown.append(writing.text)
    assert len(shown) > 1, "the tokenizer must split this character for the test to mean anything"
    assert not any("\ufffd" in text for text in shown)
    assert shown[-1].endswith("映")


def test_sampling_is_repeatable_and_depends_on_its_seed(scorer: Scorer) -> None:
    writer = Writer(scorer)
    texts = [
        writer.write(jobs(1), WritingOptions(max_tokens=8, temperature=1.0, seed=seed))[0].text for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_an_explanation_has_one_candidate(scorer: Scorer) -> None:
    with pytest.raises(ValueError, match="one candidate, this job has 2"):
        Writer(scorer).start([ScoreJob((), (1, 2), gates=torch.zeros(4))], [GREEDY])


written = st.lists(st.integers(0, 9), min_size=1, max_size=12)


@given(written, st.integers(0, 2**31))
def test_the_penalty_moves_written_tokens_down_and_no_others(ids: list[int], seed: int) -> None:
    logits = torch.randn(10, generator=torch.Generator().manual_seed(seed))
    found = penalise(logits, ids, 1.2)
    for token in range(10):
        expected = logits[token] / 1.2 if logits[token] > 0 else logits[token] * 1.2
        assert found[token] == (expected if token in ids else logits[token])


@given(written)
def test_no_pair_of_tokens_comes_twice(ids: list[int]) -> None:
    pairs = set(itertools.pairwise(ids))
    found = forbid_pairs(torch.zeros(10), ids)
    assert {token for token in range(10) if found[token] == -torch.inf} == {b for a, b in pairs if a == ids[-1]}
