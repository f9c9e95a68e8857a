# SPDX-License-Identifier: Apache-2.0
"""Sampled explanations through the engine, everything around them that a reader needs, and their checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from thinkrec_crds.engine_api import EngineError, ExplainEvent, ExplainRequest, HistoryItem
from thinkrec_crds.evaluation import Explanation, HistoryLine, TextMetrics
from thinkrec_inference.engine.bundle import Bundle
from thinkrec_inference.engine.engine import Engine
from thinkrec_inference.engine.tokens import History
from thinkrec_trainer.context import LocalArtifact
from thinkrec_trainer.cursor import derived_seed, sample_of
from thinkrec_trainer.evaluation.sample import TestUser
from thinkrec_trainer.metrics.agreement import agrees
from thinkrec_trainer.metrics.grounding import Titles, is_grounded
from thinkrec_trainer.metrics.repetition import repetition
from thinkrec_trainer.metrics.rouge import rouge_l
from thinkrec_trainer.timelines import read_timelines

MAX_TOKENS = 48
"""New tokens of one explanation."""
MAX_TRACES = 16
"""Teacher traces that are compared."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One explanation to write."""

    user_id: str
    history: History
    item: int
    liked: bool


def draw_questions(users: Sequence[TestUser], count: int, *, seed: int) -> list[Asked]:
    """Draw `count` users and one test row of each."""
    generator = np.random.default_rng(derived_seed(seed, "explanation-rows"))
    asked = []
    for user in sample_of(users, count, seed=seed, name="explanations"):
        row = int(generator.integers(len(user.candidates)))
        asked.append(Asked(user.user_id, user.history, user.candidates[row], user.liked[row]))
    return asked


def explain(engine: Engine, asked: Sequence[Asked]) -> list[Explanation]:
    """Write all explanations together."""
    bundle = engine.bundle
    requests = [
        ExplainRequest(
            user_id=one.user_id,
            item_id=bundle.item_ids[one.item],
            history=tuple(HistoryItem(item_id=bundle.item_ids[item], liked=liked) for item, liked in one.history),
            max_tokens=MAX_TOKENS,
        )
        for one in asked
    ]
    return [_explanation(bundle, one, event) for one, event in zip(asked, engine.explain_batch(requests), strict=True)]


def _explanation(bundle: Bundle, asked: Asked, event: ExplainEvent | EngineError) -> Explanation:
    if isinstance(event, EngineError):
        raise RuntimeError(f"the engine refused to explain for user {asked.user_id!r}: {event.error}")
    item = bundle.items[asked.item]
    lines = [
        HistoryLine(item_id=bundle.item_ids[index], title=bundle.items[index].title, liked=liked)
        for index, liked in asked.history
    ]
    return Explanation.model_validate(
        {
            "user_id": asked.user_id,
            "history": tuple(lines),
            "item_id": bundle.item_ids[asked.item],
            "title": item.title,
            "keywords": item.keywords,
            "liked": asked.liked,
            "score": event.score,
            "decision": event.decision,
            "text": event.text.strip(),
            "gates": event.gates,
            "branch": event.branch,
        }
    )


def text_metrics(explanations: Sequence[Explanation], titles: Sequence[str]) -> TextMetrics:
    """Return the means of the checks over the explanations."""
    if not explanations:
        return TextMetrics()
    catalogue = Titles(titles)
    checks = np.array(
        [
            (
                agrees(one.text, one.decision),
                is_grounded(one.text, [one.title, *(line.title for line in one.history)], catalogue),
                len(one.text.split()),
                repetition(one.text),
            )
            for one in explanations
        ],
        dtype=np.float64,
    )
    agreement, grounding, words, repeated = checks.mean(axis=0).tolist()
    return TextMetrics(
        explanations=len(explanations), agreement=agreement, grounding=grounding, words=words, repetition=repeated
    )


def trace_questions(
    dataset: LocalArtifact, traces: LocalArtifact, user_ids: Sequence[str], *, history_length: int, seed: int
) -> tuple[list[Asked], list[str]]:
    """Return traced samples as questions, each with the history before it, and the teacher's reasons."""
    table = pl.read_parquet(traces.file("traces.parquet"))
    timelines = read_timelines(dataset)
    rows = sample_of(list(table.iter_rows(named=True)), MAX_TRACES, seed=seed, name="traces")
    asked = []
    for row in rows:
        end = row.get("history_end", row["position"])
        past = timelines.rows(row["user_index"])[max(0, end - history_length) : end]
        history = tuple((one.item_index, one.liked) for one in past)
        asked.append(Asked(user_ids[row["user_index"]], history, row["item_index"], row["liked"]))
    return asked, [row["reason"] for row in rows]


def mean_rouge(explanations: Sequence[Explanation], reasons: Sequence[str]) -> float | None:
    """Return the mean ROUGE-L of the texts after the decision against the teacher's reasons; None without any."""
    pairs = list(zip(explanations, reasons, strict=True))
    scores = [rouge_l(one.text.removeprefix(f"{one.decision}."), reason) for one, reason in pairs]
    return float(np.mean(scores)) if scores else None
