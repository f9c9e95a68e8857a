# SPDX-License-Identifier: Apache-2.0
"""The evaluate stage end to end on a tiny model: its numbers against independent computations, and no look ahead."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import roc_auc_score
from transformers import AutoModelForCausalLM, AutoTokenizer

from support import block_world
from support.block_world import COLD_USER, title, write_block_world
from support.evaluated_world import HISTORY, Inputs, build
from support.llm_stages import MemoryCheckpoints, ProgressList, seal, stage_context
from thinkrec_crds.evaluation import EvaluationReport, ExplanationFile, metric_names, metrics_table, verdict
from thinkrec_crds.prompt import HistoryEntry, ItemText, PromptTemplate, Text, render_prefix, render_suffix
from thinkrec_crds.stages import EvaluateParameters
from thinkrec_inference.engine.collaborative import COLLABORATIVE_NAME, Collaborative
from thinkrec_trainer.context import LocalArtifact, StageResult
from thinkrec_trainer.errors import BadInput, Interrupted
from thinkrec_trainer.evaluate import run

ROWS = ["base", "collaborative", "general", "expert-0", "expert-1", "expert-2", "best-expert", "fused"]
ABLATIONS = ["one-hot", "peft-linear", "no-collaborative"]
MODEL_SCORES = [f"score_{name}" for name in (*ROWS, *ABLATIONS) if name not in ("collaborative", "best-expert")]


def evaluate(
    output: Path, inputs: Mapping[str, LocalArtifact], *, checkpoint: MemoryCheckpoints | None = None, **given: object
) -> StageResult:
    settings = {"bootstrap_samples": 200, "sampled_explanations": 3, "max_users": 16} | given
    parameters = EvaluateParameters.model_validate(settings)
    return run(stage_context(output, parameters, inputs, checkpoint=checkpoint))


@pytest.fixture(scope="session")
def inputs(tiny_llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return build(tmp_path_factory.mktemp("evaluated"), tiny_llama_dir)


@pytest.fixture(scope="session")
def whole(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> tuple[StageResult, Path]:
    """All users, so that the cold one is among them."""
    output = tmp_path_factory.mktemp("evaluation") / "output"
    return evaluate(output, inputs, max_users=None), output


def read(output: Path) -> EvaluationReport:
    return EvaluationReport.from_json((output / "metrics.json").read_bytes())


def predictions(output: Path) -> pl.DataFrame:
    return pl.read_parquet(output / "predictions.parquet")


def test_the_table_has_every_row_in_reading_order(whole: tuple[StageResult, Path]) -> None:
    part = read(whole[1]).all_rows
    assert [row.name for row in part.rows] == ROWS + ABLATIONS
    assert (part.users, part.test_rows) == (block_world.USERS, predictions(whole[1]).height)
    assert metrics_table(read(whole[1]))[0] == ("Model", "AUC", "UAUC", "NDCG@5", "MAP@5", "MAP@5 capped")


def test_published_numbers_follow_from_the_published_predictions(whole: tuple[StageResult, Path]) -> None:
    table, part = predictions(whole[1]), read(whole[1]).all_rows
    for row in part.rows:
        column = "score_" + row.name
        found = row.metrics["AUC"].value
        assert found == pytest.approx(roc_auc_score(table["liked"], table[column]), abs=1e-6)
        per_user = [
            roc_auc_score(mine["liked"], mine[column])
            for _, mine in table.group_by("user_index")
            if mine["liked"].n_unique() == 2
        ]
        assert row.metrics["UAUC"].value == pytest.approx(np.mean(per_user), abs=1e-6)
        assert row.metrics["UAUC"].users == len(per_user)


def test_the_encoder_that_knows_the_truth_wins_and_the_page_says_so(whole: tuple[StageResult, Path]) -> None:
    report = read(whole[1])
    sentence = verdict(report)
    assert sentence.startswith("The CF encoder is ahead of the fused model on UAUC")
    assert "excludes zero" in sentence
    assert sentence.replace(">", "&gt;") in (whole[1] / "report" / "index.html").read_text()
    gap = next(d for d in report.all_rows.differences if d.other == "collaborative").metrics["UAUC"]
    assert gap.upper is not None
    assert gap.upper < 0


def test_the_cf_row_is_the_encoders_own_formula(whole: tuple[StageResult, Path], inputs: Inputs) -> None:
    encoder = Collaborative.load(inputs["collaborative"].file(COLLABORATIVE_NAME))
    for user, item, score in (
        predictions(whole[1]).select("user_index", "item_index", "score_collaborative").iter_rows()
    ):
        assert score == pytest.approx(float(encoder.scores(user)[item]), abs=1e-4)


def test_the_base_row_is_the_plain_base_model(whole: tuple[StageResult, Path], tiny_llama_dir: Path) -> None:
    """The prompt as text through transformers alone: no adapter, no soft token, no engine."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama_dir)
    model = AutoModelForCausalLM.from_pretrained(tiny_llama_dir, dtype=torch.float32).eval()
    yes, no = (tokenizer(word, add_special_tokens=False).input_ids[0] for word in (" Yes", " No"))
    line = predictions(whole[1]).row(0, named=True)
    mine = block_world.table().filter(pl.col("user_index") == line["user_index"], pl.col("split") != "test")
    past = mine.sort("position").tail(HISTORY)
    entries = tuple(HistoryEntry(text_of(item), liked) for item, liked in past["item_index", "liked"].iter_rows())
    template = PromptTemplate()
    segments = (
        *render_prefix(template, entries, soft=False),
        *render_suffix(template, text_of(line["item_index"]), soft=False),
    )
    text = "".join(piece.text for piece in segments if isinstance(piece, Text))
    with torch.no_grad():
        logits = model(torch.tensor([tokenizer(text, add_special_tokens=False).input_ids])).logits[0, -1]
    assert line["score_base"] == pytest.approx(float(logits[yes] - logits[no]), abs=1e-4)


def text_of(item: int) -> ItemText:
    return ItemText(item, title(item), (("red", "green", "blue")[item % 3],))


def test_the_fused_score_is_the_routed_adapters(whole: tuple[StageResult, Path]) -> None:
    table = predictions(whole[1])
    branches = set(table["branch"])
    assert {"OneHot", "Fused", "ColdStart"} <= branches, "the world must exercise every branch that this test is about"
    for line in table.iter_rows(named=True):
        slot = int(np.argmax(line["gates"]))
        if max(line["gates"]) == 1.0:
            alone = "score_general" if slot == 3 else f"score_expert-{slot}"
            assert line["score_fused"] == line[alone] == line["score_peft-linear"]
        else:
            assert line["score_fused"] != line["score_peft-linear"]
            assert line["score_one-hot"] == line[f"score_expert-{slot}"]
    cold = table.filter(pl.col("user_index") == COLD_USER)
    assert set(cold["branch"]) == {"ColdStart"}
    assert (cold["score_one-hot"] == cold["score_general"]).all()


def test_warm_and_cold_rows_are_also_apart(whole: tuple[StageResult, Path]) -> None:
    everything, warm, cold = read(whole[1]).slices
    assert [part.name for part in (everything, warm, cold)] == ["all", "warm", "cold"]
    assert warm.test_rows + cold.test_rows == everything.test_rows
    assert cold.users == 1


def test_no_score_depends_on_a_test_label(whole: tuple[StageResult, Path], inputs: Inputs, tmp_path: Path) -> None:
    """The bundle's own histories hold test rows; the evaluation must not use them."""
    flipped = block_world.table().with_columns(
        liked=pl.when(pl.col("split") == "test").then(~pl.col("liked")).otherwise(pl.col("liked"))
    )
    other = {**inputs, "dataset": write_block_world(tmp_path / "flipped", rows=flipped)}
    evaluate(tmp_path / "output", other, max_users=None, sampled_explanations=0)
    before, after = predictions(whole[1]), predictions(tmp_path / "output")
    assert (before["liked"] != after["liked"]).all()
    for column in MODEL_SCORES:
        assert before[column].equals(after[column]), column
    assert read(tmp_path / "output").text.explanations == 0


def test_explanations_come_with_all_that_is_needed_to_judge_them(whole: tuple[StageResult, Path]) -> None:
    found = ExplanationFile.from_json((whole[1] / "explanations.json").read_bytes()).explanations
    assert len(found) == 3
    truth = {(f"u{u}", f"i{i}"): y for u, i, y in block_world.table()["user_index", "item_index", "liked"].iter_rows()}
    table = predictions(whole[1])
    for one in found:
        assert one.liked == truth[one.user_id, one.item_id]
        assert len(one.history) == (0 if one.user_id == f"u{COLD_USER}" else HISTORY)
        assert all(line.liked == truth[one.user_id, line.item_id] for line in one.history)
        assert one.decision == ("Yes" if one.score > 0 else "No")
        assert one.text.startswith(one.decision)
        row = table.filter(pl.col("user_index") == int(one.user_id[1:]), pl.col("item_index") == int(one.item_id[1:]))
        assert one.score == pytest.approx(row["score_fused"].item(), abs=1e-4)


def test_gates_find_their_numbers_in_a_small_message(whole: tuple[StageResult, Path]) -> None:
    metrics = whole[0].metrics
    for name in ("auc", "uauc", "ndcg@5", "map@5"):
        assert metrics[f"{name}_lower"] <= metrics[name] <= metrics[f"{name}_upper"]
        assert f"collaborative_{name}" in metrics
    assert len(json.dumps(dict(metrics))) < 3000


def test_an_interrupted_evaluation_continues_to_the_same_bytes(inputs: Inputs, tmp_path: Path) -> None:
    evaluate(tmp_path / "straight", inputs)
    checkpoints = MemoryCheckpoints(tmp_path / "checkpoints", interrupt_at=4)
    with pytest.raises(Interrupted):
        evaluate(tmp_path / "first", inputs, checkpoint=checkpoints)
    assert checkpoints.saves == 1
    checkpoints.interrupt_at = None
    evaluate(tmp_path / "second", inputs, checkpoint=checkpoints)
    for name in ("metrics.json", "predictions.parquet", "explanations.json", "report/index.html"):
        assert (tmp_path / "second" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes(), name


@dataclass
class InterruptingProgress(ProgressList):
    """Asks to stop as soon as a message is shown, as a signal at that moment would."""

    checkpoints: MemoryCheckpoints | None = None
    at: str = ""

    def update(self, step: int, total: int, message: str = "", metrics: Mapping[str, float] | None = None) -> None:
        super().update(step, total, message, metrics)
        if self.checkpoints is not None and message == self.at:
            self.checkpoints.interrupt_at = 0


def test_interrupted_after_scoring_the_scores_are_kept(inputs: Inputs, tmp_path: Path) -> None:
    """Stopped in the serving revision's pass, it ends there; the next attempt scores nothing again."""
    both = {**inputs, "serving": inputs["bundle"]}
    settings = {"ablations": (), "max_users": 3, "sampled_explanations": 0, "bootstrap_samples": 20}
    checkpoints = MemoryCheckpoints(tmp_path / "checkpoints")
    progress = InterruptingProgress(checkpoints=checkpoints, at="scoring with the serving revision")
    parameters = EvaluateParameters.model_validate(settings)
    with pytest.raises(Interrupted):
        run(replace(stage_context(tmp_path / "first", parameters, both, checkpoint=checkpoints), progress=progress))
    assert list((tmp_path / "first").iterdir()) == []
    assert progress.updates[-1][:2] == (1, 3), "one user, not all three"
    checkpoints.interrupt_at = None
    again = stage_context(tmp_path / "second", parameters, both, checkpoint=checkpoints)
    run(again)
    assert isinstance(again.progress, ProgressList)
    step, total, _ = again.progress.updates[0]
    assert step == total > 3
    assert predictions(tmp_path / "second")["user_index"].n_unique() == 3


def test_the_serving_revision_that_is_the_same_differs_by_nothing(inputs: Inputs, tmp_path: Path) -> None:
    result = evaluate(tmp_path / "output", {**inputs, "serving": inputs["bundle"]}, ablations=())
    gap = next(d for d in read(tmp_path / "output").all_rows.differences if d.other == "serving").metrics["AUC"]
    assert gap.value == pytest.approx(0.0, abs=1e-6)
    assert result.metrics["serving_uauc"] == pytest.approx(result.metrics["uauc"], abs=1e-6)


def test_items_that_the_serving_revision_lacks_are_counted(inputs: Inputs, tmp_path: Path) -> None:
    folder = tmp_path / "old"
    shutil.copytree(inputs["bundle"].path, folder)
    items = pl.read_parquet(folder / "items.parquet")
    renamed = pl.when(pl.col("item_index") < 20).then(pl.format("gone{}", "item_index")).otherwise(pl.col("item_id"))
    items.with_columns(item_id=renamed).write_parquet(folder / "items.parquet")
    evaluate(tmp_path / "output", {**inputs, "serving": seal(folder, inputs["bundle"].manifest.kind)}, ablations=())
    row = read(tmp_path / "output").all_rows.row("serving")
    table = predictions(tmp_path / "output")
    unknown = table.filter(pl.col("item_index") < 20).height
    assert row is not None
    assert row.note.startswith(f"{unknown} of {table.height} rows")


def test_traces_add_rouge(inputs: Inputs, tmp_path: Path) -> None:
    folder = tmp_path / "traces"
    folder.mkdir()
    rows = block_world.table().filter(pl.col("position") == 8, pl.col("user_index") < 3)
    rows.select(
        "user_index", "item_index", "position", "liked", reason=pl.lit("The user enjoys red films.")
    ).write_parquet(folder / "traces.parquet")
    traces = seal(folder, inputs["dataset"].manifest.kind)
    evaluate(tmp_path / "output", {**inputs, "traces": traces}, ablations=(), max_users=2)
    text = read(tmp_path / "output").text
    assert text.traces == 3
    assert text.rouge_l is not None
    assert 0 <= text.rouge_l <= 1


def test_at_most_so_many_users_and_rows(inputs: Inputs, tmp_path: Path) -> None:
    context = stage_context(
        tmp_path / "output",
        EvaluateParameters(max_users=4, max_rows_per_user=2, bootstrap_samples=50, metrics=("UAUC", "NDCG@10")),
        inputs,
    )
    run(context)
    table = predictions(context.output)
    assert table["user_index"].n_unique() == 4
    earliest = block_world.table().filter(pl.col("split") == "test")["position"].min()
    assert isinstance(earliest, int)
    assert set(table.filter(pl.col("user_index") != COLD_USER)["position"]) <= {earliest, earliest + 1, 31, 32}
    assert metric_names(read(context.output).all_rows) == ["UAUC", "NDCG@10"]
    assert isinstance(context.progress, ProgressList)
    assert context.progress.updates[-1][0] == context.progress.updates[-1][1]


def test_unknown_ablations_are_refused(inputs: Inputs, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"ablations has \['NoGate'\]; known are"):
        evaluate(tmp_path / "output", inputs, ablations=("NoGate",))


def test_a_dataset_without_test_rows_is_refused(inputs: Inputs, tmp_path: Path) -> None:
    rows = block_world.table().filter(pl.col("split") != "test")
    other = {**inputs, "dataset": write_block_world(tmp_path / "dataset", rows=rows)}
    with pytest.raises(BadInput, match="no test rows"):
        evaluate(tmp_path / "output", other)
