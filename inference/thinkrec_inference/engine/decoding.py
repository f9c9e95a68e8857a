# SPDX-License-Identifier: Apache-2.0
"""Explanations: the score decides Yes or No, and the model goes on writing why from the same keys and values.

Rows of different users, with different gates, are written in one batch, and rows may join and leave between steps, so a
server can keep one batch running. Official settings (references in method.md): repetition penalty 1.2, no repeated pair
of tokens, both over the written answer only, so that titles of the history may still be named.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from thinkrec_inference.engine.attention import KeyValues
from thinkrec_inference.engine.packed import Piece
from thinkrec_inference.engine.scorer import ScoreJob, Scorer
from thinkrec_inference.engine.tokens import Encoded

Decision = Literal["Yes", "No"]
FinishReason = Literal["stop", "length"]
_UNFINISHED_CHARACTER = "\ufffd"
"""What decoding shows for the first bytes of a character whose other bytes are still to come."""


@dataclass(frozen=True, slots=True)
class WritingOptions:
    """How a reason is written."""

    max_tokens: int = 64
    """New tokens after the decision."""
    min_tokens: int = 8
    """New tokens before the reason may end: a model that has learnt bare answers would give none."""
    temperature: float = 0.0
    """0 takes the likeliest token; the official code samples at 0.4."""
    repetition_penalty: float = 1.2
    """Divides positive and multiplies negative logits of tokens already written (CTRL, arXiv 1909.05858)."""
    no_repeat_pairs: bool = True
    """Never write the same two neighbouring tokens twice."""
    seed: int = 0
    """Of the sampling; without meaning at temperature 0."""


@dataclass(slots=True, eq=False)
class Writing:
    """One explanation under way."""

    options: WritingOptions
    score: float
    decision: Decision
    gates: torch.Tensor
    prefix: KeyValues
    own: KeyValues
    """Keys and values of the suffix and all of the answer but `pending`."""
    ids: list[int]
    """The answer so far, decision included."""
    pending: tuple[int, ...]
    """Its tokens that the model has not seen yet."""
    generator: torch.Generator
    reason_tokens: int = 0
    text: str = ""
    """The answer so far, whole characters only."""
    finish_reason: FinishReason | None = field(default=None)


class Writer:
    """Starts and continues explanations over one scorer; each `Writing` belongs to one caller at a time."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        tokenizer = scorer.base.tokenizer
        self._tokenizer = tokenizer
        self._stops = frozenset(int(i) for i in tokenizer.all_special_ids) | _end_ids(scorer)
        self._ends = torch.tensor(sorted(self._stops | _line_ends(scorer)))

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an explanation; a line's end, which may be part of a longer token, ends it too."""
        return self._stops

    def start(self, jobs: Sequence[ScoreJob], options: Sequence[WritingOptions]) -> list[Writing]:
        """Score each job's only candidate, decide, and return its explanation holding just the decision."""
        if not jobs:
            return []
        scorer = self._scorer
        prefixes = scorer.prefixes(jobs)
        gates = [scorer.gates_of(job) for job in jobs]
        suffixes = [scorer.encoder.suffix(_only(job), soft=job.soft) for job in jobs]
        pieces = [Piece(s, g, (p,)) for s, g, p in zip(suffixes, gates, prefixes, strict=True)]
        done = scorer.packed.forward(pieces, keep=True)
        scores = scorer.read(done.hidden).tolist()
        return [
            self._begin(option, score, gate, prefix, own)
            for option, score, gate, prefix, own in zip(options, scores, gates, prefixes, done.kept, strict=True)
        ]

    def step(self, writings: Sequence[Writing]) -> None:
        """Write one more token of each unfinished explanation, all in one forward pass."""
        rows = [w for w in writings if w.finish_reason is None]
        if not rows:
            return
        pieces = [Piece(Encoded(w.pending), w.gates, (w.prefix, w.own)) for w in rows]
        done = self._scorer.packed.forward(pieces, keep=True)
        for writing, logits, kept in zip(rows, self._scorer.packed.logits(done.hidden).cpu(), done.kept, strict=True):
            writing.own = writing.own.extended(kept)
            if writing.reason_tokens < writing.options.min_tokens:
                logits = logits.index_fill(0, self._ends, -torch.inf)
            self._advance(writing, next_token(logits, writing))

    def write(self, jobs: Sequence[ScoreJob], options: WritingOptions | None = None) -> list[Writing]:
        """Return finished explanations of all jobs, written together."""
        writings = self.start(jobs, [options or WritingOptions()] * len(jobs))
        while any(w.finish_reason is None for w in writings):
            self.step(writings)
        return writings

    def _begin(
        self, options: WritingOptions, score: float, gates: torch.Tensor, prefix: KeyValues, own: KeyValues
    ) -> Writing:
        template = self._scorer.encoder.template
        decision: Decision = "Yes" if score > 0 else "No"
        answer = (template.yes if decision == "Yes" else template.no) + "."
        ids = self._scorer.encoder.text(answer)
        generator = torch.Generator().manual_seed(options.seed)
        return Writing(
            options,
            score,
            decision,
            gates,
            prefix,
            own,
            list(ids),
            ids,
            generator,
            text=answer.lstrip(),
        )

    def _advance(self, writing: Writing, token: int) -> None:
        """Add a token, or finish at a special token, a line's end or the limit."""
        if token in self._stops:
            writing.finish_reason = "stop"
            return
        writing.ids.append(token)
        writing.pending = (token,)
        writing.reason_tokens += 1
        text = str(self._tokenizer.decode(writing.ids)).lstrip()
        line, newline, _ = text.partition("\n")
        if newline:
            writing.finish_reason = "stop"
        elif writing.reason_tokens >= writing.options.max_tokens:
            writing.finish_reason = "length"
        if writing.finish_reason or not text.endswith(_UNFINISHED_CHARACTER):
            writing.text = line.rstrip(_UNFINISHED_CHARACTER)


def next_token(logits: torch.Tensor, writing: Writing) -> int:
    """Choose the next token from one row of logits (V,) fp32."""
    options = writing.options
    logits = penalise(logits, writing.ids, options.repetition_penalty)
    if options.no_repeat_pairs:
        logits = forbid_pairs(logits, writing.ids)
    if options.temperature == 0:
        return int(logits.argmax())
    chances = torch.softmax(logits / options.temperature, -1)
    return int(torch.multinomial(chances, 1, generator=writing.generator))


def penalise(logits: torch.Tensor, written: Sequence[int], penalty: float) -> torch.Tensor:
    """Return logits with those of written tokens made less likely."""
    seen = torch.tensor(sorted(set(written)))
    found = logits[seen]
    return logits.index_copy(0, seen, torch.where(found > 0, found / penalty, found * penalty))


def forbid_pairs(logits: torch.Tensor, written: Sequence[int]) -> torch.Tensor:
    """Return logits in which no token may follow the last one that has followed it before."""
    last = written[-1]
    followers = [after for before, after in itertools.pairwise(written) if before == last]
    if not followers:
        return logits
    return logits.index_fill(0, torch.tensor(followers), -torch.inf)


def _end_ids(scorer: Scorer) -> frozenset[int]:
    """Return the end-of-sequence ids that the model's generation settings name."""
    settings = scorer.base.model.generation_config
    ends = getattr(settings, "eos_token_id", None)
    if ends is None:
        return frozenset()
    return frozenset(ends if isinstance(ends, list) else [ends])


def _line_ends(scorer: Scorer) -> frozenset[int]:
    """Return the ids of tokens that hold a line's end, as byte-level and SentencePiece vocabularies spell it."""
    vocabulary = scorer.base.tokenizer.get_vocab()
    return frozenset(i for token, i in vocabulary.items() if any(mark in token for mark in ("\n", "Ċ", "<0x0A>")))


def _only(job: ScoreJob) -> int:
    if len(job.candidates) != 1:
        raise ValueError(f"an explanation is of one candidate, this job has {len(job.candidates)}")
    return job.candidates[0]
