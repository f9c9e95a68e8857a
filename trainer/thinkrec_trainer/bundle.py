# SPDX-License-Identifier: Apache-2.0
"""Stage `bundle`: everything one serving revision needs, in one immutable artifact (layout: thinkrec_crds.bundle).

A user's serving history and seen items are everything known, test rows included: a recommendation is made after them.
Offline metrics do not use these histories; the evaluation brings its own, which end before the rows it judges.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from thinkrec_crds.bundle import GOLDEN_NAME, INDEX_NAME, BundleIndex, ExpertEntry
from thinkrec_crds.engine_api import Branch, ScoreRequest
from thinkrec_crds.prompt import PromptTemplate
from thinkrec_crds.stages import BundleParameters, LoraParameters
from thinkrec_inference.engine.bundle import GATE_NAME, ITEMS_NAME, USERS_NAME
from thinkrec_inference.engine.collaborative import COLLABORATIVE_NAME
from thinkrec_inference.engine.digests import model_digest, tokenizer_digest
from thinkrec_inference.engine.engine import Engine
from thinkrec_inference.engine.gate import default_threshold
from thinkrec_inference.engine.gguf import ensure_safetensors
from thinkrec_inference.engine.projector import PROJECTOR_NAME, Projector
from thinkrec_trainer.context import LocalArtifact, StageContext, StageResult
from thinkrec_trainer.cursor import sample_of
from thinkrec_trainer.errors import BadInput
from thinkrec_trainer.fetch import base_model_uri
from thinkrec_trainer.lora import CONFIG_NAME, WEIGHTS_NAME
from thinkrec_trainer.projector import read_collaborative
from thinkrec_trainer.timelines import Timelines, read_catalogue, read_timelines
from thinkrec_trainer.workbench import invalid_as_bad_input

ALL_SPLITS = ("train", "validation", "test")
GOLDEN_ITEMS = 4
"""Candidates of one golden prompt: enough to show an order, few enough to start a pod quickly."""
GOLDEN_CANDIDATES = 512
"""Users routed to find golden prompts for every branch of the gate."""
_EXPERT = re.compile(r"^expert-(\d+)$")


def run(context: StageContext) -> StageResult:
    """Put the bundle together, load it with the serving engine and store the golden scores."""
    given = context.spec.parameters
    assert isinstance(given, BundleParameters)
    base_folder = _base_folder(context, given)
    experts = expert_inputs(context.inputs)
    context.progress.update(0, 3, "copying adapters and tables")
    _copy_parts(context, experts)
    timelines = read_timelines(context.input("dataset"), ALL_SPLITS)
    users = users_table(context.input("dataset"), context.input("gate"), timelines, length=given.history_length)
    users.write_parquet(context.output / USERS_NAME)
    items = items_table(context.input("dataset"), context.input("keywords"))
    items.write_parquet(context.output / ITEMS_NAME)
    with invalid_as_bad_input():
        index = _index(context, given, base_folder, experts, users=users.height, items=items.height)
    (context.output / INDEX_NAME).write_text(index.to_json(indent=1) + "\n")

    context.progress.update(1, 3, "scoring golden prompts with the serving engine")
    compute = context.spec.compute.model_copy(update={"precision": "Float32"})
    with invalid_as_bad_input():
        engine = Engine.load(context.output, base_folder, compute, golden=False)
    requests = golden_requests(engine, count=given.golden_prompts, seed=context.spec.seed)
    golden = engine.make_golden(requests)
    (context.output / GOLDEN_NAME).write_text(golden.to_json(indent=1) + "\n")
    context.progress.update(3, 3)
    return StageResult(
        counts={
            "experts": len(experts),
            "users": users.height,
            "items": items.height,
            "golden_prompts": len(golden.prompts),
        },
        source_digests={"base_model": index.base_model_digest},
        device=engine.scorer.base.model.device.type,
        precision=engine.precision,
    )


def expert_inputs(inputs: Mapping[str, LocalArtifact]) -> dict[str, LocalArtifact]:
    """Return the experts in slot order; raise BadInput for a gap, since the gate's groups have none."""
    numbers = sorted(int(match.group(1)) for name in inputs if (match := _EXPERT.match(name)))
    if not numbers or numbers != list(range(len(numbers))):
        raise BadInput(f"a bundle needs the inputs expert-0, expert-1, … without a gap; it was given {sorted(inputs)}")
    return {f"expert-{number}": inputs[f"expert-{number}"] for number in numbers}


def expert_names(given: BundleParameters, roles: tuple[str, ...]) -> tuple[str, ...]:
    """Return the experts' names as the user reads them, in slot order; raise BadInput when one is missing."""
    names = given.expert_names or roles
    if len(names) != len(roles):
        raise BadInput(f"expertNames names {len(names)} experts, {list(names)}, but the bundle is given {list(roles)}")
    return names


def users_table(dataset: LocalArtifact, gate: LocalArtifact, timelines: Timelines, *, length: int) -> pl.DataFrame:
    """Return users.parquet: history (the newest `length` interactions), all seen items, group (null: no CF vector)."""
    bounds = list(zip(timelines.offsets[:-1].tolist(), timelines.offsets[1:].tolist(), strict=True))
    recent = [(max(start, end - length), end) for start, end in bounds]
    built = pl.DataFrame(
        {
            "user_index": np.arange(timelines.users, dtype=np.int32),
            "history_items": [timelines.items[start:end].tolist() for start, end in recent],
            "history_likes": [timelines.liked[start:end].tolist() for start, end in recent],
            "seen_items": [np.unique(timelines.items[start:end]).tolist() for start, end in bounds],
        },
        schema_overrides={
            "history_items": pl.List(pl.Int32),
            "history_likes": pl.List(pl.Boolean),
            "seen_items": pl.List(pl.Int32),
        },
    )
    names = pl.read_parquet(dataset.file("users.parquet"), columns=["user_index", "user_id"])
    groups = pl.read_parquet(gate.file("assignment.parquet")).select("user_index", "group")
    joined = names.join(groups, on="user_index", how="left").join(built, on="user_index").sort("user_index")
    return joined.select("user_index", "user_id", "group", "history_items", "history_likes", "seen_items")


def items_table(dataset: LocalArtifact, keywords: LocalArtifact) -> pl.DataFrame:
    """Return items.parquet: what the prompt says of each item, with the user's own ids."""
    ids = pl.read_parquet(dataset.file("items.parquet"), columns=["item_index", "item_id"]).sort("item_index")
    catalogue = read_catalogue(dataset, keywords)
    return ids.with_columns(
        pl.Series("title", [item.title for item in catalogue], dtype=pl.String),
        pl.Series("keywords", [list(item.keywords) for item in catalogue], dtype=pl.List(pl.String)),
    )


def golden_requests(engine: Engine, *, count: int, seed: int) -> list[ScoreRequest]:
    """Return requests of `count` users that take turns through the gate's branches and experts.

    A golden set that only ever met one branch would not notice a broken gate.
    """
    names = sample_of(sorted(engine.bundle.users.rows), GOLDEN_CANDIDATES, seed=seed, name="golden-users")
    ids = engine.bundle.item_ids
    queues: dict[tuple[Branch, int], list[ScoreRequest]] = {}
    for name in names:
        chosen = sample_of(ids, GOLDEN_ITEMS, seed=seed, name=f"golden-items/{name}")
        request = ScoreRequest(user_id=name, item_ids=tuple(chosen))
        plan = engine.plan(request)
        queues.setdefault((plan.branch, int(plan.slots.argmax())), []).append(request)
    turns = [queues[key] for key in sorted(queues)]
    longest = max(map(len, turns), default=0)
    dealt = [turn[place] for place in range(longest) for turn in turns if place < len(turn)]
    return dealt[:count]


def lora_parameters(adapter: LocalArtifact) -> LoraParameters:
    """Return the shape of an adapter as its own configuration states it."""
    config = json.loads(adapter.file(CONFIG_NAME).read_text())
    return LoraParameters(
        rank=config["r"],
        alpha=config["lora_alpha"],
        dropout=config["lora_dropout"],
        target_modules=tuple(sorted(config["target_modules"])),
    )


def _base_folder(context: StageContext, given: BundleParameters) -> Path:
    with invalid_as_bad_input():
        return ensure_safetensors(context.fetch(base_model_uri(given.base_model)))


def _copy_parts(context: StageContext, experts: Mapping[str, LocalArtifact]) -> None:
    """Copy what the bundle takes over as it is."""
    for name, artifact in {"general": context.input("adapter"), **experts}.items():
        _copy(artifact, (CONFIG_NAME, WEIGHTS_NAME), context.output / "adapters" / name)
    _copy(context.input("projector"), (PROJECTOR_NAME,), context.output)
    _copy(context.input("collaborative"), (COLLABORATIVE_NAME,), context.output)
    _copy(context.input("gate"), (GATE_NAME,), context.output)


def _copy(artifact: LocalArtifact, names: Sequence[str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copyfile(artifact.file(name), folder / name)


def _index(
    context: StageContext,
    given: BundleParameters,
    base_folder: Path,
    experts: Mapping[str, LocalArtifact],
    *,
    users: int,
    items: int,
) -> BundleIndex:
    threshold = given.hard_route_threshold
    return BundleIndex(
        base_model=given.base_model,
        base_model_digest=model_digest(base_folder),
        tokenizer_digest=tokenizer_digest(base_folder),
        hidden_size=Projector.load(context.input("projector").file(PROJECTOR_NAME)).fc2.out_features,
        collaborative_dimension=read_collaborative(context.input("collaborative")).dimension,
        lora=lora_parameters(context.input("adapter")),
        experts=tuple(
            ExpertEntry(name=shown, path=f"adapters/{name}", users=artifact.manifest.counts.get("users", 0))
            for shown, (name, artifact) in zip(expert_names(given, tuple(experts)), experts.items(), strict=True)
        ),
        temperature=given.temperature,
        hard_route_threshold=default_threshold(len(experts)) if threshold is None else threshold,
        fusion=given.fusion,
        score=given.score,
        history_length=given.history_length,
        prompt=PromptTemplate(),
        users=users,
        items=items,
        inputs={name: artifact.digest for name, artifact in context.inputs.items()},
    )
