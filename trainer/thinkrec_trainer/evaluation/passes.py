# SPDX-License-Identifier: Apache-2.0
"""Runs all scoring jobs through the packed engine, with progress and checkpoints."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file

from thinkrec_inference.engine.engine import Engine
from thinkrec_inference.engine.lora import Fusion
from thinkrec_inference.engine.scorer import ScoreJob, Scorer
from thinkrec_trainer.context import CheckpointStore, ProgressSink

Floats = npt.NDArray[np.float64]
Job = tuple[Fusion, ScoreJob]
TENSORS_NAME = "scores.safetensors"
_BATCH = 8
"""Jobs that are scored together, between two looks at progress and signals."""


class Scorers:
    """The engine's scorer, and, made when first asked for, one with the other fusion over the same base model."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._made: dict[Fusion, Scorer] = {engine.revision.fusion: engine.scorer}

    def get(self, fusion: Fusion) -> Scorer:
        """Return the scorer of that fusion."""
        if fusion not in self._made:
            bundle = self._engine.bundle
            self._made[fusion] = Scorer(
                self._engine.scorer.base,
                bundle.items,
                bundle.index.prompt,
                projector=bundle.projector,
                collaborative=bundle.collaborative,
                adapters=bundle.adapters,
                fusion=fusion,
                score=bundle.index.score,
            )
        return self._made[fusion]

    def score(self, batch: Sequence[Job]) -> list[torch.Tensor]:
        """Return the scores of jobs that share a fusion."""
        jobs = [job for _, job in batch]
        single = all(sum(gate != 0 for gate in _gates(job)) <= 1 for job in jobs)
        return self.get(self._engine.revision.fusion if single else batch[0][0]).score(jobs)


def job_batches(jobs: Sequence[Job]) -> list[list[Job]]:
    """Return the jobs in groups of at most `_BATCH` that share a fusion: what is scored together, and only together.

    The numbers of a packed forward pass may depend on its company in the last bit, so pods share out whole groups.
    """
    return [
        members[start : start + _BATCH]
        for _, run in itertools.groupby(jobs, key=lambda job: job[0])
        for members in [list(run)]
        for start in range(0, len(members), _BATCH)
    ]


def score_batches(
    engine: Engine, batches: Sequence[Sequence[Job]], *, progress: ProgressSink, checkpoint: CheckpointStore
) -> list[Floats]:
    """Return the scores of each job, (candidates,) each, in order.

    Jobs with at most one adapter at work are marked Exact and run on whichever scorer the engine has. The last
    checkpoint holds all scores: what follows (the serving revision, explanations) may be interrupted too.
    """
    scorers, total = Scorers(engine), sum(map(len, batches))
    done = _restore(checkpoint.load(), [job for batch in batches for job in batch])
    start = 0
    progress.update(len(done), total, "scoring")
    for batch in batches:
        start += len(batch)
        if start <= len(done):
            continue
        done += scorers.score(batch)
        progress.update(len(done), total, "scoring")
        if checkpoint.due() or checkpoint.interrupted or len(done) == total:
            checkpoint.save(_writer(done))
            checkpoint.raise_if_interrupted()
    return [scores.double().numpy() for scores in done]


def _gates(job: ScoreJob) -> list[float]:
    return [] if job.gates is None else job.gates.tolist()


def _writer(done: Sequence[torch.Tensor]) -> Callable[[Path], None]:
    return lambda folder: save_file({"scores": torch.cat(list(done))}, folder / TENSORS_NAME)


def _restore(folder: Path | None, jobs: Sequence[Job]) -> list[torch.Tensor]:
    """Return the scores of the finished jobs: their order is a function of the spec, so a flat list is enough."""
    if folder is None:
        return []
    flat = load_file(folder / TENSORS_NAME)["scores"]
    done, start = [], 0
    for _, job in jobs:
        end = start + len(job.candidates)
        if end > len(flat):
            break
        done.append(flat[start:end])
        start = end
    return done
