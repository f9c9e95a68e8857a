# SPDX-License-Identifier: Apache-2.0
"""The stage: pool, conversations until enough traces are kept, tables. A checkpoint holds every finished sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import polars as pl

from thinkrec_crds.prompt import ItemText
from thinkrec_crds.stages import TracesParameters
from thinkrec_inference.engine.base_model import BaseModel
from thinkrec_inference.engine.device import Device
from thinkrec_inference.engine.gguf import ensure_safetensors
from thinkrec_inference.engine.scorer import Scorer
from thinkrec_trainer.context import LocalArtifact, StageContext, StageResult
from thinkrec_trainer.fetch import base_model_uri
from thinkrec_trainer.shards import Shard, combined
from thinkrec_trainer.teacher import Teacher, make_teacher
from thinkrec_trainer.timelines import Timelines, read_catalogue, read_timelines
from thinkrec_trainer.traces.dialogue import Case, Outcome, converse
from thinkrec_trainer.traces.filters import Limits, Why
from thinkrec_trainer.traces.pool import (
    Sample,
    history_rows,
    pool_blocks,
    samples_of,
    score_pool,
    wrong_samples,
)
from thinkrec_trainer.traces.shares import agreed_pool, ask_share, joined, read_shares, write_share
from thinkrec_trainer.traces.work import Work
from thinkrec_trainer.workbench import invalid_as_bad_input, open_base

CHUNK = 16
"""Conversations held at once: a signal costs at most their unfinished ones."""
POOL_SHARE = 20
"""Percent of the progress bar for scoring the pool."""
_SCHEMA = {
    "user_index": pl.Int32,
    "item_index": pl.Int32,
    "position": pl.Int32,
    "history_end": pl.Int32,
    "liked": pl.Boolean,
    "rounds": pl.Int32,
    "decision": pl.String,
    "reason": pl.String,
}


def run(context: StageContext) -> StageResult:
    """Find what the base model gets wrong and let the teacher explain it."""
    bench = _open(context)
    folder = context.checkpoint.load()
    work = Work.load(folder) if folder else bench.find_wrong(context)
    _keep(context, work)
    cases = bench.cases(work)
    if cases and len(work.kept()) < bench.given.max_samples:
        ask(context, bench.given, work, cases, bench.catalogue, lambda: open_teacher(context, bench))
    return _finish(context, bench, work)


def share(context: StageContext, shard: Shard) -> StageResult:
    """Hold the conversations of this pod's chunks (shares.py)."""
    bench = _open(context)
    pool = agreed_pool(shard.board, lambda: bench.find_wrong(context))
    cases, size = bench.cases(pool), chunk_size(bench.given)
    chunks = [cases[start : start + size] for start in range(0, len(cases), size)]
    done = ask_share(context, bench.given, shard, chunks, bench.catalogue, lambda: open_teacher(context, bench))
    write_share(context.output, pool, done)
    return bench.result({"asked": sum(len(work.outcomes) for work in done.values())})


def merge(context: StageContext, parts: Sequence[LocalArtifact]) -> StageResult:
    """Write the tables from the conversations of all pods."""
    given = _given(context)
    pool, chunks = read_shares(parts)
    work = joined(pool, chunks, limit=given.max_samples)
    write_tables(context.output, work.outcomes, limit=given.max_samples)
    return replace(combined(parts), counts=counts(work, limit=given.max_samples))


@dataclass(frozen=True, slots=True)
class Bench:
    """Model and data of the stage."""

    given: TracesParameters
    timelines: Timelines
    catalogue: Sequence[ItemText]
    base: BaseModel
    device: Device

    def find_wrong(self, context: StageContext) -> Work:
        """Score the pool and return the samples that the base model gets wrong."""
        return find_wrong(context, self.given, self.base, self.timelines, self.catalogue)

    def cases(self, work: Work) -> list[Case]:
        """Return what each conversation needs, in the order of asking."""
        return [make_case(sample, self.base, self.timelines, self.catalogue, self.given) for sample in work.wrong]

    def result(self, counted: Mapping[str, int]) -> StageResult:
        """Return what the manifest says beside the files."""
        return StageResult(
            counts=counted,
            source_digests={"base_model": self.base.digest},
            device=self.device.device.type,
            precision=self.device.precision,
        )


def _open(context: StageContext) -> Bench:
    given = _given(context)
    dataset = context.input("dataset")
    base, device = open_base(context, given.base_model)
    return Bench(given, read_timelines(dataset), read_catalogue(dataset, context.input("keywords")), base, device)


def _given(context: StageContext) -> TracesParameters:
    given = context.spec.parameters
    assert isinstance(given, TracesParameters)
    return given


def _finish(context: StageContext, bench: Bench, work: Work) -> StageResult:
    write_tables(context.output, work.outcomes, limit=bench.given.max_samples)
    return bench.result(counts(work, limit=bench.given.max_samples))


def find_wrong(
    context: StageContext,
    given: TracesParameters,
    base: BaseModel,
    timelines: Timelines,
    catalogue: Sequence[ItemText],
) -> Work:
    """Score the pool and return the samples that the base model gets wrong."""
    blocks = pool_blocks(timelines, size=given.pool_size, history_length=given.history_length, seed=context.spec.seed)
    with invalid_as_bad_input():
        scorer = Scorer(base, catalogue)
    samples = samples_of(blocks)

    def report(share: float) -> None:
        _report(context, share * POOL_SHARE, "scoring the pool")
        context.checkpoint.raise_if_interrupted()  # nothing is worth keeping yet

    scores = score_pool(scorer, blocks, report)
    return Work(pool=len(samples), wrong=wrong_samples(samples, scores))


def make_case(
    sample: Sample, base: BaseModel, timelines: Timelines, catalogue: Sequence[ItemText], given: TracesParameters
) -> Case:
    """Return what one conversation needs."""
    rows = timelines.rows(sample.user_index)
    history = history_rows(rows, sample, given.history_length)
    shown = {row.item_index for row in history} | {sample.item_index}
    later = {row.item_index for row in rows[sample.history_end :]} - shown
    limits = Limits(
        tokens=given.teacher.max_tokens,
        count_tokens=lambda text: len(base.tokenizer(text, add_special_tokens=False).input_ids),
        title=catalogue[sample.item_index].title,
        later_titles=[catalogue[item].title for item in sorted(later)],
    )
    return Case(sample=sample, item=catalogue[sample.item_index], history=history, limits=limits)


def open_teacher(context: StageContext, bench: Bench) -> Teacher:
    """Return the teacher of the spec."""
    given, device = bench.given, bench.device
    folder = ensure_safetensors(context.fetch(base_model_uri(given.base_model)))
    return make_teacher(given.teacher, folder, seed=context.spec.seed, device=str(device.device), dtype=device.dtype)


def ask(
    context: StageContext,
    given: TracesParameters,
    work: Work,
    cases: Sequence[Case],
    catalogue: Sequence[ItemText],
    connect: Callable[[], Teacher],
) -> None:
    """Hold conversations, chunk by chunk, until `max_samples` are kept or nothing is left to ask."""
    teacher = connect()
    before = work.usage

    def pause() -> None:
        if context.checkpoint.interrupted:
            _keep(context, work)

    try:
        while len(work.kept()) < given.max_samples and len(work.outcomes) < len(cases):
            start = len(work.outcomes)
            chunk = cases[start : start + chunk_size(given)]
            work.outcomes += converse(chunk, catalogue, teacher, max_rounds=given.teacher.max_rounds, pause=pause)
            work.usage = before.added(teacher.usage)
            _report(context, POOL_SHARE + (100 - POOL_SHARE) * _share(work, given, len(cases)), _message(work))
            _keep(context, work)
    finally:
        teacher.close()


def chunk_size(given: TracesParameters) -> int:
    """Return how many conversations are held at once: no more than are wanted, but enough to keep the teacher busy."""
    busy = 4 * given.teacher.max_concurrency if given.teacher.type == "OpenAI" else CHUNK
    return max(1, min(max(CHUNK, busy), given.max_samples))


def write_tables(folder: Path, outcomes: Sequence[Outcome], *, limit: int) -> None:
    """Write traces.parquet (at most `limit` rows) and rejected.parquet."""
    rows = [_row(outcome) for outcome in outcomes if outcome.why is None][:limit]
    pl.DataFrame(rows, schema=_SCHEMA).write_parquet(folder / "traces.parquet")
    rejected = [{**_row(outcome), "why": outcome.why.value} for outcome in outcomes if outcome.why is not None]
    pl.DataFrame(rejected, schema={**_SCHEMA, "why": pl.String}).write_parquet(folder / "rejected.parquet")


def counts(work: Work, *, limit: int) -> dict[str, int]:
    """Return what happened to every sample, and what it cost."""
    why = Counter(outcome.why for outcome in work.outcomes)
    return {
        "pool": work.pool,
        "wrong": len(work.wrong),
        "asked": len(work.outcomes),
        "kept": min(limit, why[None]),
        **{f"rejected_{reason.value}": why[reason] for reason in Why},
        "requests": work.usage.requests,
        "retries": work.usage.retries,
        "prompt_tokens": work.usage.prompt_tokens,
        "completion_tokens": work.usage.completion_tokens,
    }


def _row(outcome: Outcome) -> dict[str, object]:
    return {**asdict(outcome.sample), "rounds": outcome.rounds, "decision": outcome.decision, "reason": outcome.reason}


def _keep(context: StageContext, work: Work) -> None:
    """Save finished samples when it is time to; raise Interrupted after a signal."""
    if context.checkpoint.due() or context.checkpoint.interrupted:
        context.checkpoint.save(work.save)
        context.checkpoint.raise_if_interrupted()


def _share(work: Work, given: TracesParameters, cases: int) -> float:
    return min(1.0, max(len(work.kept()) / given.max_samples, len(work.outcomes) / cases))


def _message(work: Work) -> str:
    return f"{len(work.kept())} kept of {len(work.outcomes)} asked"


def _report(context: StageContext, percent: float, message: str) -> None:
    context.progress.update(round(percent), 100, message)
