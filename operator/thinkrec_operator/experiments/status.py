# SPDX-License-Identifier: Apache-2.0
"""Status of an experiment from what was found. Pure.

Ready says that the experiment is set up as specified, and is True while it runs; Succeeded is its outcome, Unknown
until there is one. An unfavourable result is an outcome like any other: only what keeps it from running stalls it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from thinkrec_crds.comparison import measured
from thinkrec_crds.conditions import EXPERIMENT_CONDITIONS, ConditionType, Reason
from thinkrec_crds.experiment_status import (
    Conclusion,
    ExperimentStage,
    ExperimentStatus,
    VariantMetric,
    VariantStatus,
)
from thinkrec_crds.fields import as_decimal, as_optional_decimal
from thinkrec_crds.model_status import Condition, ConditionStatus
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_operator.board import Board
from thinkrec_operator.experiments.observed import ObservedExperiment
from thinkrec_operator.experiments.online import Online, waiting_words
from thinkrec_operator.experiments.stages import metrics
from thinkrec_operator.experiments.status_online import (
    online_fields,
    online_variant,
    rolled_back,
    traffic_configured,
)
from thinkrec_operator.experiments.variants import Lineup, Missing
from thinkrec_operator.failure import Failure, cannot_start, refused
from thinkrec_operator.work import StageView

MOST_METRICS = 48
"""Of a variant in status."""
ONLINE_KINDS = (StageKind.SIMULATE.value, StageKind.ANALYSE.value)
_TRANSIENT = (ConditionType.RECONCILING, ConditionType.STALLED)
_NO_VERDICT = (Reason.DEADLINE_EXCEEDED.value, Reason.SAMPLE_RATIO_MISMATCH.value)
"""Outcomes that say nothing about the variants."""


@dataclass(frozen=True, slots=True)
class Found:
    """Everything that the status is made of."""

    observed: ObservedExperiment
    lineup: Lineup
    views: tuple[StageView, ...] = ()
    numbers: dict[str, float] | None = None
    """Of the offline comparison, once it is done."""
    users: int | None = None
    report_uri: str | None = None
    missed: tuple[str, ...] = ()
    """Offline gates that were missed."""
    incomplete: str = ""
    """Why the comparison's numbers are not enough to judge by."""
    remembered: bool = False
    """Status says already that the comparison is done and its gates were reached."""
    online: Online | None = None
    """Where the comparison on users stands, once it is its turn."""
    conclusion: Conclusion | None = None

    @property
    def setting_up(self) -> bool:
        """Return whether variants have yet to answer for the first time."""
        return self.online is not None and self.online.start is None and bool(self.online.waiting)

    @property
    def all_views(self) -> tuple[StageView, ...]:
        """Return the stages of the offline comparison and of the look at work."""
        return (*self.views, *(self.online.views if self.online is not None else ()))

    @property
    def failed(self) -> StageView | None:
        """Return the stage that finally failed, or None."""
        return next((view for view in self.all_views if view.state == "Failed"), None)

    @property
    def stuck(self) -> Failure | None:
        """Return what keeps the experiment from running, or None."""
        if self.observed.refusals:
            return refused(self.observed.refusals[0])
        if self.incomplete:
            return Failure(Reason.EVALUATION_FAILED.value, self.incomplete)
        if self.online is not None and self.online.failure is not None:
            return self.online.failure
        if (waits := cannot_start(self.all_views)) is not None:
            return waits
        if (view := self.failed) is not None:
            told = f"{view.stage.title}: {view.message}. {Reason.EVALUATION_FAILED.remedy}"
            return Failure(Reason.EVALUATION_FAILED.value, told, view.stage.kind)
        missing = self.lineup.missing
        if missing is not None and (missing.reason is Reason.INVALID_SPEC or _waited_long(self.observed)):
            return Failure(missing.reason.value, missing.message)
        return None


def first_status(observed: ObservedExperiment) -> ExperimentStatus:
    """Return what the first visit writes: every lasting condition Unknown, and Reconciling."""
    board = _board(observed)
    for kind in EXPERIMENT_CONDITIONS:
        if kind not in _TRANSIENT:
            board.put(kind, "Unknown", Reason.PENDING.value, Reason.PENDING.meaning)
    board.put(ConditionType.RECONCILING, "True", Reason.PROGRESSING.value, Reason.PROGRESSING.meaning)
    return ExperimentStatus(observed_generation=observed.generation, conditions=tuple(board.found))


def status_of(found: Found) -> ExperimentStatus:
    """Return the whole status."""
    observed, before = found.observed, found.observed.experiment.status
    started = before.start_time or (observed.now if found.lineup.contenders else None)
    return before.model_copy(
        update={
            "observed_generation": observed.generation,
            "conditions": _conditions(found),
            "start_time": started,
            "completion_time": before.completion_time or (observed.now if found.conclusion else None),
            "variants": _variants(found),
            "stages": _stages(found),
            "report_uri": found.report_uri or before.report_uri,
            "conclusion": found.conclusion,
            **online_fields(observed, found.online),
        }
    )


def _stages(found: Found) -> tuple[ExperimentStage, ...]:
    """Return the rows of this moment; what is not looked at now, or is read by a look, is as status told it."""
    before, online = found.observed.experiment.status.stages, found.online
    offline_rows = tuple(_stage(view) for view in found.views) or tuple(r for r in before if r.kind not in ONLINE_KINDS)
    earlier = tuple(row for row in before if row.kind in ONLINE_KINDS)
    views = online.views if online is not None else ()
    if not views:
        return (*offline_rows, *earlier)
    read = {item.key for view in views for item in view.stage.inputs} - {view.stage.key for view in views}
    return (*offline_rows, *(row for row in earlier if row.key in read), *(_stage(view) for view in views))


def _conditions(found: Found) -> tuple[Condition, ...]:
    board = _board(found.observed)
    _ready(board, found)
    _succeeded(board, found)
    _reconciling_or_stalled(board, found)
    _variants_ready(board, found)
    _offline_evaluated(board, found)
    over = found.conclusion is not None
    traffic_configured(board, found.observed, found.online, over=over)
    _promoted(board, found)
    rolled_back(board, found.observed, found.conclusion)
    suspended = found.observed.experiment.spec.suspend
    reason = Reason.SUSPENDED if suspended else Reason.NOT_SUSPENDED
    board.put(ConditionType.SUSPENDED, "True" if suspended else "False", reason.value, reason.meaning)
    return tuple(board.found)


def _ready(board: Board, found: Found) -> None:
    kind, missing = ConditionType.READY, found.lineup.missing
    if found.conclusion is not None:
        board.put(kind, "True", Reason.SUCCEEDED.value, "The experiment is over.")
    elif (stuck := found.stuck) is not None:
        board.put(kind, "False", stuck.reason, stuck.message)
    elif missing is not None:
        board.put(kind, "False", missing.reason.value, missing.message)
    elif found.observed.experiment.spec.suspend:
        board.put(kind, "False", Reason.SUSPENDED.value, Reason.SUSPENDED.meaning)
    elif found.online is not None and found.setting_up:
        board.put(kind, "False", Reason.PROGRESSING.value, f"Variants are starting: {waiting_words(found.online)}")
    else:
        board.put(kind, "True", Reason.RUNNING.value, Reason.RUNNING.meaning)


def _succeeded(board: Board, found: Found) -> None:
    told = found.conclusion
    if told is None:
        board.put(ConditionType.SUCCEEDED, "Unknown", Reason.RUNNING.value, Reason.RUNNING.meaning)
    else:
        status: ConditionStatus = "False" if told.reason in _NO_VERDICT else "True"
        board.put(ConditionType.SUCCEEDED, status, told.reason, told.message)


def _reconciling_or_stalled(board: Board, found: Found) -> None:
    if found.conclusion is not None:
        return
    if (stuck := found.stuck) is not None:
        board.put(ConditionType.STALLED, "True", stuck.reason, stuck.message)
    elif found.lineup.missing is not None:
        board.put(ConditionType.RECONCILING, "True", Reason.PROGRESSING.value, found.lineup.missing.message)
    elif found.online is not None and found.setting_up:
        board.put(ConditionType.RECONCILING, "True", Reason.PROGRESSING.value, waiting_words(found.online))


def _variants_ready(board: Board, found: Found) -> None:
    missing: Missing | None = found.lineup.missing
    waiting = found.online.waiting if found.online is not None else ()
    if missing is None and found.online is not None and waiting:
        reason = Reason.SERVING_NOT_READY
        board.put(ConditionType.VARIANTS_READY, "False", reason.value, waiting_words(found.online))
    elif missing is None and found.online is not None and found.online.places:
        board.put(ConditionType.VARIANTS_READY, "True", Reason.SUCCEEDED.value, "Every variant answers.")
    elif missing is None:
        board.put(ConditionType.VARIANTS_READY, "True", Reason.SUCCEEDED.value, "Every variant has its revision.")
    else:
        board.put(ConditionType.VARIANTS_READY, "False", missing.reason.value, missing.message)


def _offline_evaluated(board: Board, found: Found) -> None:
    kind = ConditionType.OFFLINE_EVALUATED
    if found.observed.experiment.spec.offline is None:
        board.put(kind, "Unknown", Reason.PENDING.value, "`spec.offline` is not set.")
    elif found.missed:
        board.put(kind, "False", Reason.OFFLINE_GATE_FAILED.value, "; ".join(found.missed))  # cut where it is long
    elif found.incomplete:
        board.put(kind, "False", Reason.EVALUATION_FAILED.value, found.incomplete)
    elif found.numbers is not None or found.remembered:
        board.put(kind, "True", Reason.GATES_PASSED.value, "Every variant reached every offline gate.")
    elif (failed := next((view for view in found.views if view.state == "Failed"), None)) is not None:
        board.put(kind, "False", Reason.EVALUATION_FAILED.value, failed.message)
    else:
        open_ = [view.stage.title for view in found.views if view.result is None]
        waits = f"To do: {', '.join(open_)}." if open_ else Reason.PENDING.meaning
        board.put(kind, "Unknown", (Reason.JOBS_RUNNING if open_ else Reason.PENDING).value, waits)


def _promoted(board: Board, found: Found) -> None:
    spec, told = found.observed.experiment.spec, found.conclusion
    if told is None or told.winner in (None, spec.control_variant_name):
        board.put(ConditionType.PROMOTED, "False", Reason.PENDING.value, "No other variant than control has won.")
    elif spec.promotion_policy == "None":
        board.put(ConditionType.PROMOTED, "False", Reason.POLICY_NONE.value, Reason.POLICY_NONE.meaning)
    elif spec.promotion_policy == "Manual":
        reason = Reason.AWAITING_APPROVAL
        board.put(ConditionType.PROMOTED, "False", reason.value, f"{reason.meaning} {reason.remedy}")
    else:
        board.put(ConditionType.PROMOTED, "True", Reason.SUCCEEDED.value, f"Variant {told.winner} was promoted.")


def _variants(found: Found) -> tuple[VariantStatus, ...]:
    before = {variant.name: variant for variant in found.observed.experiment.status.variants}
    resolved = {one.name: one.record.name for one in found.lineup.contenders}
    rows = []
    for place, variant in enumerate(found.observed.experiment.spec.variants):
        old = before.get(variant.name, VariantStatus(name=variant.name))
        update: dict[str, object] = {"resolved_revision": resolved.get(variant.name) or old.resolved_revision}
        update["metrics"] = _measured(found, old, place)
        update |= online_variant(found.observed, found.online, variant.name, over=found.conclusion is not None)
        rows.append(old.model_copy(update=update))
    return tuple(rows)


def _measured(found: Found, old: VariantStatus, place: int) -> tuple[VariantMetric, ...]:
    """Return what a variant measured on the test rows and on its users; what is not news is as it was told."""
    spec = found.observed.experiment.spec
    names = {metric.name for metric in spec.analysis.metrics} if spec.analysis is not None else set()
    rows = _metrics(found, place) if found.numbers is not None else tuple(m for m in old.metrics if m.name not in names)
    users = found.online.metrics.get(old.name) if found.online is not None else None
    return (*rows, *(users if users is not None else (m for m in old.metrics if m.name in names)))[:MOST_METRICS]


def _metrics(found: Found, place: int) -> tuple[VariantMetric, ...]:
    offline, numbers = found.observed.experiment.spec.offline, found.numbers
    assert offline is not None, "only an offline comparison has numbers"
    rows = []
    for name in metrics(offline):
        told = measured(numbers or {}, place, name)
        if told is not None:
            rows.append(
                VariantMetric(
                    name=name,
                    value=as_decimal(told.value),
                    lower=as_optional_decimal(told.lower),
                    upper=as_optional_decimal(told.upper),
                    sample_size=found.users,
                )
            )
    return tuple(rows)


def _stage(view: StageView) -> ExperimentStage:
    result = view.result
    return ExperimentStage.model_validate(
        {
            "name": view.stage.title,
            "kind": view.stage.kind.value,
            "key": view.stage.key,
            "job_name": view.job_name if view.job is not None else None,
            "state": view.state,
            "reason": view.reason,
            "message": view.message or None,
            "artifact_uri": result.uri if result is not None else None,
            "digest": result.digest if result is not None else None,
        }
    )


def concluded(observed: ObservedExperiment) -> ExperimentStatus:
    """Return the status of an experiment that is over: the same, and true of whatever its spec says now."""
    before, generation = observed.experiment.status, observed.generation
    if before.observed_generation == generation:
        return before
    conditions = tuple(item.model_copy(update={"observed_generation": generation}) for item in before.conditions)
    return before.model_copy(update={"observed_generation": generation, "conditions": conditions})


def _board(observed: ObservedExperiment) -> Board:
    previous = {condition.type: condition for condition in observed.experiment.status.conditions}
    return Board(observed.now, observed.generation, previous)


def waiting_since(observed: ObservedExperiment) -> Condition | None:
    """Return the condition that says since when variants are missing, or None where they are not."""
    before = observed.experiment.status.condition(ConditionType.VARIANTS_READY)
    return before if before is not None and before.status == "False" else None


def _waited_long(observed: ObservedExperiment) -> bool:
    """Return whether variants have been missing for longer than they may."""
    before, limit = waiting_since(observed), observed.experiment.spec.progress_deadline_seconds
    return before is not None and observed.now - before.last_transition_time >= timedelta(seconds=limit)
