# SPDX-License-Identifier: Apache-2.0
"""Scores of jobs on indices: each user's prefix once, all candidates packed, one fp32 number each.

No bundle, no routing, no ids: the trainer's stages make a `Scorer` straight from what they have. `engine.Engine` is
this plus a bundle and the gate.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import torch

from thinkrec_crds.prompt import ItemText, PromptTemplate
from thinkrec_inference.engine.attention import KeyValues
from thinkrec_inference.engine.base_model import BaseModel
from thinkrec_inference.engine.collaborative import Collaborative
from thinkrec_inference.engine.kv_pool import KvPool
from thinkrec_inference.engine.lora import Fusion, LoraStack
from thinkrec_inference.engine.packed import PackedModel, Piece
from thinkrec_inference.engine.projector import Projector, soft_table
from thinkrec_inference.engine.tokens import Encoded, History, PromptEncoder, seam_sample

ScoreKind = Literal["Yes", "YesMinusNo"]


@dataclass(frozen=True, slots=True, eq=False)
class ScoreJob:
    """Score candidates for one history; items and users by index."""

    history: History
    """(item index, liked), oldest first."""
    candidates: tuple[int, ...]
    user_index: int | None = None
    """Row of the user's soft token; None leaves the user slot out."""
    gates: torch.Tensor | None = None
    """(slots,) weights of the adapters; all zeros is the base model alone. None: the only adapter, or none at all."""
    soft: bool = False
    """Put the CF soft tokens in."""


@dataclass(frozen=True, slots=True, eq=False)
class _Prefix:
    """A job with its prefix encoded."""

    job: ScoreJob
    tokens: Encoded
    gates: torch.Tensor

    @property
    def key(self) -> Hashable:
        """What its keys and values depend on, beside the scorer itself, whose pool it is.

        A scorer has one generation, one fusion and one soft table: soft rows stand for the bits of their soft tokens.
        """
        return self.tokens, self.gates.numpy().tobytes()


_Sized = TypeVar("_Sized", Piece, _Prefix)


class Scorer:
    """Scores jobs with one base model, one catalogue and one stack of adapters.

    Not changed after it is made. Several threads may call it: passes through the base model run one after the other.
    """

    def __init__(
        self,
        base: BaseModel,
        catalogue: Sequence[ItemText],
        prompt: PromptTemplate | None = None,
        *,
        projector: Projector | None = None,
        collaborative: Collaborative | None = None,
        adapters: Sequence[Path] = (),
        fusion: Fusion = "Exact",
        score: ScoreKind = "YesMinusNo",
        token_budget: int = 4096,
        pool_bytes: int = 0,
    ) -> None:
        """`catalogue[i]` is item index i; `adapters` are PEFT folders in slot order.

        `projector` and `collaborative` come together and are needed for jobs with soft tokens. `token_budget` limits
        the tokens of one forward pass (a longer single prompt still runs, alone); `pool_bytes` keeps prefixes of
        returning users. Raises BaseModelError if the tokenizer does not keep the seam between prefix and suffix,
        BundleError if an adapter does not fit.
        """
        if (projector is None) != (collaborative is None):
            raise ValueError("projector and collaborative come together: soft tokens are projected CF vectors")
        users = 0 if collaborative is None else len(collaborative.user_vectors)
        self.base = base
        self.encoder = PromptEncoder(base.tokenizer, prompt or PromptTemplate(), catalogue, users=users)
        self.encoder.assert_seam(seam_sample(len(self.encoder.catalogue)))
        self.slots = len(adapters)
        stack = LoraStack.load(base.model, adapters, fusion=fusion) if adapters else None
        self.soft = None if projector is None or collaborative is None else soft_table(projector, collaborative)
        self.packed = PackedModel(base, stack=stack, soft=self.soft)
        self.pool = KvPool(pool_bytes)
        self._score = score
        self._budget = token_budget

    def score(self, jobs: Sequence[ScoreJob]) -> list[torch.Tensor]:
        """Return per job the fp32 scores (candidates,) on the CPU, in the order of its candidates.

        Users may be mixed; equal prefixes are computed once per call, or taken from the pool.
        """
        scores: list[torch.Tensor] = []
        for wave in _chunks([self._prepare(job) for job in jobs], self._budget):
            pieces = [
                Piece(self.encoder.suffix(item, soft=prefix.job.soft), prefix.gates, (past,))
                for prefix, past in zip(wave, self._pasts(wave), strict=True)
                for item in prefix.job.candidates
            ]
            flat = [self.read(self.packed.forward(chunk).hidden) for chunk in _chunks(pieces, self._budget)]
            scores += torch.split(torch.cat(flat or [torch.empty(0)]), [len(prefix.job.candidates) for prefix in wave])
        return scores

    def read(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the scores (n,) fp32 on the CPU of read-out positions (n, D)."""
        yes, no = self.packed.answers(hidden).cpu().unbind(1)
        return yes if self._score == "Yes" else yes - no

    def gates_of(self, job: ScoreJob) -> torch.Tensor:
        """Return the job's slot weights, (slots,) fp32 on the CPU."""
        if job.gates is None:
            if self.slots > 1:
                raise ValueError(f"this scorer has {self.slots} adapters; say in ScoreJob.gates how to weight them")
            return torch.ones(self.slots)
        if job.gates.shape != (self.slots,):
            raise ValueError(
                f"ScoreJob.gates has shape {tuple(job.gates.shape)}, expected ({self.slots},): one per adapter"
            )
        return job.gates.detach().float().cpu()

    def prefixes(self, jobs: Sequence[ScoreJob]) -> list[KeyValues]:
        """Return the prefix keys and values of each job, from the pool or computed (equal ones once)."""
        return self._pasts([self._prepare(job) for job in jobs])

    def _prepare(self, job: ScoreJob) -> _Prefix:
        tokens = self.encoder.prefix(job.history, user_index=job.user_index, soft=job.soft)
        return _Prefix(job, tokens, self.gates_of(job))

    def _pasts(self, prefixes: Sequence[_Prefix]) -> list[KeyValues]:
        found: dict[Hashable, KeyValues] = {}
        missing: dict[Hashable, Piece] = {}
        for prefix in prefixes:
            if prefix.key in found or prefix.key in missing:
                continue
            pooled = self.pool.get(prefix.key)
            if pooled is None:
                missing[prefix.key] = Piece(prefix.tokens, prefix.gates)
            else:
                found[prefix.key] = pooled
        made: list[KeyValues] = []
        for chunk in _chunks(list(missing.values()), self._budget):
            made += self.packed.forward(chunk, read=False, keep=True).kept
        for key, value in zip(missing, made, strict=True):
            self.pool.put(key, value)
            found[key] = value
        return [found[prefix.key] for prefix in prefixes]


def _chunks(pieces: Sequence[_Sized], budget: int) -> Iterator[list[_Sized]]:
    """Yield neighbouring pieces of at most `budget` tokens together (one longer piece alone)."""
    chunk: list[_Sized] = []
    tokens = 0
    for piece in pieces:
        if chunk and tokens + len(piece.tokens) > budget:
            yield chunk
            chunk, tokens = [], 0
        chunk.append(piece)
        tokens += len(piece.tokens)
    if chunk:
        yield chunk
