# SPDX-License-Identifier: Apache-2.0
"""The traces stage end to end: a real (tiny) base model finds its errors, a teacher behind HTTP explains them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from support.chat_endpoint import Endpoint, Reply, answered, serving
from support.llm_stages import (
    MemoryCheckpoints,
    basic_artifacts,
    interactions,
    liked,
    seal,
    stage_context,
    title,
)
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_crds.stages import BaseModelRef, TeacherParameters, TracesParameters
from thinkrec_trainer import traces
from thinkrec_trainer.adapter import trace_blocks
from thinkrec_trainer.context import LocalArtifact, StageContext
from thinkrec_trainer.errors import Interrupted
from thinkrec_trainer.timelines import read_timelines
from thinkrec_trainer.traces.filters import Why

YES, NO = "Yes. The user enjoys stories of this kind.", "No. The user avoids stories of this kind."


def follows_hints(number: int, body: dict[str, Any]) -> Reply:
    """A teacher that likes everything until it is told otherwise."""
    return answered(NO if 'begin with "no."' in body["messages"][-1]["content"].lower() else YES)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """A teacher that follows hints."""
    with serving() as served:
        served.script = follows_hints
        yield served


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LocalArtifact]:
    """Dataset and keywords."""
    made = basic_artifacts(tmp_path_factory.mktemp("artifacts"))
    return {name: made[name] for name in ("dataset", "keywords")}


def context(
    artifacts: dict[str, LocalArtifact],
    base: Path,
    output: Path,
    teacher: TeacherParameters,
    *,
    max_samples: int = 100,
    checkpoint: MemoryCheckpoints | None = None,
) -> StageContext:
    """A stage with a pool of forty samples."""
    parameters = TracesParameters(
        base_model=BaseModelRef(storage_uri=str(base)),
        teacher=teacher,
        pool_size=40,
        max_samples=max_samples,
        history_length=4,
    )
    return stage_context(output, parameters, artifacts, checkpoint=checkpoint)


def openai(endpoint: Endpoint, **settings: Any) -> TeacherParameters:
    """The endpoint as a teacher."""
    return TeacherParameters(type="OpenAI", base_url=endpoint.url, model="m", **settings)


def test_wrong_samples_become_traces_with_the_right_answer(
    artifacts: dict[str, LocalArtifact], tiny_llama_dir: Path, tmp_path: Path, endpoint: Endpoint
) -> None:
    """Likes at once, dislikes after one hint; every row is a train row with its own label."""
    stage = context(artifacts, tiny_llama_dir, tmp_path / "out", openai(endpoint))
    result = traces.run(stage)
    table = pl.read_parquet(stage.output / "traces.parquet")
    assert result.counts["pool"] == 40
    assert 0 < result.counts["wrong"] == result.counts["asked"] == result.counts["kept"] == table.height
    assert table["liked"].to_list() == [liked(item) for item in table["item_index"]]
    assert table["decision"].to_list() == ["Yes" if value else "No" for value in table["liked"]]
    assert table["rounds"].to_list() == [1 if value else 2 for value in table["liked"]]
    assert {True, False} == set(table["liked"].to_list())
    for row in table.iter_rows(named=True):
        assert interactions(row["user_index"])[row["position"]] == row["item_index"]
        assert row["history_end"] <= row["position"]
    assert pl.read_parquet(stage.output / "rejected.parquet").height == 0
    assert result.counts["requests"] == len(endpoint.bodies) == sum(table["rounds"]) + 2 * table.height
    assert result.counts["prompt_tokens"] == 7 * len(endpoint.bodies)


def test_the_adapter_reads_what_traces_writes(
    artifacts: dict[str, LocalArtifact], tiny_llama_dir: Path, tmp_path: Path, endpoint: Endpoint
) -> None:
    """Each trace keeps the history that its teacher was shown."""
    stage = context(artifacts, tiny_llama_dir, tmp_path / "out", openai(endpoint))
    kept = traces.run(stage).counts["kept"]
    timelines = read_timelines(artifacts["dataset"])
    blocks = trace_blocks(timelines, seal(stage.output, StageKind.TRACES), history_length=4)
    assert sum(len(block.targets) for block in blocks) == kept
    first = blocks[0]
    shown = endpoint.bodies
    titles = [title(row.item_index) for row in first.history]
    assert any(all(name in body["messages"][1]["content"] for name in titles) for body in shown)


def test_it_stops_when_enough_is_kept(
    artifacts: dict[str, LocalArtifact], tiny_llama_dir: Path, tmp_path: Path, endpoint: Endpoint
) -> None:
    """Three are wanted, so three are asked: answers cost money."""
    result = traces.run(context(artifacts, tiny_llama_dir, tmp_path / "out", openai(endpoint), max_samples=3))
    assert (result.counts["asked"], result.counts["kept"]) == (3, 3)


def test_every_asked_sample_is_kept_or_rejected_for_a_reason(
    artifacts: dict[str, LocalArtifact], tiny_llama_dir: Path, tmp_path: Path, endpoint: Endpoint
) -> None:
    """A teacher that never changes its mind loses the disliked half; the table says why."""
    endpoint.script = lambda number, body: answered(YES)
    stage = context(artifacts, tiny_llama_dir, tmp_path / "out", openai(endpoint))
    counts = traces.run(stage).counts
    rejected = pl.read_parquet(stage.output / "rejected.parquet")
    assert counts["kept"] + rejected.height == counts["asked"]
    assert rejected.height == counts["rejected_never_agrees"] > 0
    assert set(rejected["why"]) == {"never_agrees"}
    assert not rejected["liked"].any()


def test_an_interrupted_stage_asks_no_finished_sample_again(
    artifacts: dict[str, LocalArtifact], tiny_llama_dir: Path, tmp_path: Path, endpoint: Endpoint
) -> None:
    """A signal after the first chunk: together the two attempts ask what one attempt asks, and write the same."""
    endpoint.script = lambda number, body: answered(YES)
    teacher = openai(endpoint, max_rounds=1)
    straight = context(artifacts, tiny_llama_dir, tmp_path / "straight", teacher, max_samples=7)
    expected = traces.run(straight).counts
    asked = len(endpoint.bodies)
    checkpoints = MemoryCheckpoints(tmp_path / "checkpoints", interrupt_at=2)
    first = context(artifacts, tiny_llama_dir, tmp_path / "a", teacher, max_samples=7, checkpoint=checkpoints)
    with pytest.raises(Interrupted):
        traces.run(first)
    assert checkpoints.saves == 1
    checkpoints.interrupt_at = None
    second = context(artifacts, tiny_llama_dir, tmp_path / "b", teacher, max_samples=7, checkpoint=checkpoints)
    assert traces.run(second).counts == expected
    assert len(endpoint.bodies) == 2 * asked
    for name in ("traces.parquet", "rejected.parquet"):
        assert pl.read_parquet(second.output / name).equals(pl.read_parquet(straight.output / name))


def test_the_base_model_as_its_own_teacher_may_keep_nothing(
    artifacts: dict[str, LocalArtifact], tiny_llama_dir: Path, tmp_path: Path
) -> None:
    """A random model never writes Yes or No first: empty tables with their columns, and counts that say why."""
    teacher = TeacherParameters(type="Self", max_tokens=8, max_rounds=2)
    stage = context(artifacts, tiny_llama_dir, tmp_path / "out", teacher)
    counts = traces.run(stage).counts
    assert counts["kept"] == 0
    assert sum(counts[f"rejected_{why.value}"] for why in Why) == counts["asked"] == counts["wrong"]
    assert counts["completion_tokens"] > 0
    assert (
        trace_blocks(read_timelines(artifacts["dataset"]), seal(stage.output, StageKind.TRACES), history_length=4) == []
    )
