# SPDX-License-Identifier: Apache-2.0
"""Stage `evaluate`: the fused model beside its baselines on the same rows, sampled explanations, the report page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from thinkrec_crds.bundle import INDEX_NAME, BundleIndex
from thinkrec_crds.evaluation import (
    COLLABORATIVE,
    EXPLANATIONS_NAME,
    METRICS_NAME,
    PREDICTIONS_NAME,
    EvaluationReport,
    Explanation,
    ExplanationFile,
    TextMetrics,
)
from thinkrec_crds.stages import EvaluateParameters
from thinkrec_inference.engine.collaborative import COLLABORATIVE_NAME, Collaborative
from thinkrec_inference.engine.engine import Engine
from thinkrec_trainer.context import LocalArtifact, StageContext, StageResult
from thinkrec_trainer.encoders.scores import pair_scores
from thinkrec_trainer.errors import BadInput
from thinkrec_trainer.evaluation.comparator import completed, serving_scores
from thinkrec_trainer.evaluation.explanations import (
    draw_questions,
    explain,
    mean_rouge,
    text_metrics,
    trace_questions,
)
from thinkrec_trainer.evaluation.measure import Labels, Scored, best_expert, flat_metrics, slices
from thinkrec_trainer.evaluation.passes import Floats, Job, job_batches, score_batches
from thinkrec_trainer.evaluation.sample import TestSample, TestUser, read_sample
from thinkrec_trainer.evaluation.shares import Scores, gathered
from thinkrec_trainer.evaluation.variants import Schedule, make_schedule
from thinkrec_trainer.fetch import base_model_uri
from thinkrec_trainer.report.page import write_page
from thinkrec_trainer.shards import Shard
from thinkrec_trainer.workbench import invalid_as_bad_input

SERVING_ROLE = "serving"
TRACES_ROLE = "traces"
ROW_ORDER = ("Base", "Collaborative", "General", "Expert", "BestExpert", "Fused", "Serving", "Ablation")


def run(context: StageContext) -> StageResult:
    """Score, measure, explain, and write metrics, predictions, explanations and the page.

    Interrupted between two passes, it keeps the scores and makes the rest again.
    """
    bench = _open(context)
    return _finish(context, bench, _score(context, bench, job_batches(bench.schedule.jobs), bench.sample.users))


def share(context: StageContext, shard: Shard) -> StageResult:
    """Score this pod's jobs and users; what is made of the scores is little work, and left to whoever merges."""
    bench = _open(context)
    users, batches = shard.stride(bench.sample.users), shard.stride(job_batches(bench.schedule.jobs))
    _score(context, bench, batches, users).save(context.output)
    return _result(bench.engine, {}, {"users": len(users), "jobs": sum(map(len, batches))})


def merge(context: StageContext, parts: Sequence[LocalArtifact]) -> StageResult:
    """Measure and explain with the scores of all pods."""
    bench = _open(context)
    return _finish(context, bench, gathered(parts, bench.schedule.jobs, bench.sample.users))


@dataclass(frozen=True, slots=True)
class Bench:
    """The loaded bundle, the rows, and what has to be scored."""

    given: EvaluateParameters
    engine: Engine
    sample: TestSample
    schedule: Schedule


def _open(context: StageContext) -> Bench:
    given = context.spec.parameters
    assert isinstance(given, EvaluateParameters)
    engine = open_engine(context, context.input("bundle"))
    sample = read_sample(
        context.input("dataset"),
        max_users=given.max_users,
        max_rows=given.max_rows_per_user,
        history_length=engine.bundle.index.history_length,
        seed=context.spec.seed,
    )
    _require_same_items(engine, sample)
    return Bench(given, engine, sample, make_schedule(engine, sample.users, given.ablations))


def _score(context: StageContext, bench: Bench, batches: Sequence[Sequence[Job]], users: Sequence[TestUser]) -> Scores:
    """Let the bundle, and the revision now serving where there is one, score their rows."""
    progress, checkpoint = context.progress, context.checkpoint
    jobs = score_batches(bench.engine, batches, progress=progress, checkpoint=checkpoint)
    if SERVING_ROLE not in context.inputs:
        return Scores(jobs, None)
    serving, ids = open_engine(context, context.input(SERVING_ROLE)), bench.engine.bundle.item_ids
    return Scores(jobs, serving_scores(serving, users, ids, progress=progress, checkpoint=checkpoint))


def _finish(context: StageContext, bench: Bench, scores: Scores) -> StageResult:
    given, engine, sample, schedule = bench.given, bench.engine, bench.sample, bench.schedule
    index, seed = engine.bundle.index, context.spec.seed
    table = _table(context, bench, scores)
    context.checkpoint.raise_if_interrupted()
    explanations = explain(engine, draw_questions(sample.users, given.sampled_explanations, seed=seed))
    context.checkpoint.raise_if_interrupted()
    labels = Labels(sample.owners(), sample.liked())
    report = EvaluationReport(
        generation=context.input("bundle").digest or engine.generation,
        base_model=index.base_model,
        seed=seed,
        bootstrap_samples=given.bootstrap_samples,
        experts=len(index.experts),
        history_length=index.history_length,
        users_with_test_rows=sample.users_with_test_rows,
        slices=slices(labels, table, sample.warm_rows(), given.metrics, samples=given.bootstrap_samples, seed=seed),
        branches=dict(Counter(route.branch for route in schedule.routes)),
        text=_text(context, engine, explanations),
    )
    _write(context, report, explanations, _predictions(sample, schedule, table))
    slots = [route.slots for route in schedule.routes]
    write_page(context, report, explanations, slots, experts=[expert.name for expert in index.experts])
    return _measured(engine, report, explanations)


def open_engine(context: StageContext, bundle: LocalArtifact) -> Engine:
    """Load a bundle with the base model that it names; reproducing golden prompts is the serving pod's check."""
    with invalid_as_bad_input():
        index = BundleIndex.from_json(bundle.file(INDEX_NAME).read_bytes())
        base = context.fetch(base_model_uri(index.base_model))
        return Engine.load(bundle.path, base, context.spec.compute, golden=False)


def _require_same_items(engine: Engine, sample: TestSample) -> None:
    """Indices are shared by dataset and bundle; different counts mean artifacts of different data."""
    found = (len(engine.bundle.items), len(engine.bundle.users.rows))
    expected = (len(sample.warm_items), len(sample.warm_users))
    if found != expected:
        raise BadInput(f"the bundle has {found} items and users, the dataset {expected}: they are not of one training")


def _table(context: StageContext, bench: Bench, scores: Scores) -> list[Scored]:
    """Return all rows of the table in reading order."""
    sample, places = bench.sample, bench.schedule.places
    model = [
        Scored(one.name, one.title, one.kind, np.concatenate([scores.jobs[job] for job in places[one.name]]))
        for one in bench.schedule.variants
    ]
    labels = Labels(sample.owners(), sample.liked())
    best = best_expert(labels, [row for row in model if row.kind == "Expert"])
    parts: dict[str, list[Scored]] = {
        "Collaborative": [_baseline(context, sample)],
        "BestExpert": [best] if best else [],
    }
    if scores.serving is not None:
        parts["Serving"] = [_serving(sample, scores.serving)]
    for row in model:
        parts.setdefault(row.kind, []).append(row)
    return [row for kind in ROW_ORDER for row in parts.get(kind, [])]


def _baseline(context: StageContext, sample: TestSample) -> Scored:
    """Return the CF encoder's own scores."""
    encoder = Collaborative.load(context.input("collaborative").file(COLLABORATIVE_NAME))
    users = np.array([user.index for user in sample.users], dtype=np.int64)[sample.owners()]
    return Scored(COLLABORATIVE, "CF encoder", "Collaborative", pair_scores(encoder, users, sample.items()))


def _serving(sample: TestSample, found: Sequence[Floats]) -> Scored:
    scores, unknown = completed(found)
    note = f"{unknown} of {sample.rows} rows have items that it does not know; they got the user's median score."
    return Scored(SERVING_ROLE, "Revision now serving", "Serving", scores, note if unknown else "")


def _text(context: StageContext, engine: Engine, explanations: Sequence[Explanation]) -> TextMetrics:
    """Return the checks of the texts; ROUGE-L too where the stage was given the teacher's traces."""
    found = text_metrics(explanations, [item.title for item in engine.bundle.items])
    if TRACES_ROLE not in context.inputs:
        return found
    asked, reasons = trace_questions(
        context.input("dataset"),
        context.input(TRACES_ROLE),
        engine.bundle.users.table.sort("user_index")["user_id"].to_list(),
        history_length=engine.bundle.index.history_length,
        seed=context.spec.seed,
    )
    rouge = mean_rouge(explain(engine, asked), reasons)
    return found.model_copy(update={"rouge_l": rouge, "traces": len(reasons)})


def _predictions(sample: TestSample, schedule: Schedule, table: Sequence[Scored]) -> pl.DataFrame:
    """Return one line per test row: who, what, the truth, the gate's decision and every scorer's score."""
    owners = sample.owners()
    users = sample.users
    gates = np.array([route.slots for route in schedule.routes], dtype=np.float32)[owners]
    columns = {
        "user_index": np.array([user.index for user in users], dtype=np.int32)[owners],
        "item_index": sample.items().astype(np.int32),
        "position": np.array([place for user in users for place in user.positions], dtype=np.int32),
        "liked": sample.liked(),
        "warm": sample.warm_rows(),
        "branch": [schedule.routes[owner].branch.value for owner in owners.tolist()],
        "gates": gates.tolist(),
    }
    scores = {f"score_{row.name}": row.scores.astype(np.float32) for row in table}
    return pl.DataFrame(columns | scores, schema_overrides={"gates": pl.List(pl.Float32)})


def _write(
    context: StageContext, report: EvaluationReport, explanations: Sequence[Explanation], predictions: pl.DataFrame
) -> None:
    texts = {METRICS_NAME: report, EXPLANATIONS_NAME: ExplanationFile(explanations=tuple(explanations))}
    for name, body in texts.items():
        (context.output / name).write_text(body.to_json(indent=2), encoding="utf-8")
    predictions.write_parquet(context.output / PREDICTIONS_NAME)


def _measured(engine: Engine, report: EvaluationReport, explanations: Sequence[Explanation]) -> StageResult:
    checks = {"agreement": report.text.agreement, "grounding": report.text.grounding, "rouge_l": report.text.rouge_l}
    texts = {f"explanation_{name}": value for name, value in checks.items() if value is not None}
    counts = {
        "users": report.all_rows.users,
        "test_rows": report.all_rows.test_rows,
        "experts": report.experts,
        "explanations": len(explanations),
    }
    return _result(engine, flat_metrics(report.all_rows) | texts, counts)


def _result(engine: Engine, metrics: Mapping[str, float], counts: Mapping[str, int]) -> StageResult:
    return StageResult(
        metrics=metrics,
        counts=counts,
        source_digests={"base_model": engine.bundle.index.base_model_digest},
        device=engine.scorer.base.model.device.type,
        precision=engine.precision,
    )
