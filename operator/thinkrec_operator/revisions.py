# SPDX-License-Identifier: Apache-2.0
"""Revisions: which one serves, what a new one must reach, which ones may go. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from thinkrec_crds.artifact import TerminationMessage
from thinkrec_crds.model import ModelSpec
from thinkrec_crds.model_status import PromotionStatus
from thinkrec_crds.spec_serving import EvaluationGate
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_operator.graph import SERVING_ROLE, Comparator, Graph, build_graph
from thinkrec_operator.names import artifact_uri, revision_name
from thinkrec_operator.observed import ComparedBundle, EvaluationRecord, Observed, RevisionData, RevisionRecord


@dataclass(frozen=True, slots=True)
class GateCheck:
    """Outcome of the evaluation gates."""

    passed: bool
    message: str


@dataclass(frozen=True, slots=True)
class Handled:
    """The tokens that a new revision answers."""

    retrain: str | None
    scheduled: str | None


@dataclass(frozen=True, slots=True)
class Choice:
    """Which revision is to serve."""

    target: RevisionRecord | None
    pin_missing: bool = False
    """`serving.revision` names a revision that does not exist; what serves now stays."""
    held: bool = False
    """An experiment keeps a newer revision from going into service."""


def newest(records: Sequence[RevisionRecord]) -> RevisionRecord | None:
    """Return the revision with the highest number."""
    return max(records, key=lambda record: record.number, default=None)


def by_name(records: Sequence[RevisionRecord], name: str | None) -> RevisionRecord | None:
    """Return the revision of that name, or None."""
    return next((record for record in records if record.name == name), None)


def by_bundle(records: Sequence[RevisionRecord], key: str) -> RevisionRecord | None:
    """Return the revision whose bundle has this key, or None."""
    return next((record for record in records if record.bundle.key == key), None)


def serving_now(observed: Observed) -> RevisionRecord | None:
    """Return the revision in service: the Deployment's, else the status's, else the newest that passed its gates."""
    deployed = by_name(observed.revisions, observed.serving.revision if observed.serving else None)
    told = by_name(observed.revisions, observed.model.status.serving_revision)
    passed = [record for record in observed.revisions if record.evaluation.gates_passed]
    return deployed or told or newest(passed)


def comparator(observed: Observed, bundle_key: str) -> Comparator | None:
    """Return the bundle that an evaluation of `bundle_key` compares with.

    Once recorded it stays, so that a revision is not evaluated anew when it goes into service itself.
    """
    record = by_bundle(observed.revisions, bundle_key)
    if record is not None:
        told = record.evaluation.compared
        return Comparator(told.revision, told.key, told.digest, told.uri) if told else None
    serving = serving_now(observed)
    if serving is None:
        return None
    uri = artifact_uri(observed.model.spec.artifacts.storage_uri, StageKind.BUNDLE, serving.bundle.key)
    return Comparator(serving.name, serving.bundle.key, serving.bundle.digest or "", serving.bundle.uri or uri)


def same_spec(record: RevisionRecord, spec: ModelSpec) -> bool:
    """Return whether the revision is what this spec asks for, whatever retrain token made it."""
    graph = build_graph(spec, groups=len(record.data.expert_names), retrain=record.data.retrain)
    bundle = graph.find(StageKind.BUNDLE)
    return bundle is not None and bundle.key == record.bundle.key


def candidate(
    observed: Observed, graph: Graph, results: Mapping[str, TerminationMessage], handled: Handled
) -> RevisionRecord | None:
    """Return the revision that the graph's finished work makes, or None while bundle or evaluation is missing."""
    done = {stage.role: results[stage.key] for stage in graph.stages if stage.key in results}
    if StageKind.BUNDLE not in done or StageKind.EVALUATE not in done:
        return None
    evaluated = done.pop(StageKind.EVALUATE)
    bundle_key = done[StageKind.BUNDLE].key
    compared = comparator(observed, bundle_key)
    evaluation = EvaluationRecord(
        result=evaluated,
        compared=ComparedBundle(revision=compared.revision, key=compared.key, digest=compared.digest, uri=compared.uri)
        if compared
        else None,
        gates_passed=check_gates(observed, evaluated.metrics, compared.revision if compared else None).passed,
    )
    known = by_bundle(observed.revisions, bundle_key)
    if known is not None:
        return RevisionRecord(known.name, known.number, known.data, evaluation)
    last = newest(observed.revisions)
    return RevisionRecord(
        name=revision_name(observed.model.metadata.name, bundle_key),
        number=last.number + 1 if last else 1,
        data=_lineage(observed, graph, done, handled),
        evaluation=evaluation,
    )


def _lineage(observed: Observed, graph: Graph, done: dict[str, TerminationMessage], handled: Handled) -> RevisionData:
    spec = observed.model.spec
    dataset = graph.find(StageKind.DATASET)
    return RevisionData(
        base_model_uri=spec.base_model.storage_uri,
        base_model_revision=spec.base_model.revision or "",
        dataset_uri=spec.dataset.storage_uri,
        dataset_revision=spec.dataset.revision or "",
        image=spec.training.image or observed.settings.trainer_image,
        generation=observed.generation,
        seed=spec.training.seed,
        retrain=dataset.retrain if dataset else None,
        handled_retrain=handled.retrain,
        handled_schedule=handled.scheduled,
        expert_names=tuple(stage.title for stage in graph.stages if stage.kind is StageKind.EXPERT),
        results=done,
        created_time=observed.now,
    )


def check_gates(observed: Observed, metrics: Mapping[str, float], compared: str | None) -> GateCheck:
    """Return whether every gate of the spec is reached by these metrics.

    A regression is measured against the serving revision on the same test rows (metric `serving_<name>` of the
    evaluation), or, where the evaluation left that out, against the value recorded with that revision.
    """
    reference = by_name(observed.revisions, compared)
    recorded = reference.evaluation.result.metrics if reference else {}
    missed = [
        sentence
        for gate in observed.model.spec.evaluation.gates
        if (sentence := _missed(gate, metrics, recorded)) is not None
    ]
    return GateCheck(not missed, "; ".join(missed))


def _missed(gate: EvaluationGate, metrics: Mapping[str, float], recorded: Mapping[str, float]) -> str | None:
    name = gate.metric.lower()
    value = _decimal(metrics.get(name))
    if value is None:
        return f"the evaluation reported no {gate.metric}, which `spec.evaluation.gates` asks for"
    if gate.minimum is not None and value < Decimal(gate.minimum):
        return f"{gate.metric} is {value:.4f}, below its minimum {gate.minimum}"
    before = _decimal(metrics.get(f"{SERVING_ROLE}_{name}", recorded.get(name)))
    if gate.max_regression is None or before is None or before - value <= Decimal(gate.max_regression):
        return None
    return f"{gate.metric} fell from {before:.4f} to {value:.4f}, by more than {gate.max_regression}"


def _decimal(value: float | None) -> Decimal | None:
    number = Decimal(str(value)) if value is not None else None
    return number if number is not None and number.is_finite() else None


def choose(observed: Observed, made: RevisionRecord | None) -> Choice:
    """Return which revision is to serve, given the one that the spec's finished work makes.

    A pin wins over gates: it is the user's own decision. Without a pin, OnExperiment and Manual keep what serves now,
    except that the very first revision that passes its gates serves under every policy, and that OnExperiment follows
    the newest promotion. Automatic waits while an experiment shares out the users: they were told of two variants.
    """
    serving, wish = serving_now(observed), observed.model.spec.serving
    if wish.revision is not None:
        pinned = by_name([*observed.revisions, *([made] if made else [])], wish.revision)
        return Choice(pinned or serving, pin_missing=pinned is None)
    passed = made is not None and made.evaluation.gates_passed
    if passed and serving is None:
        return Choice(made)
    if passed and wish.update_policy == "Automatic":
        held = bool(observed.experiments.holding) and serving != made
        return Choice(serving if held else made, held=held)
    decided = decided_revision(observed) if wish.update_policy == "OnExperiment" else None
    return Choice(by_name(observed.revisions, decided.revision if decided else None) or serving)


def decided_revision(observed: Observed) -> PromotionStatus | None:
    """Return the last decision about which revision serves: a pin, else an experiment's that came later, else the last.

    It is remembered in status with its time: neither the end of an experiment's object nor a pin that is taken back may
    bring an older decision into force again.
    """
    pin, told = observed.model.spec.serving.revision, observed.model.status.promotion
    if pin is not None:
        same = told is not None and told.experiment is None and told.revision == pin
        return told if same else PromotionStatus(revision=pin, time=observed.now)
    if told is None:  # the policy is new here: what serves is the decision that later ones are measured against
        serving = serving_now(observed)
        return PromotionStatus(revision=serving.name, time=observed.now) if serving is not None else None
    new = observed.experiments.promotion
    if new is None or by_name(observed.revisions, new.revision) is None:
        return told
    if told.time is not None and new.time <= told.time:
        return told
    given = {"experiment": new.experiment, "experiment_uid": new.uid, "revision": new.revision, "time": new.time}
    return PromotionStatus.model_validate(given)


def surplus(observed: Observed, keep: Sequence[RevisionRecord | None]) -> tuple[RevisionRecord, ...]:
    """Return the oldest revisions beyond `revisionHistoryLimit`; those to keep do not count as history."""
    kept = {record.name for record in keep if record is not None} | observed.experiments.in_use
    old = sorted((r for r in observed.revisions if r.name not in kept), key=lambda record: record.number)
    return tuple(old[: max(0, len(old) - observed.model.spec.revision_history_limit)])
