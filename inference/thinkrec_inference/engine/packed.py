# SPDX-License-Identifier: Apache-2.0
"""Forward passes of the base model over packed pieces: no padding, gates per token, only wanted positions read."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig

from thinkrec_inference.engine.attention import IMPLEMENTATION, Group, KeyValues, Layout, Run
from thinkrec_inference.engine.base_model import BaseModel
from thinkrec_inference.engine.errors import BaseModelError
from thinkrec_inference.engine.lora import LoraStack
from thinkrec_inference.engine.tokens import Encoded

_UNSUPPORTED = ("final_logit_softcapping", "attn_logit_softcapping", "logit_scale", "logits_scaling")
"""Configuration entries that change attention or logits in ways the packed forward does not compute."""


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Tokens to run, going on from a past."""

    tokens: Encoded
    gates: torch.Tensor
    """(slots,) fp32 slot weights of all its tokens."""
    past: tuple[KeyValues, ...] = ()

    @property
    def start(self) -> int:
        """Position of its first token."""
        return sum(map(len, self.past))


@dataclass(frozen=True, slots=True, eq=False)
class Output:
    """What a forward pass gives back, in the order of the pieces."""

    hidden: torch.Tensor
    """(pieces, D) fp32: each piece's last position after the final norm; (0, D) if not asked for."""
    kept: tuple[KeyValues, ...]
    """Keys and values of each piece's own tokens; empty if not asked for."""


class PackedModel:
    """The base model behind one lock: a forward pass carries its gates and layout in hooks on the shared module.

    Several threads may call it; passes run one after the other.
    """

    def __init__(self, base: BaseModel, *, stack: LoraStack | None = None, soft: torch.Tensor | None = None) -> None:
        """`soft` is the table of soft tokens (rows, D) that slots point into."""
        _check_supported(base)
        self._base = base
        self._stack = stack
        self._decoder: Any = _decoder(base)
        self._embedding = _weight(base.model.get_input_embeddings())
        self._head = _weight(base.model.get_output_embeddings())  # type: ignore[no-untyped-call]
        self._answers = self._head[[base.yes_id, base.no_id]].float()
        self._device = self._embedding.device
        self._soft = None if soft is None else soft.to(self._embedding)

    @torch.inference_mode()
    def forward(self, pieces: Sequence[Piece], *, read: bool = True, keep: bool = False) -> Output:
        """Run pieces in one packed sequence; `read` the last positions, `keep` keys and values."""
        self._check_length(pieces)
        order = _grouped(pieces)
        sorted_pieces = [pieces[i] for i in order]
        layout = _layout(sorted_pieces, keep=keep)
        hidden = self._run(sorted_pieces, layout, read=read)
        back = torch.empty(len(order), dtype=torch.long)
        back[torch.tensor(order)] = torch.arange(len(order))
        kept = _split(sorted_pieces, layout)
        return Output(
            hidden=hidden[back.to(hidden.device)] if read else hidden,
            kept=tuple(kept[i] for i in back.tolist()) if keep else (),
        )

    @torch.inference_mode()
    def answers(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the fp32 logits of Yes and No, (n, 2), of read-out positions (n, D)."""
        logits: torch.Tensor = hidden @ self._answers.T
        return logits

    @torch.inference_mode()
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return full-vocabulary logits (n, V) fp32; only writing an explanation needs them."""
        return (hidden.to(self._head.dtype) @ self._head.T).float()

    def _check_length(self, pieces: Sequence[Piece]) -> None:
        """Refuse positions that the model was not trained for: it would answer, but not sensibly."""
        longest = max((piece.start + len(piece.tokens) for piece in pieces), default=0)
        limit = self._decoder.config.max_position_embeddings
        if longest > limit:
            raise ValueError(
                f"a prompt of {longest} tokens is longer than the base model's {limit} positions; use a shorter "
                "history, fewer keywords or a base model with more"
            )

    def _run(self, pieces: Sequence[Piece], layout: Layout, *, read: bool) -> torch.Tensor:
        lengths = torch.tensor([len(piece.tokens) for piece in pieces])
        rows = (lengths.cumsum(0) - 1 if read else torch.empty(0, dtype=torch.long)).to(self._device)
        positions = torch.cat([torch.arange(len(p.tokens)) + p.start for p in pieces])[None].to(self._device)
        gates = torch.stack([piece.gates for piece in pieces]).repeat_interleave(lengths, 0).to(self._device)
        with self._base.lock, ExitStack() as passing:
            passing.enter_context(_packed(self._decoder.config))
            passing.enter_context(_reading(self._decoder.norm, rows))
            if self._stack is not None:
                passing.enter_context(self._stack.applied(self._base.model, gates))
            done = self._decoder(
                inputs_embeds=self._embed(pieces)[None], position_ids=positions, use_cache=False, layout=layout
            )
        hidden: torch.Tensor = done.last_hidden_state[0]
        return hidden

    def _embed(self, pieces: Sequence[Piece]) -> torch.Tensor:
        """Return (T, D): token embeddings with soft tokens in their slots."""
        ids = torch.tensor([i for piece in pieces for i in piece.tokens.ids], device=self._device)
        embedded = self._embedding[ids]
        starts = itertools.accumulate((len(piece.tokens) for piece in pieces), initial=0)
        slots = [(s + slot.position, slot.row) for s, p in zip(starts, pieces, strict=False) for slot in p.tokens.slots]
        if slots:
            if self._soft is None:
                raise ValueError(
                    "the prompt has soft slots, but this scorer has no projector and collaborative vectors"
                )
            where, rows = torch.tensor(slots, device=self._device).T
            embedded[where] = self._soft[rows]
        return embedded


@contextmanager
def _packed(config: PreTrainedConfig) -> Iterator[None]:
    """Use packed attention within; whoever trains this model in between keeps their own implementation."""
    before = config._attn_implementation
    config._attn_implementation = IMPLEMENTATION
    try:
        yield
    finally:
        config._attn_implementation = before


@contextmanager
def _reading(norm: nn.Module, rows: torch.Tensor) -> Iterator[None]:
    """Let the final norm see only these positions, in fp32: no score depends on rounding after the last layer."""

    def only_rows(module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (args[0][:, rows].float(),)

    handle = norm.register_forward_pre_hook(only_rows)
    try:
        yield
    finally:
        handle.remove()


def _grouped(pieces: Sequence[Piece]) -> list[int]:
    """Return an order in which pieces of one past are neighbours, shorter ones first (stable)."""
    first: dict[tuple[int, ...], int] = {}
    group = [first.setdefault(tuple(map(id, piece.past)) or (-1,), len(first)) for piece in pieces]
    return sorted(range(len(pieces)), key=lambda i: (group[i], len(pieces[i].tokens)))


def _layout(pieces: Sequence[Piece], *, keep: bool) -> Layout:
    """Return the layout of ordered pieces."""
    groups: list[Group] = []
    start = 0
    for _, members in itertools.groupby(pieces, key=lambda piece: tuple(map(id, piece.past))):
        group = list(members)
        runs: list[Run] = []
        for length, equal in itertools.groupby(group, key=lambda piece: len(piece.tokens)):
            runs.append(Run(start, len(list(equal)), length))
            start = runs[-1].stop
        groups.append(Group(tuple(runs), group[0].past))
    return Layout(tuple(groups), [] if keep else None)


def _split(pieces: Sequence[Piece], layout: Layout) -> list[KeyValues]:
    """Return each piece's own keys and values, copied out of the packed sequence so that it can be freed."""
    if layout.captured is None:
        return []
    found, start = [], 0
    for piece in pieces:
        stop = start + len(piece.tokens)
        layers = [(k[:, start:stop].contiguous(), v[:, start:stop].contiguous()) for k, v in layout.captured]
        keys, values = zip(*layers, strict=True)
        found.append(KeyValues(keys, values))
        start = stop
    return found


def _weight(module: nn.Module) -> torch.Tensor:
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    return weight


def _decoder(base: BaseModel) -> Any:
    """Return the model without its head."""
    return base.model.get_decoder()  # type: ignore[no-untyped-call]


def _check_supported(base: BaseModel) -> None:
    """Refuse models whose attention or logits are more than plain causal attention and a linear head."""
    config = base.model.config
    odd = [name for name in _UNSUPPORTED if getattr(config, name, None) not in (None, 1.0)]
    windows = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    if odd or windows or not hasattr(_decoder(base), "norm"):
        raise BaseModelError(
            f"base model type {config.model_type!r} uses {odd or sorted(windows) or 'no final norm'}, which the packed "
            "forward pass does not compute; use a Llama-like decoder with full attention"
        )
    if base.model.training:
        raise BaseModelError("the base model is in training mode, so dropout would be random; call model.eval() first")
