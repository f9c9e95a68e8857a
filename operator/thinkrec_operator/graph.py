# SPDX-License-Identifier: Apache-2.0
"""The stage graph of a spec: which stages there are, what each one reads, and its content key. Pure.

Every key follows from the spec alone (parameters, seed and the keys of the inputs). Only the number of experts may be
open: with `experts.auto` the gate stage chooses it, and the graph ends at the gate until its count is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from thinkrec_crds.contract import Contract
from thinkrec_crds.model import ModelSpec
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_crds.stages import Parameters, stage_key
from thinkrec_operator import parameters as read
from thinkrec_operator.memo import Memo, spec_digest

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
    inputs: tuple[Input, ...]
    key: str
    spec: ModelSpec = field(repr=False, compare=False)
    retrain: str | None = None
    given: Parameters | None = field(default=None, repr=False, compare=False)
    """Of a stage that no model's spec describes: one of an experiment."""

    @property
    def parameters(self) -> Parameters:
        """Return what the stage's process is told to do; made when it is asked for, since most stages are not run."""
        return self.given or _parameters(self.spec, self.kind, self.role, self.retrain)


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
    count = read.fixed_expert_count(spec) or groups
    parts = _parts(count, _titles(spec))
    compared = (Input(SERVING_ROLE, StageKind.BUNDLE, comparator.key),) if comparator and count is not None else ()
    keys = _keys(spec, parts, retrain, compared)
    by_role = {part.role: Input(part.role, part.kind, key) for part, key in zip(parts, keys, strict=True)}
    stages = []
    for part, key in zip(parts, keys, strict=True):
        inputs = tuple(by_role[name] for name in part.inputs)
        extra = compared if part.kind is StageKind.EVALUATE else ()
        stages.append(Stage(part.kind, part.role, part.title, inputs + extra, key, spec, retrain))
    return Graph(stages=tuple(stages), expert_count=count)


@dataclass(frozen=True, slots=True)
class _Part:
    """One stage without what the spec says of it."""

    kind: StageKind
    role: str
    title: str
    inputs: tuple[str, ...]


def _titles(spec: ModelSpec) -> tuple[str, ...] | None:
    return tuple(item.name for item in spec.experts.items) if spec.experts.items is not None else None


@lru_cache(maxsize=512)
def _parts(count: int | None, titles: tuple[str, ...] | None) -> tuple[_Part, ...]:
    """Return the stages of K experts, or those that do not depend on K while it is open."""
    found = [_Part(kind, kind.value, kind.value, _roles(kind)) for kind in _BASE]
    if count is None:
        return tuple(found)
    experts = tuple(f"expert-{group}" for group in range(count))
    for role, title in zip(experts, titles or experts, strict=True):
        found.append(_Part(StageKind.EXPERT, role, title, _roles(StageKind.EXPERT)))
    for kind in (StageKind.BUNDLE, StageKind.EVALUATE):
        found.append(_Part(kind, kind.value, kind.value, _roles(kind) + experts))
    return tuple(found)


def _roles(kind: StageKind) -> tuple[str, ...]:
    return tuple(upstream.value for upstream in _INPUTS[kind])


_KNOWN: Memo[tuple[str, ...]] = Memo(65_536)
"""Keys by spec, K, retrain token and compared bundle: some two kilobytes a model."""


def _keys(
    spec: ModelSpec, parts: tuple[_Part, ...], retrain: str | None, compared: tuple[Input, ...]
) -> tuple[str, ...]:
    """Return the key of each part. Only the evaluation's depends on what it compares with; the others are shared."""
    digest = spec_digest(spec)

    def base() -> tuple[str, ...]:
        return _computed(spec, parts[: len(_BASE)], retrain, ())

    def whole() -> tuple[str, ...]:
        return _computed(spec, parts, retrain, _KNOWN.get((digest, retrain), base))

    def against() -> tuple[str, ...]:
        plain = _KNOWN.get((digest, len(parts), retrain), whole)
        return _computed(spec, parts, retrain, plain[:-1], compared)

    if compared:
        return _KNOWN.get((digest, len(parts), retrain, compared[0].key), against)
    return _KNOWN.get((digest, len(parts), retrain), whole)


def _computed(
    spec: ModelSpec,
    parts: tuple[_Part, ...],
    retrain: str | None,
    known: tuple[str, ...],
    extra: tuple[Input, ...] = (),
) -> tuple[str, ...]:
    """Return the known keys and those of the parts behind them; `extra` are further inputs of these."""
    keys = {part.role: key for part, key in zip(parts, known, strict=False)}
    for part in parts[len(known) :]:
        inputs = [(name, keys[name]) for name in part.inputs] + [(item.role, item.key) for item in extra]
        parameters: Contract = _parameters(spec, part.kind, part.role, retrain)
        keys[part.role] = stage_key(parameters, part.kind, spec.training.seed, tuple(inputs))
    return tuple(keys.values())


def _parameters(spec: ModelSpec, kind: StageKind, role: str, retrain: str | None) -> Parameters:
    if kind is StageKind.DATASET:
        return read.dataset(spec, retrain)
    if kind is StageKind.EXPERT:
        return read.expert(spec, int(role.removeprefix("expert-")))
    return _READERS[kind](spec)


_READERS: dict[StageKind, Callable[[ModelSpec], Parameters]] = {
    StageKind.KEYWORDS: read.keywords,
    StageKind.COLLABORATIVE: read.collaborative,
    StageKind.TRACES: read.traces,
    StageKind.ADAPTER: read.adapter,
    StageKind.PROJECTOR: read.projector,
    StageKind.GATE: read.gate,
    StageKind.BUNDLE: read.bundle,
    StageKind.EVALUATE: read.evaluate,
}
