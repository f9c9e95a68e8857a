# SPDX-License-Identifier: Apache-2.0
"""The stage graph of a spec: which stages there are, what each one reads, and its content key. Pure.

Every key follows from the spec alone (parameters, seed and the keys of the inputs). Only the number of experts may be
open: with `experts.auto` the gate stage chooses it, and the graph ends at the gate until its count is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from thinkrec_crds.contract import Contract
from thinkrec_crds.model import ModelSpec
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_crds.stages import Parameters, stage_key
from thinkrec_operator import parameters as read

SERVING_ROLE = "serving"
"""Role of the bundle now serving, against which a new one is evaluated."""

_BASE = (
    StageKind.DATASET,
    StageKind.KEYWORDS,
    StageKind.COLLABORATIVE,
    StageKind.TRACES,
    StageKind.ADAPTER,
    StageKind.PROJECTOR,
    StageKind.GATE,
)
_INPUTS: dict[StageKind, tuple[StageKind, ...]] = {
    StageKind.DATASET: (),
    StageKind.KEYWORDS: (StageKind.DATASET,),
    StageKind.COLLABORATIVE: (StageKind.DATASET,),
    StageKind.TRACES: (StageKind.DATASET, StageKind.KEYWORDS),
    StageKind.ADAPTER: (StageKind.DATASET, StageKind.KEYWORDS, StageKind.TRACES),
    StageKind.PROJECTOR: (StageKind.DATASET, StageKind.KEYWORDS, StageKind.COLLABORATIVE, StageKind.ADAPTER),
    StageKind.GATE: (StageKind.DATASET, StageKind.COLLABORATIVE),
    StageKind.EXPERT: (
        StageKind.DATASET,
        StageKind.KEYWORDS,
        StageKind.COLLABORATIVE,
        StageKind.ADAPTER,
        StageKind.PROJECTOR,
        StageKind.GATE,
    ),
    StageKind.BUNDLE: _BASE[:3] + _BASE[4:],
    StageKind.EVALUATE: (*_BASE, StageKind.BUNDLE),
}
"""Inputs by kind (docs/artifacts.md); bundle and evaluate read every expert besides."""


@dataclass(frozen=True, slots=True)
class Input:
    """One role of a stage and the key of the artifact that fills it."""

    role: str
    kind: StageKind
    key: str


@dataclass(frozen=True, slots=True)
class Stage:
    """One unit of work of a model."""

    kind: StageKind
    role: str
    """Unique in its model: the kind, or `expert-<k>`; the name other stages read it by."""
    title: str
    """What people call it: the role, or the expert's own name."""
    parameters: Parameters
    inputs: tuple[Input, ...]
    key: str


@dataclass(frozen=True, slots=True)
class Graph:
    """Stages in an order in which each one follows its inputs."""

    stages: tuple[Stage, ...]
    expert_count: int | None
    """K, or None while the gate has not chosen it; bundle and evaluate are then missing."""

    def find(self, role: str) -> Stage | None:
        """Return the stage of that role, or None while the graph does not reach it."""
        return next((stage for stage in self.stages if stage.role == role), None)


@dataclass(frozen=True, slots=True)
class Comparator:
    """The bundle now serving, which a new revision must not fall behind."""

    revision: str
    key: str
    digest: str
    uri: str


def build_graph(
    spec: ModelSpec, *, groups: int | None = None, retrain: str | None = None, comparator: Comparator | None = None
) -> Graph:
    """Return the graph as far as it is known.

    `groups` is the count reported by the gate (used only where the spec leaves K open), `retrain` the token of a
    training asked for without a spec change, `comparator` the serving bundle that enters the evaluation.
    """
    stages: dict[str, Stage] = {}
    seed = spec.training.seed
    for kind in _BASE:
        _add(stages, kind, _base_parameters(spec, kind, retrain), seed=seed)
    count = read.fixed_expert_count(spec) or groups
    if count is not None:
        _add_revision_stages(stages, spec, count, comparator)
    return Graph(stages=tuple(stages.values()), expert_count=count)


def _add_revision_stages(stages: dict[str, Stage], spec: ModelSpec, count: int, comparator: Comparator | None) -> None:
    seed = spec.training.seed
    experts = tuple(f"expert-{group}" for group in range(count))
    for group, role in enumerate(experts):
        parameters = read.expert(spec, group)
        _add(stages, StageKind.EXPERT, parameters, seed=seed, role=role, title=parameters.name)
    _add(stages, StageKind.BUNDLE, read.bundle(spec), seed=seed, more=experts)
    compared = (Input(SERVING_ROLE, StageKind.BUNDLE, comparator.key),) if comparator else ()
    _add(stages, StageKind.EVALUATE, read.evaluate(spec), seed=seed, more=experts, extra=compared)


def _add(
    stages: dict[str, Stage],
    kind: StageKind,
    parameters: Parameters,
    *,
    seed: int,
    role: str = "",
    title: str = "",
    more: Iterable[str] = (),
    extra: tuple[Input, ...] = (),
) -> None:
    """Append one stage whose inputs are already there."""
    names = [upstream.value for upstream in _INPUTS[kind]] + list(more)
    inputs = tuple(Input(name, stages[name].kind, stages[name].key) for name in names) + extra
    contract: Contract = parameters
    key = stage_key(contract, kind, seed, tuple((item.role, item.key) for item in inputs))
    name = role or kind.value
    stages[name] = Stage(kind, name, title or name, parameters, inputs, key)


def _base_parameters(spec: ModelSpec, kind: StageKind, retrain: str | None) -> Parameters:
    if kind is StageKind.DATASET:
        return read.dataset(spec, retrain)
    readers: dict[StageKind, Callable[[ModelSpec], Parameters]] = {
        StageKind.KEYWORDS: read.keywords,
        StageKind.COLLABORATIVE: read.collaborative,
        StageKind.TRACES: read.traces,
        StageKind.ADAPTER: read.adapter,
        StageKind.PROJECTOR: read.projector,
        StageKind.GATE: read.gate,
    }
    return readers[kind](spec)
