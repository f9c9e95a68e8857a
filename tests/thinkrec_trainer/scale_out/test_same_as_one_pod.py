# SPDX-License-Identifier: Apache-2.0
"""Three pods publish the bytes that one pod publishes, for every stage that may be shared out."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from support.chat_endpoint import Endpoint, Reply, answered, serving
from support.evaluated_world import Inputs, build
from support.llm_stages import basic_artifacts, seal, stage_context
from support.shares import in_shares, same_files
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_crds.stages import (
    BaseModelRef,
    EvaluateParameters,
    KeywordsParameters,
    TeacherParameters,
    TracesParameters,
)
from thinkrec_trainer import evaluate, keywords, traces
from thinkrec_trainer.context import LocalArtifact, StageContext

PODS = 3


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """A teacher whose answer is a function of the question."""

    def script(number: int, body: dict[str, Any]) -> Reply:
        asked = body["messages"][-1]["content"]
        if asked.startswith("Title: "):
            return answered(f"about {asked.splitlines()[0].removeprefix('Title: ')}, tag")
        no = 'begin with "no."' in asked.lower()
        return answered("No. The user avoids stories of this kind." if no else "Yes. The user enjoys such stories.")

    with serving() as served:
        served.script = script
        yield served


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LocalArtifact]:
    return basic_artifacts(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture
def catalogue(tmp_path: Path) -> dict[str, LocalArtifact]:
    """Forty items; some are equal, so that one answer serves several."""
    folder = tmp_path / "dataset"
    folder.mkdir()
    rows = [(index, f"digest {index % 33}", f"Film {index % 33}", ["drama", "war"][: index % 3]) for index in range(40)]
    schema = {"item_index": pl.Int32, "digest": pl.String, "title": pl.String, "attributes": pl.List(pl.String)}
    pl.DataFrame(rows, schema=schema, orient="row").write_parquet(folder / "items.parquet")
    return {"dataset": seal(folder, StageKind.DATASET)}


def teacher(endpoint: Endpoint, **settings: Any) -> TeacherParameters:
    return TeacherParameters(type="OpenAI", base_url=endpoint.url, model="m", **settings)


@pytest.mark.parametrize("source", ["Attributes", "None", "LLM"])
def test_keywords(catalogue: dict[str, LocalArtifact], tmp_path: Path, endpoint: Endpoint, source: str) -> None:
    parameters = KeywordsParameters.model_validate({"source": source, "teacher": teacher(endpoint)})

    def context(output: Path) -> StageContext:
        made = stage_context(output, parameters, catalogue)
        place = f"{(tmp_path / output.parent.name / 'store').as_uri()}/keywords/{made.spec.key}"
        object.__setattr__(made, "spec", made.spec.model_copy(update={"output_uri": place}))  # else one cache for both
        return made

    one = context(tmp_path / "one" / "output")
    expected = keywords.run(one)
    (tmp_path / "many").mkdir()
    found, output = in_shares(keywords, PODS, tmp_path / "many", context)
    same_files(one.output, output)
    assert found == expected
    assert len(endpoint.bodies) == (2 * 33 if source == "LLM" else 0), "each item is asked for once"


def traces_parameters(base: Path, endpoint: Endpoint, *, max_samples: int) -> TracesParameters:
    return TracesParameters(
        base_model=BaseModelRef(storage_uri=str(base)),
        teacher=teacher(endpoint, max_concurrency=1),
        pool_size=80,
        max_samples=max_samples,
        history_length=4,
    )


@pytest.mark.parametrize(("max_samples", "order"), [(2, -1), (7, 1), (7, -1), (1000, 1)])
def test_traces(
    artifacts: dict[str, LocalArtifact],
    tiny_llama_dir: Path,
    tmp_path: Path,
    endpoint: Endpoint,
    max_samples: int,
    order: int,
) -> None:
    """Whoever comes first: chunks that turn out to be beyond the wanted number are left out."""
    parameters = traces_parameters(tiny_llama_dir, endpoint, max_samples=max_samples)
    inputs = {name: artifacts[name] for name in ("dataset", "keywords")}

    def context(output: Path) -> StageContext:
        return stage_context(output, parameters, inputs)

    one = context(tmp_path / "one")
    expected = traces.run(one)
    found, output = in_shares(traces, PODS, tmp_path / "many", context, order=order)
    same_files(one.output, output)
    costs = ("requests", "retries", "prompt_tokens", "completion_tokens")
    assert {k: v for k, v in found.counts.items() if k not in costs} == {
        k: v for k, v in expected.counts.items() if k not in costs
    }
    assert found.counts["requests"] == len(endpoint.bodies) - expected.counts["requests"], "every answer was paid for"
    assert found.source_digests == expected.source_digests


def test_a_killed_pod_asks_no_finished_chunk_again(
    artifacts: dict[str, LocalArtifact], tiny_llama_dir: Path, tmp_path: Path, endpoint: Endpoint
) -> None:
    """Its notes outlive it: a second attempt of every pod asks nothing."""
    parameters = traces_parameters(tiny_llama_dir, endpoint, max_samples=7)
    inputs = {name: artifacts[name] for name in ("dataset", "keywords")}
    first, output = in_shares(traces, 2, tmp_path / "many", lambda path: stage_context(path, parameters, inputs))
    asked = len(endpoint.bodies)
    for place in (tmp_path / "many").glob("[pw]*"):
        place.rename(tmp_path / f"old-{place.name}")
    again, output = in_shares(traces, 2, tmp_path / "many", lambda path: stage_context(path, parameters, inputs))
    same_files(tmp_path / "old-whole", output)
    assert again.counts == first.counts
    assert len(endpoint.bodies) == asked


@pytest.fixture(scope="module")
def world(tiny_llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    made = build(tmp_path_factory.mktemp("evaluated"), tiny_llama_dir)
    return made | {"serving": made["bundle"]}


def test_evaluate(world: Inputs, tmp_path: Path) -> None:
    """Every number and text; the page too."""
    parameters = EvaluateParameters(bootstrap_samples=50, sampled_explanations=2, max_users=10)

    def context(output: Path) -> StageContext:
        return stage_context(output, parameters, world)

    one = context(tmp_path / "one")
    expected = evaluate.run(one)
    found, output = in_shares(evaluate, PODS, tmp_path / "many", context)
    same_files(one.output, output)
    assert found == expected


def test_more_pods_than_work(world: Inputs, catalogue: dict[str, LocalArtifact], tmp_path: Path) -> None:
    """A pod without a share publishes an empty one."""
    parameters = KeywordsParameters()
    one = stage_context(tmp_path / "one", parameters, catalogue)
    keywords.run(one)
    _, output = in_shares(keywords, 60, tmp_path / "many", lambda path: stage_context(path, parameters, catalogue))
    same_files(one.output, output)
    few = EvaluateParameters(bootstrap_samples=5, sampled_explanations=0, max_users=2, ablations=())
    shutil.rmtree(tmp_path / "many")
    alone = stage_context(tmp_path / "alone", few, world)
    evaluate.run(alone)
    _, output = in_shares(evaluate, 4, tmp_path / "many", lambda path: stage_context(path, few, world))
    same_files(alone.output, output)
