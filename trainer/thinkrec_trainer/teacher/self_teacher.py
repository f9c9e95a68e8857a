# SPDX-License-Identifier: Apache-2.0
"""The base model as its own teacher: padded batches of `transformers` generation, greedy or with beams.

Deterministic: nothing is sampled, so the seed is not needed; batches are formed by length, which keeps padding small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from thinkrec_trainer.errors import BadInput
from thinkrec_trainer.teacher.interface import ChatMessage, Completion, Usage

BATCH_SIZE = 8
"""Prompts per forward pass: on two CPU cores larger batches gain nothing."""


@dataclass(slots=True)
class SelfTeacher:
    """Answers with the causal language model in one folder."""

    model: Any
    tokenizer: Any
    max_tokens: int
    beams: int = 1
    batch_size: int = BATCH_SIZE
    _usage: Usage = field(default_factory=Usage)

    @classmethod
    def from_folder(
        cls,
        folder: Path | None,
        *,
        max_tokens: int,
        seed: int = 0,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
        beams: int = 1,
    ) -> SelfTeacher:
        """Load safetensors weights and tokenizer; `seed` is taken for symmetry, nothing is sampled."""
        if folder is None:
            raise BadInput("teacher type Self needs the base model: set spec.baseModel.storageUri")
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
            model: Any = AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype or torch.float32, use_safetensors=True
            )
        except (OSError, ValueError) as error:
            raise BadInput(
                f"base model at {folder} cannot be loaded: {error}; it needs config.json, tokenizer and safetensors"
            ) from error
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        return cls(model.to(device).eval(), tokenizer, max_tokens, beams)

    @property
    def usage(self) -> Usage:
        """Requests and tokens so far."""
        return self._usage

    @property
    def identity(self) -> str:
        """How answers are made; the weights' digest is the caller's to add."""
        return f"self:{self.max_tokens}:{self.beams}"

    @property
    def continues(self) -> bool:
        """True: generation starts wherever the prompt ends."""
        return True

    def complete(self, prompts: Sequence[Sequence[ChatMessage]]) -> list[Completion]:
        """Return one completion per prompt, in the order of the prompts; a prompt beyond the context is refused."""
        texts = [self._render(prompt) for prompt in prompts]
        order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), i))
        answers: dict[int, Completion] = {}
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            answers.update(zip(chosen, self._generate([texts[i] for i in chosen]), strict=True))
        completions = [answers[i] for i in range(len(texts))]
        self._usage = self._usage.plus(completions)
        return completions

    def close(self) -> None:
        """Drop the weights."""
        self.model = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _render(self, prompt: Sequence[ChatMessage]) -> list[int]:
        messages = [{"role": m.role, "content": m.content} for m in prompt]
        if self.tokenizer.chat_template:
            begun = prompt[-1].role == "assistant"
            text = self.tokenizer.apply_chat_template(
                messages, add_generation_prompt=not begun, continue_final_message=begun, tokenize=False
            )
            return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        text = "\n\n".join(m.content for m in prompt) + "\n"
        return list(self.tokenizer(text)["input_ids"])

    def _generate(self, rows: Sequence[list[int]]) -> list[Completion]:
        limit = int(getattr(self.model.config, "max_position_embeddings", 1 << 30)) - self.max_tokens
        fitting = [row for row in rows if len(row) <= limit]
        texts = iter(self._generate_batch(fitting) if fitting else [])
        return [next(texts) if len(row) <= limit else _too_long(len(row), limit) for row in rows]

    @torch.inference_mode()
    def _generate_batch(self, rows: Sequence[list[int]]) -> list[Completion]:
        batch = self.tokenizer.pad({"input_ids": list(rows)}, return_tensors="pt").to(self.model.device)
        out = self.model.generate(
            **batch,
            max_new_tokens=self.max_tokens,
            num_beams=self.beams,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        new = out[:, batch["input_ids"].shape[1] :]  # (batch, ≤ max_tokens), padded on the right
        return [self._completion(len(row), ids.tolist()) for row, ids in zip(rows, new, strict=True)]

    def _completion(self, prompt_tokens: int, ids: list[int]) -> Completion:
        ends = self._end_ids()
        length = next((i for i, token in enumerate(ids) if token in ends), len(ids))
        text = self.tokenizer.decode(ids[:length], skip_special_tokens=True).strip()
        return Completion(text, prompt_tokens, length, "length" if length >= self.max_tokens else "stop")

    def _end_ids(self) -> set[int]:
        configured = self.model.generation_config.eos_token_id
        ids = configured if isinstance(configured, list) else [configured]
        return {i for i in [*ids, self.tokenizer.eos_token_id, self.tokenizer.pad_token_id] if i is not None}


def _too_long(tokens: int, limit: int) -> Completion:
    return Completion("", tokens, 0, "refused", error=f"prompt has {tokens} tokens, the model takes {limit}")
