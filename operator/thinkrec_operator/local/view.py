# SPDX-License-Identifier: Apache-2.0
"""What a person or a log sees of a run: a live tree on a terminal, JSON lines otherwise."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from thinkrec_crds.conditions import ConditionType
from thinkrec_crds.model_status import Condition, ModelStatus, StageStatus
from thinkrec_operator.observed import JobObservation, Observed, ServingObservation
from thinkrec_operator.plan import Event, Plan

_MARKS = {
    "Succeeded": ("✓", "green"),
    "Reused": ("✓", "cyan"),
    "Running": ("●", "yellow"),
    "Retrying": ("↻", "yellow"),
    "Queued": ("…", "yellow"),
    "Failed": ("✗", "red"),
    "Suspended": ("‖", "magenta"),
}
_SHOWN_METRICS = 3
_MAX_NOTES = 6


class Row(Protocol):
    """One stage as it is shown: a row of a model's status, or one of an experiment's."""

    @property
    def name(self) -> str:
        """Return what people call it."""

    @property
    def kind(self) -> str:
        """Return the kind of the stage."""

    @property
    def key(self) -> str:
        """Return its content key."""

    @property
    def state(self) -> str:
        """Return where it stands."""

    @property
    def reason(self) -> str | None:
        """Return why, in one word."""

    @property
    def message(self) -> str | None:
        """Return why, in a sentence."""

    @property
    def progress_percent(self) -> int | None:
        """Return the share of the work done."""

    @property
    def estimated_remaining_seconds(self) -> int | None:
        """Return the seconds to go."""

    @property
    def attempts(self) -> int:
        """Return how often it was started."""

    @property
    def start_time(self) -> datetime | None:
        """Return when it was first started."""

    @property
    def completion_time(self) -> datetime | None:
        """Return when it ended."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What there is to see at one moment."""

    head: Text
    now: datetime
    rows: Sequence[Row]
    """In the order of work."""
    jobs: Mapping[str, JobObservation]
    """By key of the stage."""
    events: tuple[Event, ...]
    conditions: tuple[Condition, ...]
    serving: ServingObservation | None = None


def picture_of(observed: Observed, plan: Plan) -> Picture:
    """Return what a model's run looks like."""
    return Picture(
        head=_head(observed, plan.status),
        now=observed.now,
        rows=rows_of(plan.status),
        jobs={job.key: job for job in observed.jobs},
        events=plan.events,
        conditions=plan.status.conditions,
        serving=observed.serving,
    )


def duration(seconds: float) -> str:
    """Return seconds as people write them: 9 s, 3 min 05 s, 1 h 02 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def metrics_text(values: dict[str, float]) -> str:
    """Return the first few metrics as text."""
    return "  ".join(f"{name} {value:.4g}" for name, value in list(values.items())[:_SHOWN_METRICS])


def rows_of(status: ModelStatus) -> list[StageStatus]:
    """Return stages and experts in the order of work: experts stand before the bundle."""
    before = [row for row in status.stages if row.kind not in ("bundle", "evaluate")]
    after = [row for row in status.stages if row.kind in ("bundle", "evaluate")]
    return [*before, *status.experts, *after]


def stage_table(rows: Sequence[Row], jobs: Mapping[str, JobObservation], now: datetime) -> Table:
    """Return one row for each stage."""
    table = Table(box=None, padding=(0, 1), show_header=False)
    for _ in range(5):
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        mark, colour = _MARKS.get(row.state, ("·", "dim"))
        job = jobs.get(row.key)
        indent = "  └ " if row.kind == "expert" else ""
        table.add_row(
            Text(mark, style=colour),
            Text(indent + row.name),
            Text(row.state, style=colour),
            ProgressBar(total=100, completed=row.progress_percent or 0, width=20),
            Text(_times(row, now), style="dim"),
            Text(_detail(row, job), style="dim"),
        )
    return table


def _times(row: Row, now: datetime) -> str:
    parts = []
    if row.start_time is not None and row.state not in ("Reused", "Pending"):
        parts.append(duration(((row.completion_time or now) - row.start_time).total_seconds()))
    if row.estimated_remaining_seconds is not None and row.state == "Running":
        parts.append(f"{duration(row.estimated_remaining_seconds)} to go")
    return ", ".join(parts)


def _detail(row: Row, job: JobObservation | None) -> str:
    if row.state in ("Failed", "Retrying"):
        attempt = f"attempt {row.attempts} failed: " if row.state == "Retrying" else ""
        return attempt + (row.message or row.reason or "")
    if row.state == "Running" and job is not None and job.progress is not None:
        progress = job.progress
        return "  ".join(part for part in (progress.message, metrics_text(progress.metrics)) if part)
    if row.state == "Succeeded" and job is not None and job.termination is not None:
        return metrics_text(job.termination.metrics)
    return row.message or ""


class LiveView:
    """A tree of stages that is redrawn in place; use it as a context manager."""

    def __init__(self, console: Console) -> None:
        """Draw on this console."""
        self._live = Live(console=console, refresh_per_second=4, transient=False)
        self._notes: list[str] = []

    def __enter__(self) -> LiveView:
        """Begin to draw."""
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the last picture on the screen."""
        self._live.stop()

    def update(self, seen: Picture) -> None:
        """Show the newest state."""
        self._notes += [event.message for event in seen.events if event.type == "Warning"]
        self._live.update(Group(seen.head, stage_table(seen.rows, seen.jobs, seen.now), *self._foot(seen.serving)))

    def note(self, text: str) -> None:
        """Keep a sentence below the tree."""
        self._notes.append(text)

    def _foot(self, serving: ServingObservation | None) -> list[RenderableType]:
        lines: list[RenderableType] = [Text(f"! {note}", style="yellow") for note in self._notes[-_MAX_NOTES:]]
        if serving is not None:
            state = f"answers at {serving.url}" if serving.ready_replicas else serving.message or "is starting"
            lines.append(
                Text(f"serving {serving.revision} {state}", style="green" if serving.ready_replicas else "dim")
            )
        return lines


def _head(observed: Observed, status: ModelStatus) -> Text:
    ready = status.condition(ConditionType.READY)
    trained = not observed.settings.serve and status.is_true(ConditionType.EVALUATED)
    word = "trained, gates passed" if trained else ready.reason if ready is not None else ""
    name = f"{observed.model.metadata.namespace}/{observed.model.metadata.name}"
    generation = f"  generation {observed.generation}  {status.progress_percent or 0} %  "
    return Text.assemble((name, "bold"), generation, word)


class JsonLines:
    """One JSON object a line: transitions at once, progress at most every few seconds."""

    def __init__(self, stream: TextIO, *, progress_period_seconds: float = 10.0) -> None:
        """Write to this stream."""
        self._stream = stream
        self._period = progress_period_seconds
        self._told: dict[str, tuple[str, datetime]] = {}
        self._conditions: dict[str, tuple[str, str]] = {}

    def update(self, seen: Picture) -> None:
        """Write what is new."""
        now = seen.now
        for event in seen.events:
            self._write(now, "event", **_event_fields(event))
        for row in seen.rows:
            self._stage(now, row)
        for condition in seen.conditions:
            value = (condition.status, condition.reason)
            if self._conditions.get(condition.type) != value:
                self._conditions[condition.type] = value
                names = {"type": condition.type, "status": condition.status, "reason": condition.reason}
                self._write(now, "condition", **names, message=condition.message)

    def note(self, text: str) -> None:
        """Write one sentence."""
        self._line({"kind": "note", "message": text})

    def _stage(self, now: datetime, row: Row) -> None:
        state, when = self._told.get(row.key, ("", now))
        again = row.state == "Running" and (now - when).total_seconds() >= self._period
        if row.state == state and not again:
            return
        self._told[row.key] = (row.state, now)
        fields = {
            "name": row.name,
            "key": row.key,
            "state": row.state,
            "reason": row.reason,
            "message": row.message,
            "progressPercent": row.progress_percent,
            "estimatedRemainingSeconds": row.estimated_remaining_seconds,
        }
        self._write(now, "stage", **{name: value for name, value in fields.items() if value is not None})

    def _write(self, now: datetime, kind: str, **fields: object) -> None:
        self._line({"time": f"{now:%Y-%m-%dT%H:%M:%SZ}", "kind": kind, **fields})

    def _line(self, body: dict[str, object]) -> None:
        self._stream.write(json.dumps(body, ensure_ascii=False) + "\n")
        self._stream.flush()


def _event_fields(event: Event) -> dict[str, str]:
    return {"type": event.type, "reason": event.reason, "message": event.message}
