# SPDX-License-Identifier: Apache-2.0
"""The keywords stage: its sources, its cache across runs, interruption, and the real model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from support.chat_endpoint import Endpoint, answered, failed, serving
from support.stages import as_artifact, make_context, make_spec
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_crds.stages import (
    BaseModelRef,
    DatasetParameters,
    InputRef,
    ItemColumns,
    ItemSource,
    KeywordsParameters,
    TeacherParameters,
)
from thinkrec_trainer import dataset
from thinkrec_trainer.context import LocalArtifact
from thinkrec_trainer.errors import BadInput
from thinkrec_trainer.keywords import run
from thinkrec_trainer.keywords.asking import CHUNK_ITEMS
from thinkrec_trainer.protocol import run_stage
from thinkrec_trainer.store import open_blobs, read_manifest

Titles = Sequence[tuple[str, str]]
THREE: Titles = [("Heat", "Crime|crime|Thriller"), ("Alien", "Horror"), ("Blank", "")]


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """Answers "first word of the title, tag"."""

    def script(number: int, body: dict[str, Any]) -> Any:
        title = body["messages"][-1]["content"].splitlines()[0].removeprefix("Title: ")
        return answered(f"about {title}, must-see, tag")

    with serving() as served:
        served.script = script
        yield served


def dataset_parameters(folder: Path, items: Titles) -> DatasetParameters:
    folder.mkdir(parents=True, exist_ok=True)
    rows = "".join(f"i{n:04d},{title},{attributes}\n" for n, (title, attributes) in enumerate(items))
    (folder / "items.csv").write_text("item_id,title,genres\n" + rows)
    (folder / "ratings.csv").write_text("user_id,item_id,rating,timestamp\nu,i0000,5,1\n")
    source = ItemSource(
        storage_uri=str(folder / "items.csv"), format="CSV", columns=ItemColumns(attributes=("genres",))
    )
    return DatasetParameters(storage_uri=str(folder / "ratings.csv"), revision="1", format="CSV", items=source)


def dataset_artifact(folder: Path, items: Titles) -> LocalArtifact:
    context = make_context(dataset_parameters(folder, items), folder)
    return as_artifact(context, dataset.run(context))


def run_keywords(folder: Path, parameters: KeywordsParameters, items: Titles) -> tuple[dict[str, int], list[list[str]]]:
    """Run on `items`; runs with the same parent folder share a store."""
    inputs = {"dataset": dataset_artifact(folder / "dataset", items)}
    context = make_context(parameters, folder, inputs=inputs)
    shared = make_spec(parameters, folder.parent / "store")
    object.__setattr__(context, "spec", shared)
    counts = dict(run(context).counts)
    return counts, pl.read_parquet(context.output / "keywords.parquet")["keywords"].to_list()


def openai(endpoint: Endpoint, **fields: Any) -> KeywordsParameters:
    teacher = TeacherParameters(type="OpenAI", base_url=endpoint.url, model="m")
    return KeywordsParameters(source="LLM", teacher=teacher, **fields)


def test_attributes_cost_nothing(tmp_path: Path) -> None:
    counts, keywords = run_keywords(tmp_path / "a", KeywordsParameters(max_keywords=2), THREE)
    assert keywords == [["Crime", "Thriller"], ["Horror"], []]
    assert counts == {
        "items": 3,
        "empty": 1,
        "cached": 0,
        "generated": 0,
        "prompt_tokens": 0,
        "completion_tokens": 0,
    }


def test_none_is_empty(tmp_path: Path) -> None:
    assert run_keywords(tmp_path / "a", KeywordsParameters(source="None"), THREE)[1] == [[], [], []]


def test_rows_follow_the_items_of_the_data_set(tmp_path: Path) -> None:
    artifact = dataset_artifact(tmp_path / "d", THREE)
    context = make_context(KeywordsParameters(), tmp_path / "k", inputs={"dataset": artifact})
    run(context)
    items = pl.read_parquet(artifact.path / "items.parquet").select("item_index", "digest")
    assert pl.read_parquet(context.output / "keywords.parquet").select("item_index", "digest").equals(items)


def test_teacher_is_asked_and_cleaned(tmp_path: Path, endpoint: Endpoint) -> None:
    counts, keywords = run_keywords(tmp_path / "a", openai(endpoint), THREE)
    assert keywords == [["about Heat", "tag"], ["about Alien", "tag"], ["about Blank", "tag"]]
    assert (counts["generated"], counts["cached"]) == (3, 0)
    assert (counts["prompt_tokens"], counts["completion_tokens"]) == (21, 9)
    assert endpoint.bodies[0]["max_tokens"] == 32


def test_a_catalogue_update_pays_for_new_items_only(tmp_path: Path, endpoint: Endpoint) -> None:
    """A renamed and a new item are asked for; the two old ones come from the cache."""
    run_keywords(tmp_path / "a", openai(endpoint), THREE)
    asked = len(endpoint.bodies)
    counts, keywords = run_keywords(tmp_path / "b", openai(endpoint), [*THREE[:2], ("Renamed", ""), ("New", "")])
    assert (counts["cached"], counts["generated"]) == (2, 2)
    assert len(endpoint.bodies) == asked + 2
    assert keywords[0] == ["about Heat", "tag"]
    assert keywords[2] == ["about Renamed", "tag"]


def test_another_way_of_asking_has_another_cache(tmp_path: Path, endpoint: Endpoint) -> None:
    run_keywords(tmp_path / "a", openai(endpoint), THREE)
    counts, _ = run_keywords(tmp_path / "b", openai(endpoint, max_keywords=1), THREE)
    assert counts["cached"] == 0


def test_equal_items_are_asked_for_once(tmp_path: Path, endpoint: Endpoint) -> None:
    counts, keywords = run_keywords(tmp_path / "a", openai(endpoint), [("Same", "x"), ("Same", "x"), ("Same", "y")])
    assert counts["generated"] == len(endpoint.bodies) == 2
    assert keywords[0] == keywords[1]


def test_useless_and_refused_answers_fall_back_to_attributes(tmp_path: Path, endpoint: Endpoint) -> None:
    def script(number: int, body: dict[str, Any]) -> Any:
        title = body["messages"][-1]["content"]
        if "Heat" in title:
            return answered("best movie, must-see")
        return failed(400, "filtered") if "Alien" in title else answered("fine")

    endpoint.script = script
    counts, keywords = run_keywords(tmp_path / "a", openai(endpoint), THREE)
    assert keywords == [["Crime", "Thriller"], ["Horror"], ["fine"]]
    assert (counts["fallbacks"], counts["refused"]) == (2, 1)
    again, _ = run_keywords(tmp_path / "b", openai(endpoint), THREE)
    assert (again["cached"], again["generated"]) == (2, 1), "a refusal is asked for again"


def test_damaged_cache_part_is_made_again(tmp_path: Path, endpoint: Endpoint) -> None:
    run_keywords(tmp_path / "a", openai(endpoint), THREE)
    (part,) = (tmp_path / "store" / ".cache").rglob("*.parquet")
    part.write_bytes(b"PAR1 broken")
    counts, keywords = run_keywords(tmp_path / "b", openai(endpoint), THREE)
    assert counts["generated"] == 3
    assert keywords[0] == ["about Heat", "tag"]


def test_repeated_examples_are_dropped(tmp_path: Path, endpoint: Endpoint) -> None:
    """What a small model copies from the prompt's examples is no keyword, unless the item itself says so."""
    endpoint.script = lambda number, body: answered("orphan, Mars, pigs")
    _, keywords = run_keywords(tmp_path / "a", openai(endpoint), [("Babe", ""), ("Mars Attacks", "")])
    assert keywords == [["pigs"], ["Mars", "pigs"]]


def test_missing_teacher(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"set spec\.teacher"):
        run_keywords(tmp_path / "a", KeywordsParameters(source="LLM"), THREE)


def test_self_without_base_model(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"set spec\.baseModel"):
        run_keywords(tmp_path / "a", KeywordsParameters(source="LLM", teacher=TeacherParameters()), THREE)


def test_real_base_model_writes_keywords(tmp_path: Path, smollm2_dir: Path) -> None:
    """Two items, then both from the cache; the words are the model's own, so only their form is known."""
    base = BaseModelRef(storage_uri=str(smollm2_dir))
    teacher = TeacherParameters(max_tokens=12)
    parameters = KeywordsParameters(source="LLM", teacher=teacher, base_model=base, max_keywords=5)
    items = [("Star Wars", "Action|Sci-Fi"), ("Snow White", "Children's")]
    counts, keywords = run_keywords(tmp_path / "a", parameters, items)
    assert counts["generated"] == 2
    assert counts["completion_tokens"] > 2
    assert all(1 <= len(words) <= 5 for words in keywords)
    again, same = run_keywords(tmp_path / "b", parameters, items)
    assert (again["cached"], again["generated"]) == (2, 0)
    assert same == keywords


def test_sigterm_saves_finished_chunks_and_the_next_run_continues(tmp_path: Path, endpoint: Endpoint) -> None:
    """The signal comes during the second chunk: exit 143, and the rerun asks only for what is left."""
    total = 2 * CHUNK_ITEMS + 1
    parameters = dataset_parameters(tmp_path / "data", [(f"Title {n}", "") for n in range(total)])
    source = make_spec(parameters, tmp_path / "store")
    stage = tmp_path / "stage.json"
    stage.write_text(source.to_json())
    assert run_stage(stage) == 0
    published = read_manifest(open_blobs(source.output_uri))
    assert published is not None
    ref = InputRef(
        name="dataset", kind=StageKind.DATASET, key=source.key, uri=source.output_uri, digest=published.digest
    )
    spec = make_spec(openai(endpoint), tmp_path / "store").model_copy(update={"inputs": (ref,)})
    stage.write_text(spec.to_json())
    endpoint.delay = 0.05
    environment = {**os.environ, "THINKREC_TERMINATION_PATH": str(tmp_path / "t"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "thinkrec_trainer", "run", str(stage)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while len(endpoint.bodies) <= CHUNK_ITEMS and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    asked = len(endpoint.bodies)
    assert CHUNK_ITEMS < asked < total
    assert "stopped by a signal" in (tmp_path / "t").read_text()
    endpoint.delay = 0.0
    assert run_stage(stage) == 0
    assert len(endpoint.bodies) == total, "no item was asked for twice"
