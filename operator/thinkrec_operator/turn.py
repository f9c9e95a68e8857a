# SPDX-License-Identifier: Apache-2.0
"""Whether a scheduled training starts now: the schedule's clock against the work that is going on. Pure.

A run that was started is remembered by its token: in the keys of its stages, on its Jobs, in status and in the lineage
of the revision it makes. So a decision taken again, or by another process after a crash, does not start it twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from thinkrec_operator import schedule, work
from thinkrec_operator.observed import Observed
from thinkrec_operator.plan import Event
from thinkrec_operator.work import Results


@dataclass(frozen=True, slots=True)
class Turn:
    """What the schedule says at this moment."""

    next_time: datetime | None = None
    start: str | None = None
    """Token of the run that starts now."""
    events: tuple[Event, ...] = ()
    problem: str = ""
    """Why the schedule can never come due."""


def take(observed: Observed, results: Results) -> Turn:
    """Return whether a run starts now, and when the next one comes; nothing is due for a suspended model."""
    spec = observed.model.spec
    wish = None if spec.suspend or observed.settings.laptop else spec.schedule
    clock = schedule.read(wish, observed.model.status.next_schedule_time, observed.now)
    if clock.missed is not None:
        told = f"The training of {clock.missed:%Y-%m-%d %H:%M} UTC was missed by more than its starting deadline."
        return Turn(clock.next_time, events=(Event("Warning", "ScheduledTrainingMissed", told),))
    if clock.due is None:
        return Turn(clock.next_time, problem=clock.problem)
    token, in_force = schedule.token(clock.due), work.scheduled_token(observed)
    if in_force is not None and in_force >= token:  # its Jobs are there, only the status was not written
        return Turn(clock.next_time)
    obstacle = _obstacle(observed, results)
    if obstacle:
        told = f"The training of {clock.due:%Y-%m-%d %H:%M} UTC is left out: {obstacle}."
        return Turn(clock.next_time, events=(Event("Normal", "ScheduledTrainingSkipped", told),))
    told = f"The training of {clock.due:%Y-%m-%d %H:%M} UTC starts."
    return Turn(clock.next_time, token, (Event("Normal", "ScheduledTrainingStarted", told),))


def _obstacle(observed: Observed, results: Results) -> str:
    """Return why no run may start, or nothing; Replace puts an end to a repetition only, never to a new spec's work."""
    if not work.spec_is_done(observed, results):
        return "the spec itself is not trained yet"
    wish, graph = observed.model.spec.schedule, work.current_graph(observed, results)
    views = work.view_stages(observed, graph, results)
    busy = any(view.start or view.replace or (view.job is not None and view.job.active) for view in views)
    if busy and wish is not None and wish.concurrency_policy == "Forbid":
        return "another one is going on and `concurrencyPolicy` is Forbid"
    return ""
