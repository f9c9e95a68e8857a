# SPDX-License-Identifier: Apache-2.0
"""LoRA adapters in PEFT's own layout: put into a base model, continued, and written so that PEFT opens them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from torch import Tensor, nn

from thinkrec_crds.stages import LoraParameters
from thinkrec_trainer.errors import BadInput

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
_ADAPTER = "default"
"""PEFT's name of the one adapter in a model; it is part of parameter names but not of the file's."""


def add_lora(causal: nn.Module, lora: LoraParameters, *, seed: int) -> PeftModel:
    """Return `causal` with a fresh adapter on its target modules: A random from `seed`, B zero, both fp32.

    Raise BadInput when the base model has none of the target modules.
    """
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.target_modules),
        bias="none",
        task_type="CAUSAL_LM",
    )
    with seeded(seed), _quiet():
        try:
            return get_peft_model(causal, config)
        except ValueError as error:
            raise BadInput(
                f"spec.adapter.lora.targetModules {list(lora.target_modules)} do not fit the base model: {error}"
            ) from error


def load_lora(causal: nn.Module, folder: Path, *, trainable: bool) -> PeftModel:
    """Return `causal` with the adapter of an artifact; gradients only where `trainable`."""
    with _quiet():
        return PeftModel.from_pretrained(causal, str(folder), is_trainable=trainable)


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that take gradients, by name, in the model's order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def save_adapter(folder: Path, model: PeftModel, weights: Mapping[str, Tensor], *, base_model: str) -> None:
    """Write adapter_config.json and adapter_model.safetensors for `weights` (by parameter name).

    `base_model` is what the manifest calls the base model: a path of this machine would mean nothing elsewhere. Equal
    weights give equal bytes: lists are sorted and nothing is dated.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {key: _plain(value) for key, value in model.peft_config[_ADAPTER].to_dict().items()}
    settings |= {"base_model_name_or_path": base_model, "inference_mode": True}
    (folder / CONFIG_NAME).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
    tensors = {
        name.replace(f".{_ADAPTER}.", "."): tensor.detach().float().cpu().contiguous()
        for name, tensor in weights.items()
    }
    save_file(tensors, folder / WEIGHTS_NAME, metadata={"format": "pt"})


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Make torch's own generators start from `seed` inside, and leave them untouched outside.

    PEFT's initialisation and nn.Dropout draw from them and take no generator of their own.
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep PEFT's use of an attribute that transformers has renamed out of the stage's log."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        yield


def _plain(value: object) -> object:
    return sorted(value) if isinstance(value, set | frozenset) else value
