# SPDX-License-Identifier: Apache-2.0
"""Status of a model from what was found: conditions with their exact meaning, stages, metrics. Pure.

Ready, Reconciling and Stalled follow kstatus: Reconciling and Stalled are present only while True, never both. A
training that only repeats an unchanged spec (retrain token) touches none of the three.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from thinkrec_crds.conditions import MODEL_CONDITIONS, ConditionType, Reason
from thinkrec_crds.model_status import Condition
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_operator.board import Board
from thinkrec_operator.failure import Failure
from thinkrec_operator.observed import JobState, Observed, RevisionRecord, ServingObservation
from thinkrec_operator.revisions import GateCheck
from thinkrec_operator.work import StageView

_TRANSIENT = (ConditionType.RECONCILING, ConditionType.STALLED, ConditionType.STALE)

STALLING = MODEL_CONDITIONS[ConditionType.STALLED]
"""Reasons that Stalled may have; any other cause of a failed stage stalls as TrainingFailed."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything the conditions are decided from."""

    observed: Observed
    views: tuple[StageView, ...]
    complete: bool
    """K is known, so that bundle and evaluation are among the views."""
    failure: Failure | None
    background: bool
    """What is going on only repeats a spec that is already in force."""
    made: RevisionRecord | None
    """The revision that the finished work makes."""
    gates: GateCheck | None
    target: RevisionRecord | None
    """The revision that is to serve."""
    rolled_out: bool
    """The target answers on the least number of replicas and nothing older is left."""
    answers: bool
    """Some revision answers on the least number of replicas."""
    next_schedule_time: datetime | None = None
    held: bool = False
    """An experiment keeps a newer revision from going into service."""

    @property
    def still_ready(self) -> bool:
        """Return whether the spec was in force before and some revision of it answers on, whatever is rolled out."""
        return self.answers and was_ready(self.observed)

    @property
    def unfinished(self) -> bool:
        """Return whether training or evaluation is still to be done."""
        return not self.complete or any(view.result is None for view in self.views)

    @property
    def working(self) -> bool:
        """Return whether any Job is active or about to be created."""
        return any(v.start or v.replace or (v.job is not None and v.job.active) for v in self.views)

    def result_of(self, kind: StageKind) -> bool:
        """Return whether every stage of that kind is known and published."""
        found = [view for view in self.views if view.stage.kind is kind]
        return bool(found) and all(view.result is not None for view in found)


def first_conditions(observed: Observed) -> tuple[Condition, ...]:
    """Return what the first visit writes: every lasting condition Unknown, and Reconciling."""
    board = _board(observed)
    for kind in MODEL_CONDITIONS:
        if kind not in _TRANSIENT:
            board.put(kind, "Unknown", Reason.PENDING.value, Reason.PENDING.meaning)
    board.put(ConditionType.RECONCILING, "True", Reason.PROGRESSING.value, Reason.PROGRESSING.meaning)
    return tuple(board.found)


def conditions(facts: Facts) -> tuple[Condition, ...]:
    """Return all conditions of this moment."""
    board = _board(facts.observed)
    _ready(board, facts)
    _available(board, facts)
    _reconciling_or_stalled(board, facts)
    _dataset_ready(board, facts)
    _admitted(board, facts)
    _training_succeeded(board, facts)
    _artifacts_stored(board, facts)
    _evaluated(board, facts)
    _serving_ready(board, facts)
    _suspended(board, facts)
    _stale(board, facts)
    return tuple(board.found)


def _board(observed: Observed) -> Board:
    previous = {condition.type: condition for condition in observed.model.status.conditions}
    return Board(observed.now, observed.generation, previous)


def is_ready(facts: Facts) -> bool:
    """Return whether the spec of this generation is trained, gated and served."""
    if facts.failure is not None and not facts.background:
        return False
    gated = facts.made is not None and not facts.unfinished and facts.gates is not None and facts.gates.passed
    if not (gated or facts.background):
        return False
    return facts.rolled_out or facts.still_ready


def was_ready(observed: Observed) -> bool:
    """Return whether the status written last says that the spec of this generation is in force."""
    before = observed.model.status.condition(ConditionType.READY)
    return before is not None and before.status == "True" and before.observed_generation == observed.generation


def _ready(board: Board, facts: Facts) -> None:
    kind = ConditionType.READY
    if is_ready(facts):
        waits = facts.made is not None and facts.target is not None and facts.made.name != facts.target.name
        waiting = Reason.EXPERIMENT_RUNNING if facts.held else Reason.WAITING_FOR_PIN
        reason = waiting if waits and not facts.background else Reason.SERVING
        board.put(kind, "True", reason.value, f"{_what_serves(facts)} {reason.meaning}")
    elif facts.failure is not None and not facts.background:
        board.put(kind, "False", facts.failure.reason, facts.failure.message)
    elif facts.unfinished:
        board.put(kind, "False", *_why_unfinished(facts))
    else:
        board.put(kind, "False", *_why_not_serving(facts))


def _what_serves(facts: Facts) -> str:
    target, before = facts.target, facts.observed.model.status.serving_revision
    if facts.rolled_out or target is None or before in (None, target.name):
        return f"Revision {target.name if target else before or ''} serves."
    return f"Revision {before} serves, {target.name} is starting."


def _why_unfinished(facts: Facts) -> tuple[str, str]:
    if facts.observed.model.spec.suspend and not facts.working:
        return Reason.SUSPENDED.value, f"{Reason.SUSPENDED.meaning} {Reason.SUSPENDED.remedy}"
    queued = next((view for view in facts.views if view.state == "Queued"), None)
    if queued is not None:
        return Reason.WAITING_FOR_QUOTA.value, queued.message or Reason.WAITING_FOR_QUOTA.meaning
    return Reason.PROGRESSING.value, _at_work(facts)


def _why_not_serving(facts: Facts) -> tuple[str, str]:
    if not facts.observed.settings.serve:
        return Reason.SERVING_NOT_READY.value, "Trained and gated; serving was not started."
    serving = facts.observed.serving
    told = serving.message if serving and serving.message else Reason.SERVING_NOT_READY.meaning
    return Reason.SERVING_NOT_READY.value, told


def _at_work(facts: Facts) -> str:
    names = [_named(v) for v in facts.views if v.start or v.replace or (v.job is not None and v.job.active)]
    done = sum(view.result is not None for view in facts.views)
    total = len(facts.views) if facts.complete else f"{len(facts.views)} known"
    return f"{done} of {total} stages done; at work: {', '.join(names) or 'none'}."


def _named(view: StageView) -> str:
    """Return what people call the stage, and why it does not run where that is known."""
    waits = view.job is not None and view.job.state is JobState.PENDING and view.reason
    return f"{view.stage.title} ({view.reason}: {view.message})" if waits else view.stage.title


def _available(board: Board, facts: Facts) -> None:
    bad = Reason.SERVING_NOT_READY if facts.observed.revisions or facts.made else Reason.NO_REVISION
    board.when(ConditionType.AVAILABLE, facts.answers, Reason.SERVING, (bad.value, bad.meaning))


def _reconciling_or_stalled(board: Board, facts: Facts) -> None:
    if facts.background or is_ready(facts):
        return
    if facts.failure is not None:
        board.put(ConditionType.STALLED, "True", facts.failure.reason, facts.failure.message)
        return
    rolling = not facts.unfinished and facts.observed.settings.serve
    suspended = facts.observed.model.spec.suspend and not facts.working
    if (facts.unfinished and not suspended) or rolling:
        retried = next((v for v in facts.views if v.job is not None and v.job.active and v.job.failures), None)
        reason = Reason.PROGRESSING_WITH_RETRY if retried else Reason.PROGRESSING
        message = f"{retried.stage.title}: {retried.message}" if retried and retried.message else _at_work(facts)
        board.put(ConditionType.RECONCILING, "True", reason.value, message)


def _dataset_ready(board: Board, facts: Facts) -> None:
    kind = ConditionType.DATASET_READY
    stages = [view for view in facts.views if view.stage.kind is StageKind.DATASET]
    failed = next((v for v in stages if v.state == "Failed" or v.reason in MODEL_CONDITIONS[kind]), None)
    if facts.result_of(StageKind.DATASET):
        board.put(kind, "True", Reason.SUCCEEDED.value, "The data was read, checked and split.")
    elif failed is not None:
        board.put(kind, "False", failed.reason or Reason.DATASET_INVALID.value, failed.message)
    else:
        board.put(kind, "Unknown", Reason.PENDING.value, "The data has not been read yet.")


def _admitted(board: Board, facts: Facts) -> None:
    kind = ConditionType.ADMITTED
    if facts.observed.model.spec.training.queue_name is None:
        board.put(kind, "True", Reason.NO_QUEUE.value, Reason.NO_QUEUE.meaning)
        return
    queued = next((view for view in facts.views if view.state == "Queued"), None)
    if queued is not None:
        message = queued.message or Reason.WAITING_FOR_QUOTA.meaning
        board.put(kind, "False", queued.reason or Reason.WAITING_FOR_QUOTA.value, message)
    elif any(view.job is not None for view in facts.views) or not facts.unfinished:
        board.put(kind, "True", Reason.SUCCEEDED.value, "The queue admitted the training.")
    else:
        board.put(kind, "Unknown", Reason.PENDING.value, Reason.PENDING.meaning)


def _training_succeeded(board: Board, facts: Facts) -> None:
    kind = ConditionType.TRAINING_SUCCEEDED
    failed = next((v for v in facts.views if v.state == "Failed" and v.stage.kind is not StageKind.EVALUATE), None)
    training = [view for view in facts.views if view.stage.kind is not StageKind.EVALUATE]
    if facts.complete and all(view.result is not None for view in training):
        board.put(kind, "True", Reason.SUCCEEDED.value, Reason.SUCCEEDED.meaning)
    elif failed is not None:
        board.put(
            kind, "False", failed.reason or Reason.TRAINING_FAILED.value, f"{failed.stage.title}: {failed.message}"
        )
    elif facts.failure is not None and facts.failure.kind is not None:
        board.put(kind, "False", facts.failure.cause or Reason.TRAINING_FAILED.value, facts.failure.message)
    elif (troubled := next((view for view in facts.views if _is_troubled(view)), None)) is not None:
        board.put(kind, "False", troubled.reason or "", f"{troubled.stage.title}: {troubled.message}")
    elif facts.observed.model.spec.suspend and not facts.working:
        board.put(kind, "False", Reason.SUSPENDED.value, Reason.SUSPENDED.meaning)
    else:
        board.put(kind, "False", Reason.JOBS_RUNNING.value, _at_work(facts))


def _is_troubled(view: StageView) -> bool:
    """Return whether a Job that is not lost yet has a cause to tell."""
    active = view.job is not None and view.job.active and not view.job.queued
    return active and view.reason in MODEL_CONDITIONS[ConditionType.TRAINING_SUCCEEDED]


def _artifacts_stored(board: Board, facts: Facts) -> None:
    if facts.result_of(StageKind.BUNDLE):
        board.put(ConditionType.ARTIFACTS_STORED, "True", Reason.SUCCEEDED.value, "The bundle is in the store.")
    elif (failed := next((v for v in facts.views if v.reason == Reason.UPLOAD_FAILED), None)) is not None:
        told = f"{failed.stage.title}: {failed.message}"
        board.put(ConditionType.ARTIFACTS_STORED, "False", Reason.UPLOAD_FAILED.value, told)
    else:
        board.put(ConditionType.ARTIFACTS_STORED, "Unknown", Reason.PENDING.value, "No bundle yet for this spec.")


def _evaluated(board: Board, facts: Facts) -> None:
    kind = ConditionType.EVALUATED
    failed = next((v for v in facts.views if v.stage.kind is StageKind.EVALUATE and v.state == "Failed"), None)
    if facts.gates is not None:
        bad = (Reason.GATE_FAILED.value, facts.gates.message)
        board.when(kind, facts.gates.passed, Reason.GATES_PASSED, bad)
    elif failed is not None:
        board.put(kind, "False", Reason.EVALUATION_FAILED.value, failed.message)
    else:
        board.put(kind, "Unknown", Reason.PENDING.value, "Not evaluated yet.")


def _serving_ready(board: Board, facts: Facts) -> None:
    kind, serving = ConditionType.SERVING_READY, facts.observed.serving
    if facts.target is None:
        board.put(kind, "False", Reason.NO_REVISION.value, Reason.NO_REVISION.meaning)
    elif facts.rolled_out:
        board.put(kind, "True", Reason.SERVING.value, f"Revision {facts.target.name} answers.")
    elif not facts.observed.settings.serve:
        board.put(kind, "Unknown", Reason.PENDING.value, "Serving was not started.")
    else:
        board.put(kind, "False", *_why_not_rolled_out(serving, facts.target.name))


def _why_not_rolled_out(serving: ServingObservation | None, revision: str) -> tuple[str, str]:
    if serving is None:
        return Reason.PROGRESSING.value, f"Revision {revision} is chosen; no server runs yet."
    if serving.reason:
        return serving.reason, serving.message or Reason.SERVING_NOT_READY.meaning
    if serving.stuck:
        return Reason.DEADLINE_EXCEEDED.value, f"Revision {revision} did not get ready in time; read its pods' logs."
    return Reason.PROGRESSING.value, serving.message or f"Revision {revision} is starting."


def _suspended(board: Board, facts: Facts) -> None:
    kind, running = ConditionType.SUSPENDED, [v for v in facts.views if v.job is not None and v.job.active]
    if not facts.observed.model.spec.suspend:
        board.put(kind, "False", Reason.NOT_SUSPENDED.value, Reason.NOT_SUSPENDED.meaning)
    elif running:
        names = ", ".join(view.stage.title for view in running)
        told = f"No new Job is started; these run on to their end: {names}."
        board.put(kind, "True", Reason.SUSPENDED.value, told)
    else:
        board.put(kind, "True", Reason.SUSPENDED.value, Reason.SUSPENDED.meaning)


def stale_time(facts: Facts) -> datetime | None:
    """Return the moment from which the served model counts as Stale, or None where no policy or revision is."""
    schedule = facts.observed.model.spec.schedule
    if schedule is None or schedule.max_staleness_seconds is None or facts.target is None:
        return None
    return facts.target.data.created_time + timedelta(seconds=schedule.max_staleness_seconds)


def _stale(board: Board, facts: Facts) -> None:
    moment = stale_time(facts)
    if moment is not None and facts.observed.now >= moment:
        reason = Reason.OLDER_THAN_POLICY
        board.put(ConditionType.STALE, "True", reason.value, f"{reason.meaning} {reason.remedy}")
