# SPDX-License-Identifier: Apache-2.0
"""When `spec.schedule.cron` asks for the next training, and whether one is due. Pure; the only clock is an argument.

The state is two times in status: `nextScheduleTime` is a promise, `lastScheduleTime` the newest promise that was kept.
A promise whose time has come is due once, however often it is asked about; one that the present cron does not make
(the schedule was edited) is forgotten, and so is everything while a model is suspended.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from thinkrec_crds.spec_training import Schedule

_PREFIX = "schedule-"
_ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_SECOND = timedelta(seconds=1)
_STEPS = 200
"""Missed times that are walked through one by one; beyond them the newest is found backwards."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Where a schedule stands at one moment."""

    next_time: datetime | None = None
    """The promise to write to status."""
    due: datetime | None = None
    """The newest time that has come and may still start."""
    missed: datetime | None = None
    """The newest time that has come, too long ago for `startingDeadlineSeconds`."""
    problem: str = ""
    """Why this schedule can never come due: the field, its value, the remedy."""


def read(wish: Schedule | None, promised: datetime | None, now: datetime) -> Clock:
    """Return where the schedule stands; `promised` is the next time that status names."""
    if wish is None or wish.cron is None:
        return Clock()
    zone = wish.time_zone or "UTC"
    if problem := _problem(wish.cron, zone):
        return Clock(problem=problem)
    moment = now.astimezone(UTC).replace(microsecond=0)
    if promised is None or next_time(wish.cron, zone, promised - _SECOND) != promised:
        return Clock(next_time(wish.cron, zone, moment))
    if promised > moment:
        return Clock(promised)
    newest = _newest(wish.cron, zone, promised, moment)
    later, deadline = next_time(wish.cron, zone, moment), wish.starting_deadline_seconds
    if deadline is not None and moment - newest > timedelta(seconds=deadline):
        return Clock(later, missed=newest)
    return Clock(later, due=newest)


def token(moment: datetime) -> str:
    """Return the retrain token of a scheduled time; tokens sort as their times do."""
    return f"{_PREFIX}{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def time_of(text: str | None) -> datetime | None:
    """Return the time that a token stands for, or None where it is not one of a schedule."""
    if text is None or not text.startswith(_PREFIX):
        return None
    try:
        return datetime.strptime(text, f"{_PREFIX}%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:  # a person's own annotation that begins alike
        return None


@lru_cache(maxsize=16_384)
def next_time(cron: str, zone: str, after: datetime) -> datetime | None:
    """Return the first time after a moment, in UTC; None where none comes within cronsim's horizon of 50 years."""
    return _step(cron, zone, after, reverse=False)


def _newest(cron: str, zone: str, first: datetime, until: datetime) -> datetime:
    """Return the newest time from `first` up to `until`, both included."""
    newest = first
    for _ in range(_STEPS):
        following = next_time(cron, zone, newest)
        if following is None or following > until:
            return newest
        newest = following
    return _step(cron, zone, until + _SECOND, reverse=True) or newest


def _step(cron: str, zone: str, moment: datetime, *, reverse: bool) -> datetime | None:
    for local in CronSim(_plain(cron), moment.astimezone(ZoneInfo(zone)), reverse=reverse):
        found = local.astimezone(UTC)
        if reverse or found > moment:  # in an hour that the clocks repeat, cronsim names its first pass once more
            return found
    return None


def _plain(cron: str) -> str:
    """Return five fields; `?` says in Quartz's dialect what `*` says here."""
    return _ALIASES.get(cron, cron).replace("?", "*")


@lru_cache(maxsize=4096)
def _problem(cron: str, zone: str) -> str:
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # a folder of the database, such as "Europe", is an OSError
        return f"`spec.schedule.timeZone` is {zone!r}, which is no IANA time zone; write for example Europe/Berlin"
    try:
        CronSim(_plain(cron), datetime(2000, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        example = 'write for example "0 3 * * 1", Mondays at three'
        return f"`spec.schedule.cron` is {cron!r}, which names no time ({error}); {example}"
    return ""
