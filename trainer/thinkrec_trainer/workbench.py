# SPDX-License-Identifier: Apache-2.0
"""What the language-model stages set up alike: base model, prompts, timelines, decks of blocks, validation."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from thinkrec_crds.prompt import PromptTemplate
from thinkrec_crds.stages import AdapterParameters, BaseModelRef, ExpertParameters, LoopParameters, ProjectorParameters
from thinkrec_inference.engine.base_model import BaseModel, load_base
from thinkrec_inference.engine.device import Device, resolve, set_threads
from thinkrec_inference.engine.errors import BaseModelError, BundleError
from thinkrec_inference.engine.tokens import PromptEncoder, seam_sample
from thinkrec_trainer.blocks import Block, PackedBlock
from thinkrec_trainer.context import LocalArtifact, StageContext, StageResult
from thinkrec_trainer.cursor import Cursor
from thinkrec_trainer.errors import BadInput
from thinkrec_trainer.fetch import base_model_uri
from thinkrec_trainer.loop import Trained, optimiser_steps
from thinkrec_trainer.samples import Packer, Weights, indexed_block, validation_blocks, validation_users
from thinkrec_trainer.timelines import BlockIndex, Ints, Timelines, index_blocks, read_catalogue, read_timelines
from thinkrec_trainer.validation import Validator

Parameters = AdapterParameters | ProjectorParameters | ExpertParameters
CURVE_NAME = "curve.json"
LEAST_VALIDATION_USERS = 4


@dataclass(frozen=True, slots=True)
class Workbench:
    """One stage's model and data."""

    base: BaseModel
    device: Device
    timelines: Timelines
    packer: Packer
    history_length: int

    @classmethod
    def open(cls, context: StageContext, reference: BaseModelRef, *, history_length: int, soft: bool) -> Workbench:
        """Load the base model and the data of a stage; raise BadInput when the model cannot be used."""
        base, device = open_base(context, reference)
        dataset = context.input("dataset")
        timelines = read_timelines(dataset)
        catalogue = read_catalogue(dataset, context.input("keywords"))
        encoder = PromptEncoder(base.tokenizer, PromptTemplate(), catalogue, users=timelines.users)
        with invalid_as_bad_input():
            encoder.assert_seam(seam_sample(len(catalogue)), soft=soft)
        packer = Packer(encoder, base, soft=soft, warm=warm_users(dataset))
        return cls(base, device, timelines, packer, history_length)

    def block(self, index: BlockIndex, number: int) -> Block:
        """Return one block of an index."""
        return indexed_block(self.timelines, index, number, history_length=self.history_length)

    def index(self, users: Ints, size: int) -> BlockIndex:
        """Return the train blocks of some users."""
        return index_blocks(self.timelines, users, size=size, history_length=self.history_length)

    def all_users(self) -> Ints:
        """Return every user index."""
        return np.arange(self.timelines.users)

    def drawer(
        self, index: BlockIndex, weights: Weights, *, blocks_per_step: int
    ) -> Callable[[Cursor], Sequence[PackedBlock]]:
        """Return the function that draws a step's blocks from the deck "plain"."""

        def draw(cursor: Cursor) -> list[PackedBlock]:
            numbers = cursor.deck("plain", len(index)).draw(blocks_per_step)
            return [self.packer.pack(self.block(index, number), weights) for number in numbers]

        return draw

    def validator(self, users: Ints, settings: LoopParameters, *, blocks: int, seed: int) -> Validator:
        """Return the validation of a run over `users` whose epoch has `blocks` blocks."""
        count = validation_count(settings, blocks)
        chosen = validation_users(self.timelines, users, count=count, seed=seed)
        made = validation_blocks(
            self.timelines, chosen, size=settings.history_block, history_length=self.history_length
        )
        score_only = Weights(1.0, 0.0)
        return Validator([(user, self.packer.pack(block, score_only)) for user, parts in made for block in parts])

    def result(self, trained: Trained, counts: dict[str, int]) -> StageResult:
        """Return what a training stage reports."""
        return StageResult(
            metrics=trained.metrics,
            counts={"steps": trained.steps, "samples": trained.samples, **counts},
            source_digests={"base_model": self.base.digest},
            device=self.device.device.type,
            precision=self.device.precision,
        )


def validation_count(settings: LoopParameters, epoch_blocks: int) -> int:
    """Return how many users to validate on: `validation_users`, less in short runs.

    A validation user costs about one block's forward pass, a third of a training block. Half as many users as blocks
    between two evaluations keep validation below about a sixth of the run.
    """
    steps = max(1, optimiser_steps(settings, epoch_blocks))
    interval = min(settings.evaluate_every_steps, steps) * settings.blocks_per_step
    return min(settings.validation_users, max(LEAST_VALIDATION_USERS, interval // 2))


def open_base(context: StageContext, reference: BaseModelRef) -> tuple[BaseModel, Device]:
    """Load the base model where and as precisely as `compute` says; raise BadInput when it cannot be used."""
    options = context.spec.compute
    set_threads(options)
    with invalid_as_bad_input():
        device = resolve(options)
        base = load_base(context.fetch(base_model_uri(reference)), device=device.device, dtype=device.dtype)
    return base, device


@contextmanager
def invalid_as_bad_input() -> Iterator[None]:
    """Turn the engine's findings about a model or an artifact into bad input: retrying cannot help."""
    try:
        yield
    except (BaseModelError, BundleError) as error:
        raise BadInput(str(error)) from error


def warm_users(dataset: LocalArtifact) -> frozenset[int]:
    """Return the users with a train row, who alone have a CF vector."""
    table = pl.read_parquet(dataset.file("users.parquet"), columns=["user_index", "warm"])
    return frozenset(table.filter(pl.col("warm"))["user_index"].to_list())


def write_curve(folder: Path, trained: Trained) -> None:
    """Write curve.json (docs/artifacts.md)."""
    (folder / CURVE_NAME).write_text(json.dumps([dict(point) for point in trained.curve], indent=1) + "\n")
