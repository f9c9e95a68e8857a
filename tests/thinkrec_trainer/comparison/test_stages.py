# SPDX-License-Identifier: Apache-2.0
"""The stages `score` and `compare` on a tiny model: the same rows for all, and numbers that follow from the files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from support import block_world
from support.block_world import write_block_world
from support.evaluated_world import Inputs, build
from support.llm_stages import seal, stage_context
from support.shares import in_shares, same_files
from thinkrec_crds.comparison import COMPARISON_NAME, SCORES_NAME, TRAINING_ROLE, ComparisonReport
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_crds.stages import CompareParameters, EvaluateParameters, ScoreParameters
from thinkrec_trainer import compare, evaluate, score
from thinkrec_trainer.context import LocalArtifact, StageContext

PARAMETERS = ScoreParameters()


@pytest.fixture(scope="module")
def world(tiny_llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return build(tmp_path_factory.mktemp("old"), tiny_llama_dir)


@pytest.fixture(scope="module")
def other(tiny_llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> LocalArtifact:
    """A bundle of the same data with softer gates."""
    return build(tmp_path_factory.mktemp("new"), tiny_llama_dir, temperature=5.0)["bundle"]


def scores(context: StageContext) -> pl.DataFrame:
    score.run(context)
    return pl.read_parquet(context.output / SCORES_NAME)


def test_a_variant_scores_what_its_own_evaluation_scored(world: Inputs, tmp_path: Path) -> None:
    inputs = {"dataset": world["dataset"], "bundle": world["bundle"]}
    found = scores(stage_context(tmp_path / "score", PARAMETERS, inputs))
    few = EvaluateParameters(bootstrap_samples=5, sampled_explanations=0, ablations=())
    evaluate.run(stage_context(tmp_path / "evaluate", few, world))
    wanted = pl.read_parquet(tmp_path / "evaluate" / "predictions.parquet")
    assert found["position"].to_list() == wanted["position"].to_list()
    assert found["liked"].to_list() == wanted["liked"].to_list()
    np.testing.assert_allclose(found["score"].to_numpy(), wanted["score_fused"].to_numpy(), atol=1e-4)
    assert not found["trained_on"].any()


def test_three_pods_write_what_one_writes(world: Inputs, tmp_path: Path) -> None:
    inputs = {"dataset": world["dataset"], "bundle": world["bundle"]}
    one = stage_context(tmp_path / "one", PARAMETERS, inputs)
    expected = score.run(one)
    found, output = in_shares(score, 3, tmp_path / "many", lambda path: stage_context(path, PARAMETERS, inputs))
    same_files(one.output, output)
    assert found == expected


def test_rows_of_the_variants_own_training_data_are_marked(world: Inputs, tmp_path: Path) -> None:
    """Its data is the old one, with the test rows of user 3 among those it learned from."""
    learned = pl.when(pl.col("user_index") == 3).then(pl.lit("train")).otherwise(pl.col("split")).alias("split")
    newer = write_block_world(tmp_path / "newer", rows=block_world.table().with_columns(learned))
    inputs = {"dataset": world["dataset"], "bundle": world["bundle"], TRAINING_ROLE: newer}
    found = scores(stage_context(tmp_path / "score", PARAMETERS, inputs))
    assert found.filter("trained_on")["user_id"].unique().to_list() == ["u3"]
    assert found.filter("trained_on").height == found.filter(pl.col("user_id") == "u3").height > 0


def test_items_that_the_variant_does_not_know_have_no_score(world: Inputs, tmp_path: Path) -> None:
    renamed = _with_renamed_item(world["dataset"], tmp_path / "dataset")
    found = scores(stage_context(tmp_path / "score", PARAMETERS, {"dataset": renamed, "bundle": world["bundle"]}))
    unknown = found.filter(pl.col("score").is_null())
    assert unknown["item_id"].unique().to_list() == ["brand-new"]
    assert unknown.height == found.filter(pl.col("item_id") == "brand-new").height > 0


def _with_renamed_item(dataset: LocalArtifact, folder: Path) -> LocalArtifact:
    folder.mkdir()
    for entry in dataset.manifest.files:
        (folder / entry.path).write_bytes(dataset.file(entry.path).read_bytes())
    items = pl.read_parquet(folder / "items.parquet")
    name = pl.when(pl.col("item_index") == 0).then(pl.lit("brand-new")).otherwise(pl.col("item_id")).alias("item_id")
    items.with_columns(name).write_parquet(folder / "items.parquet")
    return seal(folder, StageKind.DATASET)


def test_the_comparison_follows_from_the_scores(world: Inputs, other: LocalArtifact, tmp_path: Path) -> None:
    inputs = {}
    for name, bundle in (("old", world["bundle"]), ("new", other)):
        context = stage_context(tmp_path / name, PARAMETERS, {"dataset": world["dataset"], "bundle": bundle})
        score.run(context)
        inputs[f"variant-{name}"] = seal(context.output, StageKind.SCORE)
    given = CompareParameters(variants=("old", "new"), control="old", metrics=("AUC", "UAUC"), bootstrap_samples=200)
    context = stage_context(tmp_path / "compare", given, inputs)
    result = compare.run(context)
    report = ComparisonReport.from_json((context.output / COMPARISON_NAME).read_bytes())
    aucs = {}
    for name in ("old", "new"):
        table = pl.read_parquet(tmp_path / name / SCORES_NAME)
        aucs[name] = roc_auc_score(table["liked"], table["score"])
    found = {variant.name: variant.metrics["AUC"].value for variant in report.variants}
    assert found == pytest.approx(aucs)
    gap = report.difference("new", "AUC")
    assert gap is not None
    assert gap.effect.value == pytest.approx(aucs["new"] - aucs["old"])
    assert result.metrics == report.numbers()
    assert result.counts == {"users": report.users, "rows": report.rows, "trained_on_rows": 0}
    page = (context.output / "report" / "index.html").read_text()
    assert "new against old" in page
    assert "p, corrected" in page
    assert page.count("<svg") == 2


def test_the_page_says_what_happened_and_escapes_names(world: Inputs, tmp_path: Path) -> None:
    inputs = {"dataset": world["dataset"], "bundle": world["bundle"]}
    context = stage_context(tmp_path / "score", PARAMETERS, inputs)
    score.run(context)
    same = seal(context.output, StageKind.SCORE)
    given = CompareParameters(variants=("a<b", "c"), control="a<b", bootstrap_samples=50)
    context = stage_context(tmp_path / "compare", given, {"variant-a<b": same, "variant-c": replace(same)})
    compare.run(context)
    page = (context.output / "report" / "index.html").read_text()
    assert "c and a&lt;b are even on UAUC." in page
    assert "a<b" not in page
