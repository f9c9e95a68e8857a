# SPDX-License-Identifier: Apache-2.0
"""Which revision each variant stands for. Pure.

Models and experiments may be applied in any order, so what is missing is waited for, and so is a training. All variants
are resolved in one decision, and from then on status holds their revisions: a model that trains again does not change a
running comparison.
"""

from __future__ import annotations

from dataclasses import dataclass

from thinkrec_crds.conditions import ConditionType, Reason
from thinkrec_crds.experiment_spec import Variant
from thinkrec_crds.model import ThinkRecModel
from thinkrec_operator import revisions
from thinkrec_operator.experiments.observed import ObservedExperiment, ObservedModel
from thinkrec_operator.observed import RevisionRecord


@dataclass(frozen=True, slots=True)
class Contender:
    """A variant and the revision it stands for."""

    place: int
    """0-based, in the spec's order."""
    name: str
    owner: ObservedModel
    record: RevisionRecord


@dataclass(frozen=True, slots=True)
class Missing:
    """What keeps the experiment from starting."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Lineup:
    """Every variant resolved, or what is missing."""

    contenders: tuple[Contender, ...] = ()
    missing: Missing | None = None

    def control(self, name: str) -> Contender:
        """Return the variant that the others are compared with; raise StopIteration where variants are missing."""
        return next(contender for contender in self.contenders if contender.name == name)


def line_up(observed: ObservedExperiment) -> Lineup:
    """Return the revision of every variant, or the first thing that is missing."""
    found = []
    for place, variant in enumerate(observed.experiment.spec.variants):
        resolved = _resolve(observed, place, variant)
        if isinstance(resolved, Missing):
            return Lineup(missing=resolved)
        found.append(resolved)
    wrong = _different_store(found) or _nothing_new(observed, found)
    return Lineup(missing=wrong) if wrong is not None else Lineup(tuple(found))


def _resolve(observed: ObservedExperiment, place: int, variant: Variant) -> Contender | Missing:
    where, model = f"`spec.variants[{place}]`", variant.model_ref.name
    owner = observed.models.get(model)
    if owner is None:
        reason = Reason.MODEL_NOT_FOUND
        return Missing(reason, f"{where} names the model {model}: {reason.meaning} {reason.remedy}")
    told = next((v.resolved_revision for v in observed.experiment.status.variants if v.name == variant.name), None)
    name = variant.revision or told
    if name is not None:
        record = revisions.by_name(owner.revisions, name)
        if record is None:
            reason = Reason.REVISION_NOT_FOUND
            return Missing(reason, f"{where} needs revision {name} of model {model}: {reason.meaning} {reason.remedy}")
        return Contender(place, variant.name, owner, record)
    record = _default(owner, serving=variant.name == observed.experiment.spec.control_variant_name)
    if record is None or _is_training(owner.model):
        waits = f"{where} waits for model {model} to have a revision of its spec that passed its gates."
        return Missing(Reason.PROGRESSING, waits)
    return Contender(place, variant.name, owner, record)


def _default(owner: ObservedModel, *, serving: bool) -> RevisionRecord | None:
    """Return the newest revision of the model's spec if it passed its gates; or, where asked for, the one that serves.

    One whose training or gate failed has none: compared with itself the old one would look as good as the new one.
    """
    passed = [record for record in owner.revisions if record.evaluation.gates_passed]
    if serving:
        return revisions.by_name(owner.revisions, owner.model.status.serving_revision) or revisions.newest(passed)
    newest = revisions.newest(passed)
    return newest if newest is not None and revisions.same_spec(newest, owner.model.spec) else None


def _is_training(model: ThinkRecModel) -> bool:
    """Return whether a revision of the model's spec is still to come.

    Git applies a changed model and its experiment at once: compared now, the newest revision would be the old one.
    """
    unseen = model.status.observed_generation != model.metadata.generation
    return unseen or model.status.is_true(ConditionType.RECONCILING)


def _nothing_new(observed: ObservedExperiment, found: list[Contender]) -> Missing | None:
    """Return that a variant that names no revision would be control itself: there is nothing to compare yet."""
    spec, told = (
        observed.experiment.spec,
        {row.name: row.resolved_revision for row in observed.experiment.status.variants},
    )
    control = next(one for one in found if one.name == spec.control_variant_name)
    for one, variant in zip(found, spec.variants, strict=True):
        same = one.record.name == control.record.name and variant.model_ref == spec.variants[control.place].model_ref
        if one is not control and same and variant.revision is None and told.get(one.name) is None:
            return Missing(
                Reason.PROGRESSING,
                f"`spec.variants[{one.place}]` waits for model {variant.model_ref.name} to have a newer revision than "
                "control's. With `updatePolicy: OnExperiment` the older one serves on while it is compared; to compare "
                "a revision with itself, name it in `revision`.",
            )
    return None


def _different_store(found: list[Contender]) -> Missing | None:
    """One Job reads the bundles of all: it has one way to a store, and one Secret."""
    first = found[0].owner.model.spec.artifacts
    for contender in found[1:]:
        other = contender.owner.model.spec.artifacts
        if (other.endpoint, other.region, other.secret_ref) != (first.endpoint, first.region, first.secret_ref):
            name = contender.owner.model.metadata.name
            return Missing(
                Reason.INVALID_SPEC,
                f"`spec.variants[{contender.place}]` names the model {name}, whose `spec.artifacts` has another "
                f"endpoint, region or secretRef than that of {found[0].owner.model.metadata.name}. "
                "Compare models that keep their artifacts in one store.",
            )
    return None
