# SPDX-License-Identifier: Apache-2.0
"""Stage `score`: one variant of an experiment scores the test rows of a dataset; what it is worth is `compare`'s.

Rows, histories and candidates are those of the dataset, whoever scores them: variants of other data, with other users
and items, are asked by id and see no later interaction than the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from thinkrec_crds.comparison import SCORES_NAME, TRAINING_ROLE
from thinkrec_crds.stages import ScoreParameters
from thinkrec_inference.engine.engine import Engine
from thinkrec_trainer.context import LocalArtifact, StageContext, StageResult
from thinkrec_trainer.evaluate import open_engine
from thinkrec_trainer.evaluation.comparator import serving_scores
from thinkrec_trainer.evaluation.sample import TestSample, TestUser, read_ids, read_sample
from thinkrec_trainer.shards import Shard

_LEARNED_FROM = ("train", "validation")


@dataclass(frozen=True, slots=True)
class Bench:
    """The loaded variant and the rows."""

    engine: Engine
    sample: TestSample
    item_ids: list[str]
    """(I,) of the dataset."""


def run(context: StageContext) -> StageResult:
    """Score every row; raise Interrupted between two users when asked to stop, and begin again the next time."""
    bench = _open(context)
    return _write(context, bench, bench.sample.users)


def share(context: StageContext, shard: Shard) -> StageResult:
    """Score the rows of this pod's users."""
    bench = _open(context)
    return _write(context, bench, shard.stride(bench.sample.users))


def merge(context: StageContext, parts: Sequence[LocalArtifact]) -> StageResult:
    """Put the pods' rows together, in the order that one pod would have written."""
    rows = pl.concat([pl.read_parquet(part.file(SCORES_NAME)) for part in parts]).sort("user_index", "position")
    rows.write_parquet(context.output / SCORES_NAME)
    lineage = parts[0].manifest.lineage
    return _result(rows, lineage.source_digests["base_model"], lineage.device, lineage.precision)


def _open(context: StageContext) -> Bench:
    given, bundle, dataset = context.spec.parameters, context.input("bundle"), context.input("dataset")
    assert isinstance(given, ScoreParameters)
    engine = open_engine(context, bundle)
    sample = read_sample(
        dataset,
        max_users=given.max_users,
        max_rows=given.max_rows_per_user,
        history_length=engine.bundle.index.history_length,
        seed=context.spec.seed,
    )
    return Bench(engine, sample, read_ids(dataset, "item"))


def _write(context: StageContext, bench: Bench, users: Sequence[TestUser]) -> StageResult:
    scores = serving_scores(
        bench.engine, users, bench.item_ids, progress=context.progress, checkpoint=context.checkpoint
    )
    rows = _rows(bench, users, np.concatenate(scores) if scores else np.zeros(0))
    learned = context.inputs.get(TRAINING_ROLE)
    known = pl.DataFrame(schema={"user_id": pl.String, "item_id": pl.String}) if learned is None else _pairs(learned)
    marked = rows.join(
        known.with_columns(trained_on=True), on=["user_id", "item_id"], how="left", maintain_order="left"
    )
    marked = marked.with_columns(pl.col("trained_on").fill_null(value=False))
    marked.write_parquet(context.output / SCORES_NAME)
    index = bench.engine.bundle.index
    device = bench.engine.scorer.base.model.device.type
    return _result(marked, index.base_model_digest, device, bench.engine.precision)


def _rows(
    bench: Bench, users: Sequence[TestUser], scores: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> pl.DataFrame:
    """Return one line per row; `score` is null where the variant does not know the item."""
    sizes = [len(user.candidates) for user in users]
    items = [item for user in users for item in user.candidates]
    columns = {
        "user_index": np.repeat(np.array([user.index for user in users], dtype=np.int32), sizes),
        "user_id": np.repeat(np.array([user.user_id for user in users], dtype=object), sizes).tolist(),
        "item_id": [bench.item_ids[item] for item in items],
        "position": np.array([place for user in users for place in user.positions], dtype=np.int32),
        "liked": np.array([liked for user in users for liked in user.liked], dtype=np.bool_),
        "score": scores.astype(np.float64),
    }
    schema = {"user_id": pl.String, "item_id": pl.String}
    return pl.DataFrame(columns, schema_overrides=schema).with_columns(pl.col("score").fill_nan(None))


def _pairs(dataset: LocalArtifact) -> pl.DataFrame:
    """Return (user_id, item_id) of every interaction that a training on this data learned from."""
    parts = [
        pl.read_parquet(dataset.file(f"{name}.parquet"), columns=["user_index", "item_index"]) for name in _LEARNED_FROM
    ]
    pairs = pl.concat(parts).unique()
    users, items = np.array(read_ids(dataset, "user"), dtype=object), np.array(read_ids(dataset, "item"), dtype=object)
    named = {"user_id": users[pairs["user_index"].to_numpy()], "item_id": items[pairs["item_index"].to_numpy()]}
    return pl.DataFrame(named, schema_overrides={"user_id": pl.String, "item_id": pl.String})


def _result(rows: pl.DataFrame, base_model_digest: str, device: str, precision: str) -> StageResult:
    counts = {
        "users": rows["user_index"].n_unique(),
        "rows": rows.height,
        "unknown_rows": rows["score"].null_count(),
        "trained_on_rows": int(rows["trained_on"].sum()),
    }
    return StageResult(
        counts=counts, source_digests={"base_model": base_model_digest}, device=device, precision=precision
    )
