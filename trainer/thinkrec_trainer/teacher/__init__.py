# SPDX-License-Identifier: Apache-2.0
"""Teachers: whoever writes keywords and reasoning. `Self` is the base model, `OpenAI` any compatible endpoint.

    interface        messages in, completions and token counts out
    self_teacher     the base model itself;  openai_teacher: an OpenAI-compatible endpoint

Used by the keywords and traces stages. Importing this package imports neither torch nor the client.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from thinkrec_crds.stages import TeacherParameters
from thinkrec_trainer.teacher.interface import ChatMessage, Completion, Teacher, Usage

if TYPE_CHECKING:
    import torch

__all__ = ["ChatMessage", "Completion", "Teacher", "Usage", "make_teacher"]


def make_teacher(
    parameters: TeacherParameters,
    base_model_dir: Path | None,
    *,
    seed: int,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    beams: int = 1,
) -> Teacher:
    """Return the teacher that the parameters ask for.

    `base_model_dir`, `device`, `dtype` (None: float32) and `beams` matter to `Self` only. Errors: BadInput when a field
    that the type needs is missing.
    """
    if parameters.type == "OpenAI":
        from thinkrec_trainer.teacher.openai_teacher import OpenAITeacher

        return OpenAITeacher.from_parameters(parameters, seed=seed)
    from thinkrec_trainer.teacher.self_teacher import SelfTeacher

    return SelfTeacher.from_folder(
        base_model_dir, max_tokens=parameters.max_tokens, seed=seed, device=device, dtype=dtype, beams=beams
    )
