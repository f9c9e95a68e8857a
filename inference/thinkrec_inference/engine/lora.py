# SPDX-License-Identifier: Apache-2.0
"""All adapters of a bundle stacked into one pair of matrices per linear layer, weighted per token.

Exact fusion (method.md): y = W x + sum_k w_k s_k B_k A_k x. With A = [s_1 A_1; ...; s_K A_K] (R, in) and
B = [B_1 ... B_K] (out, R) this is y = W x + B (g * (A x)), where g repeats each token's slot weight over that slot's
ranks. A user's whole adaptation is K + 1 numbers, so tokens of different users share one matrix product.

PeftLinear reproduces PEFT >= 0.9 `add_weighted_adapter(combination_type="linear")`, dropout off:
(sum_k a_k B_k)(sum_k a_k A_k) with a_k = sqrt(w_k s_k), cross terms included. It exists to reproduce published numbers.

The base model is never changed: hooks add the delta during one forward pass and are gone afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import nn

from thinkrec_inference.engine.errors import BundleError

Fusion = Literal["Exact", "PeftLinear"]
_CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_REFUSED = ("use_rslora", "use_dora", "fan_in_fan_out", "rank_pattern", "alpha_pattern", "modules_to_save", "lora_bias")
"""PEFT settings that change the formula above; an adapter that uses one must not be served as if it did not."""


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """One LoRA in memory."""

    scaling: float
    """alpha / rank."""
    pairs: dict[str, tuple[torch.Tensor, torch.Tensor]]
    """Module name in the base model -> A (r, in), B (out, r)."""


@dataclass(frozen=True, slots=True, eq=False)
class _Stacked:
    """The slots of one linear layer."""

    down: torch.Tensor
    """(R, in), scaling folded in."""
    up: torch.Tensor
    """(R, out), scaling folded in for PeftLinear."""
    slot_of_rank: torch.Tensor
    """(R,) int64."""


def read_adapter(folder: Path) -> Adapter:
    """Read a PEFT LoRA folder (safetensors); raise BundleError for what this engine would compute differently."""
    config = _read_config(folder)
    weights = folder / _WEIGHTS
    if not weights.is_file():
        raise BundleError(f"{folder} has no {_WEIGHTS}; save the adapter with safe_serialization")
    halves: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in load_file(weights).items():
        name, _, half = key.removeprefix(_PREFIX).rpartition(".lora_")
        if half not in ("A.weight", "B.weight"):
            raise BundleError(f"{weights}: tensor {key!r} is not a plain LoRA A or B; only those can be stacked")
        halves.setdefault(name, {})[half[0]] = tensor.float()
    lonely = sorted(name for name, pair in halves.items() if len(pair) != 2)
    if lonely or not halves:
        raise BundleError(f"{weights}: modules {lonely or '(none at all)'} need both lora_A and lora_B")
    return Adapter(
        scaling=config["lora_alpha"] / config["r"],
        pairs={name: (pair["A"], pair["B"]) for name, pair in halves.items()},
    )


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / _CONFIG
    if not path.is_file():
        raise BundleError(f"{folder} has no {_CONFIG}; an adapter is a folder in PEFT's layout")
    config: dict[str, Any] = json.loads(path.read_text())
    if config.get("peft_type") != "LORA":
        raise BundleError(f"{path}: peft_type is {config.get('peft_type')!r}; only LORA is supported")
    used = [name for name in _REFUSED if config.get(name)]
    if used:
        raise BundleError(f"{path}: {used} change the LoRA formula and are not supported; train without them")
    return config


class LoraStack:
    """The stacked adapters of one generation, on the model's device and dtype; never changed after it is made."""

    def __init__(self, model: nn.Module, adapters: Sequence[Adapter], *, fusion: Fusion = "Exact") -> None:
        """Stack `adapters` (slot order); raise BundleError where one does not fit the model or fusion."""
        self.slots = len(adapters)
        self.fusion: Fusion = fusion
        names = sorted({name for adapter in adapters for name in adapter.pairs})
        self._modules = {name: _stack(_linear(model, name), name, adapters, fusion) for name in names}

    @classmethod
    def load(cls, model: nn.Module, folders: Sequence[Path], *, fusion: Fusion = "Exact") -> LoraStack:
        """Stack the adapters of these PEFT folders."""
        return cls(model, [read_adapter(folder) for folder in folders], fusion=fusion)

    @property
    def nbytes(self) -> int:
        """Bytes of all stacked matrices."""
        return sum(m.down.nbytes + m.up.nbytes for m in self._modules.values())

    @contextmanager
    def applied(self, model: nn.Module, gates: torch.Tensor) -> Iterator[None]:
        """Add the adapters to one forward pass over T tokens with these per-token slot weights (T, slots).

        Not safe for two threads on one model at once; `packed.PackedModel` holds the model's lock around it.
        """
        if not bool(gates.any()):
            yield
            return
        expanded: dict[tuple[int, ...], torch.Tensor] = {}
        handles = []
        try:
            for name, stacked in self._modules.items():
                hook = self._hook(stacked, self._weights(stacked, gates, expanded))
                handles.append(model.get_submodule(name).register_forward_hook(hook))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _weights(
        self, stacked: _Stacked, gates: torch.Tensor, expanded: dict[tuple[int, ...], torch.Tensor]
    ) -> torch.Tensor:
        """Return per-token factors: (T, R) for Exact, (T, slots, 1) square roots for PeftLinear; shared by layers."""
        if self.fusion == "PeftLinear":
            return expanded.setdefault((), gates.sqrt()[..., None].to(stacked.down))
        key = tuple(stacked.slot_of_rank.tolist())
        if key not in expanded:
            expanded[key] = gates.to(stacked.down).index_select(1, stacked.slot_of_rank)
        return expanded[key]

    def _hook(self, stacked: _Stacked, weights: torch.Tensor) -> Callable[[nn.Module, Any, torch.Tensor], torch.Tensor]:
        def add_delta(module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
            low = args[0].flatten(0, -2) @ stacked.down.T  # (T, R)
            if self.fusion == "Exact":
                low *= weights
            else:
                ranks = low.view(len(low), self.slots, -1)
                low = ((ranks * weights).sum(1, keepdim=True) * weights).flatten(1)
            return torch.addmm(output.flatten(0, -2), low, stacked.up).view(output.shape)

        return add_delta


def _linear(model: nn.Module, name: str) -> nn.Linear:
    try:
        module = model.get_submodule(name)
    except AttributeError as error:
        raise BundleError(f"adapter module {name!r} is not in the base model; it was trained on another one") from error
    if not isinstance(module, nn.Linear):
        raise BundleError(f"adapter module {name!r} is a {type(module).__name__}; only linear layers can be adapted")
    return module


def _stack(linear: nn.Linear, name: str, adapters: Sequence[Adapter], fusion: Fusion) -> _Stacked:
    """Stack the slots of one layer; a slot without this module contributes no ranks."""
    downs, ups, slots = [], [], []
    for slot, adapter in enumerate(adapters):
        if name not in adapter.pairs:
            continue
        down, up = adapter.pairs[name]
        if (up.shape[0], down.shape[1]) != tuple(linear.weight.shape) or down.shape[0] != up.shape[1]:
            raise BundleError(
                f"adapter slot {slot}, module {name!r}: A {tuple(down.shape)} and B {tuple(up.shape)} do not fit a "
                f"weight of {tuple(linear.weight.shape)}; it was trained on another base model"
            )
        # PEFT takes the root of w * s on both halves, so its cross terms carry the root of both scalings.
        split = adapter.scaling**0.5 if fusion == "PeftLinear" else 1.0
        downs.append(down * (adapter.scaling / split))
        ups.append(up.T * split)
        slots += [slot] * len(down)
    if fusion == "PeftLinear" and (len({len(down) for down in downs}) > 1 or len(downs) < len(adapters)):
        raise BundleError(
            f"module {name!r}: PeftLinear needs the same rank and modules in every adapter; use fusion Exact"
        )
    weight = linear.weight
    return _Stacked(
        down=torch.cat(downs).to(weight).contiguous(),
        up=torch.cat(ups).to(weight).contiguous(),
        slot_of_rank=torch.tensor(slots, device=weight.device),
    )
