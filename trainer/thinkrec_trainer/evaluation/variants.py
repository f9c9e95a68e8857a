# SPDX-License-Identifier: Apache-2.0
"""The language model's rows of the table as scoring jobs.

Equal jobs are computed once: a user whom the gate sends to one expert has the same fused score as that expert alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from thinkrec_crds.engine_api import Branch, HistoryItem, ScoreRequest
from thinkrec_crds.evaluation import FUSED, RowKind
from thinkrec_inference.engine.engine import Engine, Plan
from thinkrec_inference.engine.gate import general_slots, one_hot, route
from thinkrec_inference.engine.lora import Fusion
from thinkrec_inference.engine.scorer import ScoreJob
from thinkrec_trainer.errors import BadInput
from thinkrec_trainer.evaluation.sample import TestUser

ABLATIONS = {
    "OneHot": ("one-hot", "Ablation: nearest expert only"),
    "PeftLinear": ("peft-linear", "Ablation: PeftLinear fusion"),
    "NoCollaborative": ("no-collaborative", "Ablation: no CF soft tokens"),
}
"""Name in `evaluate.ablations` -> name and title of its row."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One row of the table that needs the language model."""

    name: str
    title: str
    kind: RowKind


@dataclass(frozen=True, slots=True)
class UserRoute:
    """What the gate decided for one evaluated user."""

    slots: tuple[float, ...]
    """K expert weights and, last, the general adapter's."""
    branch: Branch


@dataclass(slots=True)
class Schedule:
    """All jobs, each once, and which of them each variant's users take their scores from."""

    variants: list[Variant] = field(default_factory=list)
    routes: list[UserRoute] = field(default_factory=list)
    jobs: list[tuple[Fusion, ScoreJob]] = field(default_factory=list)
    places: dict[str, list[int]] = field(default_factory=dict)
    """Variant name -> (users,) number of the job."""
    _known: dict[tuple[int, Fusion, tuple[float, ...], bool], int] = field(default_factory=dict)

    def add(self, variant: Variant, users: Sequence[ScoreJob], fusion: Fusion) -> None:
        """Add one variant: its job for each user in turn."""
        self.variants.append(variant)
        self.places[variant.name] = [self._number(user, job, fusion) for user, job in enumerate(users)]

    def _number(self, user: int, job: ScoreJob, fusion: Fusion) -> int:
        assert job.gates is not None
        gates = tuple(job.gates.tolist())
        # With at most one adapter at work both fusions are that adapter.
        fusion = fusion if sum(gate != 0 for gate in gates) > 1 else "Exact"
        key = (user, fusion, gates, job.soft)
        if key not in self._known:
            self._known[key] = len(self.jobs)
            self.jobs.append((fusion, job))
        return self._known[key]


def make_schedule(engine: Engine, users: Sequence[TestUser], ablations: Sequence[str]) -> Schedule:
    """Return the jobs of base model, general adapter, each expert, the fused model and the ablations.

    Raises:
        BadInput: an ablation has no known name.
    """
    unknown = [name for name in ablations if name not in ABLATIONS]
    if unknown:
        raise BadInput(f"evaluate.ablations has {unknown}; known are {sorted(ABLATIONS)}")
    schedule, own = Schedule(), engine.revision.fusion
    plans = [plan_user(engine, user) for user in users]
    schedule.routes = [UserRoute(plan.gates, plan.branch) for plan in plans]
    experts = len(engine.bundle.index.experts)
    fused = [plan.job for plan in plans]

    def alone(slots: torch.Tensor, *, soft: bool = True) -> list[ScoreJob]:
        return [replace(job, gates=slots, soft=soft, user_index=job.user_index if soft else None) for job in fused]

    schedule.add(Variant("base", "Base model, zero-shot", "Base"), alone(torch.zeros(experts + 1), soft=False), own)
    schedule.add(Variant("general", "General adapter", "General"), alone(general_slots(experts)), own)
    for number, entry in enumerate(engine.bundle.index.experts):
        variant = Variant(f"expert-{number}", f"{entry.name} alone", "Expert")
        schedule.add(variant, alone(one_hot(experts, number)), own)
    schedule.add(Variant(FUSED, "Fused model (gate)", "Fused"), fused, own)
    for name in ablations:
        schedule.add(Variant(*ABLATIONS[name], "Ablation"), *_ablated(name, engine, fused))
    return schedule


def plan_user(engine: Engine, user: TestUser) -> Plan:
    """Return the engine's own plan for a user's candidates, with the history given instead of the bundle's."""
    ids = engine.bundle.item_ids
    history = tuple(HistoryItem(item_id=ids[item], liked=liked) for item, liked in user.history)
    return engine.plan(
        ScoreRequest(user_id=user.user_id, item_ids=tuple(ids[item] for item in user.candidates), history=history)
    )


def _ablated(name: str, engine: Engine, fused: Sequence[ScoreJob]) -> tuple[list[ScoreJob], Fusion]:
    own = engine.revision.fusion
    if name == "PeftLinear":
        return list(fused), "PeftLinear"
    if name == "NoCollaborative":
        return [replace(job, soft=False, user_index=None) for job in fused], own
    return [_nearest(engine, job) for job in fused], own


def _nearest(engine: Engine, job: ScoreJob) -> ScoreJob:
    """Return the job with the nearest expert alone; a cold user keeps the general adapter."""
    if job.user_index is None:
        return job
    bundle = engine.bundle
    vector = bundle.collaborative.user_vectors[job.user_index]
    gate = bundle.gate
    weights = route(vector, gate.centroids, gate.mean, gate.std, temperature=bundle.index.temperature).weights
    return replace(job, gates=one_hot(len(weights), int(weights.argmax())))
