# SPDX-License-Identifier: Apache-2.0
"""Scores of an evaluation as a file: of all rows, or of one pod's share of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from thinkrec_trainer.context import LocalArtifact
from thinkrec_trainer.evaluation.passes import Floats, Job, job_batches
from thinkrec_trainer.evaluation.sample import TestUser

SCORES_NAME = "scores.safetensors"


@dataclass(frozen=True, slots=True)
class Scores:
    """What the language models computed."""

    jobs: Sequence[Floats]
    """Of the schedule's jobs, in order."""
    serving: Sequence[Floats] | None
    """Of the revision now serving, by user, with gaps; None without one."""

    def save(self, folder: Path) -> None:
        """Write the scores one behind the other: who reads them knows how many each has."""
        tensors = {"jobs": _flat(self.jobs)} | ({} if self.serving is None else {"serving": _flat(self.serving)})
        save_file(tensors, folder / SCORES_NAME)


def gathered(parts: Sequence[LocalArtifact], jobs: Sequence[Job], users: Sequence[TestUser]) -> Scores:
    """Return the scores of all pods in the order of one: part i holds every N-th batch and user, from i on."""
    files = [load_file(part.file(SCORES_NAME)) for part in parts]
    batches = [[len(job.candidates) for _, job in batch] for batch in job_batches(jobs)]
    scored = _woven([file["jobs"] for file in files], batches)
    if any("serving" not in file for file in files):
        return Scores(scored, None)
    return Scores(scored, _woven([file["serving"] for file in files], [[len(user.candidates)] for user in users]))


def _woven(parts: Sequence[Floats], groups: Sequence[Sequence[int]]) -> list[Floats]:
    """Cut flat parts into vectors of the given sizes, group by group from the parts in turn."""
    places = [0] * len(parts)
    woven = []
    for number, sizes in enumerate(groups):
        part = number % len(parts)
        for size in sizes:
            woven.append(parts[part][places[part] : places[part] + size])
            places[part] += size
    return woven


def _flat(vectors: Sequence[Floats]) -> Floats:
    return np.concatenate(vectors) if vectors else np.zeros(0)
