# SPDX-License-Identifier: Apache-2.0
"""The frozen base model: loading it from a local folder, with digests of what was loaded and its Yes and No tokens."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from thinkrec_inference.engine.digests import model_digest, tokenizer_digest
from thinkrec_inference.engine.errors import BaseModelError
from thinkrec_inference.engine.gguf import ensure_safetensors

__all__ = ["BaseModel", "BaseModelError", "answer_token", "ensure_safetensors", "load_base"]


@dataclass(frozen=True, slots=True, eq=False)
class BaseModel:
    """A causal language model in eval mode without gradients, and what the engine must know of it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    digest: str
    """`sha256:...` of the weights and the configuration that were loaded."""
    tokenizer_digest: str
    """`sha256:...` of tokenizer.json."""
    hidden_size: int
    """D."""
    yes_id: int
    no_id: int
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    """Held during a forward pass: hooks on the shared module carry what differs from pass to pass."""


def load_base(path: Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> BaseModel:
    """Load a folder of safetensors (or of one GGUF file, converted once and cached).

    Raises BaseModelError where the folder lacks weights or tokenizer, or " Yes" / " No" are not one token each.
    """
    folder = ensure_safetensors(path)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    yes_id, no_id = (answer_token(tokenizer, word) for word in (" Yes", " No"))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True, use_safetensors=True)
    model.to(torch.device(device))  # type: ignore[arg-type]  # transformers wraps `to` with an untyped decorator
    model.requires_grad_(False)  # `from_pretrained` already puts it in eval mode
    return BaseModel(
        model=model,
        tokenizer=tokenizer,
        digest=model_digest(folder),
        tokenizer_digest=tokenizer_digest(folder),
        hidden_size=int(model.config.hidden_size),
        yes_id=yes_id,
        no_id=no_id,
    )


def answer_token(tokenizer: PreTrainedTokenizerBase, word: str) -> int:
    """Return the id of an answer with its leading space; the score is the logit of this one token."""
    ids = tokenizer(word, add_special_tokens=False).input_ids
    if len(ids) != 1:
        raise BaseModelError(
            f"the tokenizer splits {word!r} into {len(ids)} tokens {ids}, but a score is the logit of one token; "
            "use a base model whose tokenizer knows both ' Yes' and ' No' as one token"
        )
    return int(ids[0])
