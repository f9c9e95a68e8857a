# SPDX-License-Identifier: Apache-2.0
"""The base model as teacher: batches equal single prompts, answers are deterministic, long prompts are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from thinkrec_crds.stages import TeacherParameters
from thinkrec_trainer.errors import BadInput
from thinkrec_trainer.teacher import ChatMessage, make_teacher
from thinkrec_trainer.teacher.self_teacher import SelfTeacher


def prompts(*texts: str) -> list[list[ChatMessage]]:
    return [[ChatMessage("user", text)] for text in texts]


def test_a_batch_of_many_answers_as_single_prompts_do(smollm2_dir: Path) -> None:
    """Padding and order change nothing: three prompts of very different length, two a batch."""
    teacher = SelfTeacher.from_folder(smollm2_dir, max_tokens=3)
    teacher.batch_size = 2
    asked = prompts(*[f"Tell me about {topic}" for topic in ("cats " * 9, "the sea", "tea")])
    together = teacher.complete(asked)
    assert together == [teacher.complete([prompt])[0] for prompt in asked]
    assert len({answer.text for answer in together}) > 1


def test_tokens_are_counted(tiny_llama_dir: Path) -> None:
    teacher = SelfTeacher.from_folder(tiny_llama_dir, max_tokens=4)
    answers = teacher.complete(prompts("one two three"))
    assert answers[0].completion_tokens == 4
    assert answers[0].finish_reason == "length"
    assert teacher.usage.prompt_tokens == answers[0].prompt_tokens > 3
    assert teacher.usage.completion_tokens == 4


def test_prompt_beyond_the_context_is_refused_alone(tiny_llama_dir: Path) -> None:
    teacher = SelfTeacher.from_folder(tiny_llama_dir, max_tokens=4)
    answers = teacher.complete(prompts("short", "long " * 5000))
    assert answers[0].error is None
    assert answers[1].finish_reason == "refused"
    assert "the model takes 4092" in (answers[1].error or "")


def test_real_model_knows_a_capital(smollm2_dir: Path) -> None:
    teacher = make_teacher(TeacherParameters(max_tokens=12), smollm2_dir, seed=0)
    answers = teacher.complete(prompts("What is the capital of France? Answer with one word."))
    assert "Paris" in answers[0].text


def test_no_base_model() -> None:
    with pytest.raises(BadInput, match=r"set spec\.baseModel\.storageUri"):
        make_teacher(TeacherParameters(), None, seed=0)


def test_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be loaded"):
        make_teacher(TeacherParameters(), tmp_path, seed=0)


def test_a_begun_answer_is_continued(smollm2_dir: Path) -> None:
    """A prompt that ends with the assistant's words gets what follows them, not a new turn."""
    teacher = SelfTeacher.from_folder(smollm2_dir, max_tokens=4)
    question = ChatMessage("user", "What is the capital of France?")
    [answer] = teacher.complete([[question, ChatMessage("assistant", "The capital of France is the city of")]])
    assert answer.text.startswith("Paris")
