# SPDX-License-Identifier: Apache-2.0
"""Requests on ids -> scores and explanations, over one base model and one bundle generation that can be swapped.

Several threads may call an engine. A request is answered by the generation that was current when it began; forward
passes of all requests run one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from thinkrec_crds.bundle import GoldenFile, GoldenPrompt
from thinkrec_crds.engine_api import (
    Branch,
    EngineError,
    ExplainEvent,
    ExplainRequest,
    HistoryItem,
    ScoreRequest,
    ScoreResponse,
)
from thinkrec_crds.stages import ComputeOptions
from thinkrec_inference.engine.base_model import BaseModel, load_base
from thinkrec_inference.engine.bundle import Bundle, User, check_base, load_bundle
from thinkrec_inference.engine.decoding import Writer, Writing, WritingOptions
from thinkrec_inference.engine.device import resolve, set_threads
from thinkrec_inference.engine.errors import BundleError, RequestRefusedError
from thinkrec_inference.engine.gate import Route, general_slots, route
from thinkrec_inference.engine.golden import compare
from thinkrec_inference.engine.lora import Fusion
from thinkrec_inference.engine.scorer import ScoreJob, Scorer
from thinkrec_inference.engine.tokens import History


@dataclass(frozen=True, slots=True)
class Limits:
    """What one engine may use."""

    token_budget: int = 4096
    """Tokens of one forward pass."""
    pool_bytes: int = 256 << 20
    """Keys and values kept for returning users."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A request in terms of indices, with the gate's decision."""

    job: ScoreJob
    slots: torch.Tensor
    branch: Branch

    @property
    def gates(self) -> tuple[float, ...]:
        """K expert weights and, last, the general adapter's."""
        return tuple(self.slots.tolist())


class Revision:
    """One bundle generation, ready to answer; never changed after it is made."""

    def __init__(self, bundle: Bundle, base: BaseModel, *, fusion: Fusion | None, limits: Limits) -> None:
        """Stack the bundle's adapters beside whatever else uses `base`."""
        check_base(bundle, base)
        self.bundle = bundle
        self.fusion: Fusion = fusion or bundle.index.fusion
        self.scorer = Scorer(
            base,
            bundle.items,
            bundle.index.prompt,
            projector=bundle.projector,
            collaborative=bundle.collaborative,
            adapters=bundle.adapters,
            fusion=self.fusion,
            score=bundle.index.score,
            token_budget=limits.token_budget,
            pool_bytes=limits.pool_bytes,
        )
        self.writer = Writer(self.scorer)

    def plan(self, request: ScoreRequest | ExplainRequest) -> Plan:
        """Translate ids and route the user; raise RequestRefusedError (404) naming an unknown item."""
        bundle = self.bundle
        user = bundle.users.get(request.user_id)
        known = user is not None and user.group is not None
        wanted = request.item_ids if isinstance(request, ScoreRequest) else (request.item_id,)
        candidates = tuple(self._item(item) for item in wanted)
        slots, branch = self._route(user)
        job = ScoreJob(
            history=self._history(user, request.history),
            candidates=candidates,
            user_index=user.index if known and user is not None else None,
            gates=slots,
            soft=True,
        )
        return Plan(job, slots, branch)

    def _route(self, user: User | None) -> tuple[torch.Tensor, Branch]:
        """Return slot weights and branch; a user without a meaningful CF vector takes the general adapter."""
        index, gate = self.bundle.index, self.bundle.gate
        if user is None or user.group is None:
            return general_slots(len(index.experts)), Branch.COLD_START
        decided: Route = route(
            self.bundle.collaborative.user_vectors[user.index],
            gate.centroids,
            gate.mean,
            gate.std,
            temperature=index.temperature,
            hard_route_threshold=index.hard_route_threshold,
            uniform_entropy_share=index.uniform_entropy_share,
        )
        return decided.slots, decided.branch

    def _history(self, user: User | None, given: tuple[HistoryItem, ...] | None) -> History:
        """Return the newest interactions, at most as many as the model was trained with."""
        if given is None:
            history = user.history if user else ()
        else:
            history = tuple((self._item(entry.item_id), entry.liked) for entry in given)
        return history[-self.bundle.index.history_length :]

    def _item(self, item_id: str) -> int:
        row = self.bundle.item_rows.get(item_id)
        if row is None:
            remedy = f"Ask for items of this generation's catalogue ({len(self.bundle.items)} items)."
            raise RequestRefusedError(404, f"item {item_id!r} is not in the catalogue.", remedy)
        return row


class Engine:
    """The engine: scores and explanations for users and items of one bundle, and its replacement without a pause."""

    def __init__(self, revision: Revision, base: BaseModel, *, precision: str, limits: Limits) -> None:
        """Use `Engine.load`; this takes parts that are ready."""
        self._revision = revision
        self._base = base
        self._limits = limits
        self.precision = precision

    @classmethod
    def load(
        cls,
        bundle_dir: Path,
        base_model_dir: Path,
        compute: ComputeOptions,
        *,
        fusion: Fusion | None = None,
        limits: Limits | None = None,
        golden: bool = True,
    ) -> Engine:
        """Load base model and bundle and reproduce the golden prompts.

        `fusion` None takes the bundle's own; `golden` off is for the stage that writes golden.json. Raises
        BaseModelError or BundleError; nothing is half loaded.
        """
        set_threads(compute)
        where = resolve(compute)
        limits = limits or Limits()
        bundle = load_bundle(bundle_dir)
        base = load_base(base_model_dir, device=where.device, dtype=where.dtype)
        made = cls(Revision(bundle, base, fusion=fusion, limits=limits), base, precision=where.precision, limits=limits)
        if golden:
            made.check_golden()
        return made

    @property
    def revision(self) -> Revision:
        """The generation that answers now; take it once for parts that must belong together."""
        return self._revision

    @property
    def generation(self) -> str:
        """Digest of the bundle that answers now."""
        return self._revision.bundle.generation

    @property
    def bundle(self) -> Bundle:
        """The bundle that answers now."""
        return self._revision.bundle

    @property
    def scorer(self) -> Scorer:
        """The current generation's scorer, for jobs on indices with gates of one's own."""
        return self._revision.scorer

    def plan(self, request: ScoreRequest | ExplainRequest) -> Plan:
        """Return how the current generation would answer; raise RequestRefusedError as `score` would."""
        return self._revision.plan(request)

    def score(self, requests: Sequence[ScoreRequest]) -> list[ScoreResponse | EngineError]:
        """Score several users' requests in one packed call; a refused one does not touch the others."""
        return _score(self._revision, requests)

    def explain(self, request: ExplainRequest, *, temperature: float = 0.0) -> Iterator[ExplainEvent]:
        """Yield one explanation piece by piece; closing the iterator stops the writing.

        The first event has the decision and score, the last one everything. Raises RequestRefusedError before anything
        is computed.
        """
        revision = self._revision
        return _stream(revision, request, revision.plan(request), temperature)

    def explain_batch(
        self, requests: Sequence[ExplainRequest], *, temperature: float = 0.0
    ) -> list[ExplainEvent | EngineError]:
        """Return whole explanations, written together: one final event each, or why it was refused."""
        return _explain_all(self._revision, requests, temperature)

    def make_golden(self, requests: Sequence[ScoreRequest]) -> GoldenFile:
        """Return these requests' answers as golden prompts; meant for a Float32 engine."""
        if self.precision != "Float32":
            raise ValueError(f"golden scores are those of a Float32 engine, this one computes in {self.precision}")
        return GoldenFile(prompts=tuple(_golden(answer) for answer in self.score(requests)))

    def check_golden(self) -> None:
        """Raise BundleError unless the current generation reproduces its golden prompts."""
        _check_golden(self._revision, self.precision)

    def swap(self, bundle_dir: Path) -> None:
        """Replace the bundle: stack the new one beside the old, reproduce its golden prompts, then switch.

        On BundleError the old generation goes on answering. Requests under way end with the one they began with.
        """
        new = Revision(load_bundle(bundle_dir), self._base, fusion=self._revision.fusion, limits=self._limits)
        _check_golden(new, self.precision)
        self._revision = new


def _score(revision: Revision, requests: Sequence[ScoreRequest]) -> list[ScoreResponse | EngineError]:
    plans = [_try_plan(revision, request) for request in requests]
    found = iter(revision.scorer.score([plan.job for plan in plans if isinstance(plan, Plan)]))
    return [
        _response(revision, request, plan, next(found)) if isinstance(plan, Plan) else plan
        for request, plan in zip(requests, plans, strict=True)
    ]


def _response(revision: Revision, request: ScoreRequest, plan: Plan, scores: torch.Tensor) -> ScoreResponse:
    return ScoreResponse(
        user_id=request.user_id,
        item_ids=request.item_ids,
        scores=tuple(scores.tolist()),
        gates=plan.gates,
        branch=plan.branch,
        cold_start=plan.branch is Branch.COLD_START,
        generation=revision.bundle.generation,
    )


def _try_plan(revision: Revision, request: ScoreRequest | ExplainRequest) -> Plan | EngineError:
    try:
        return revision.plan(request)
    except RequestRefusedError as refused:
        return refused.error


def _stream(revision: Revision, request: ExplainRequest, plan: Plan, temperature: float) -> Iterator[ExplainEvent]:
    options = WritingOptions(max_tokens=request.max_tokens, temperature=temperature)
    (writing,) = revision.writer.start([plan.job], [options])
    yield ExplainEvent(text=writing.text, score=writing.score, decision=writing.decision)
    sent = len(writing.text)
    while True:
        revision.writer.step([writing])
        more, sent = writing.text[sent:], max(sent, len(writing.text))
        if writing.finish_reason:
            yield _last_event(revision, plan, writing, more)
            return
        if more:
            yield ExplainEvent(text=more)


def _explain_all(
    revision: Revision, requests: Sequence[ExplainRequest], temperature: float
) -> list[ExplainEvent | EngineError]:
    plans = [_try_plan(revision, request) for request in requests]
    accepted = [(request, plan.job) for request, plan in zip(requests, plans, strict=True) if isinstance(plan, Plan)]
    options = [WritingOptions(max_tokens=request.max_tokens, temperature=temperature) for request, _ in accepted]
    writings = revision.writer.start([job for _, job in accepted], options)
    while any(writing.finish_reason is None for writing in writings):
        revision.writer.step(writings)
    done = iter(writings)
    return [_whole(revision, plan, next(done)) if isinstance(plan, Plan) else plan for plan in plans]


def _whole(revision: Revision, plan: Plan, writing: Writing) -> ExplainEvent:
    return _last_event(revision, plan, writing, writing.text)


def _last_event(revision: Revision, plan: Plan, writing: Writing, text: str) -> ExplainEvent:
    return ExplainEvent(
        text=text,
        done=True,
        finish_reason=writing.finish_reason,
        score=writing.score,
        decision=writing.decision,
        gates=plan.gates,
        branch=plan.branch,
        generation=revision.bundle.generation,
    )


def _check_golden(revision: Revision, precision: str) -> None:
    """Compare answers with golden.json; a fusion that is not the bundle's own is only held to its one-slot prompts."""
    golden = revision.bundle.golden
    if golden is None:
        raise BundleError(f"{revision.bundle.folder} has no golden.json, so nothing shows that it scores as trained")
    own = revision.fusion == revision.bundle.index.fusion
    prompts = [prompt for prompt in golden.prompts if own or max(prompt.gates) == 1.0]
    requests = [ScoreRequest(user_id=p.user_id, item_ids=p.item_ids) for p in prompts]
    answers = _score(revision, requests)
    problems = compare(prompts, answers, tolerance=golden.tolerance, exact=precision == "Float32")
    if problems:
        raise BundleError(
            f"{revision.bundle.folder}: {len(problems)} of {len(prompts)} golden prompts are not reproduced; "
            f"first: {problems[0]}; bundle, base model or this machine's arithmetic is not what it was made with"
        )


def _golden(answer: ScoreResponse | EngineError) -> GoldenPrompt:
    if isinstance(answer, EngineError):
        raise ValueError(f"a golden prompt was refused: {answer.error}")
    return GoldenPrompt(user_id=answer.user_id, item_ids=answer.item_ids, scores=answer.scores, gates=answer.gates)
