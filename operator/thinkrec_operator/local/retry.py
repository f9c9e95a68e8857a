# SPDX-License-Identifier: Apache-2.0
"""What the end of one attempt means for its Job. Pure; the same rules as the Job manifest gives to Kubernetes.

2 and 64 end the Job. 143 (or a process stopped by SIGTERM) is an interruption: it costs no retry. Anything else, 75
included, counts against the back-off limit and waits: base, 2 base, 4 base, … up to six minutes.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from datetime import datetime, timedelta

from thinkrec_crds.artifact import ExitCode, TerminationMessage
from thinkrec_crds.conditions import Reason
from thinkrec_operator.local.records import JobRecord
from thinkrec_operator.observed import JobState
from thinkrec_operator.work import FINAL_EXIT_CODES

MAX_WAIT_SECONDS = 360.0
"""The Job controller's own cap."""
INTERRUPTED_WAIT_SECONDS = 1.0
"""Keeps a stage that ends as interrupted again and again from spinning."""
_STOPPED = (ExitCode.INTERRUPTED, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP, 128 + signal.SIGINT)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how soon a failed attempt is repeated."""

    backoff_limit: int
    base_seconds: float


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """How one process ended."""

    exit_code: int
    """Negative: the signal that ended it."""
    termination: TerminationMessage | None
    reason: str | None = None
    """Why the driver ended it, where it did (OOMKilled, DeadlineExceeded)."""
    message: str = ""


def after(record: JobRecord, end: AttemptEnd, policy: RetryPolicy, now: datetime) -> JobRecord:
    """Return the Job's record after an attempt ended."""
    told = end.termination
    message = (told.error if told is not None and told.error else end.message)[:1024]
    seen = record.model_copy(
        update={
            "process": None,
            "exit_code": end.exit_code,
            "reason": end.reason,
            "message": message,
            "termination": told,
            "next_attempt_time": None,
        }
    )
    if end.exit_code == ExitCode.DONE:
        return _closed(seen, JobState.SUCCEEDED, None, now)
    if end.exit_code in FINAL_EXIT_CODES:
        return _closed(seen, JobState.FAILED, None, now)
    if end.reason == Reason.DEADLINE_EXCEEDED:
        return _closed(seen, JobState.FAILED, end.reason, now)
    if end.exit_code in _STOPPED:
        soon = now + timedelta(seconds=INTERRUPTED_WAIT_SECONDS)
        again = {"state": JobState.PENDING, "reason": Reason.PREEMPTED.value, "next_attempt_time": soon}
        return seen.model_copy(update=again)
    failures = record.failures + 1
    seen = seen.model_copy(update={"failures": failures})
    if failures > policy.backoff_limit:
        return _closed(seen, JobState.FAILED, end.reason or Reason.BACKOFF_LIMIT_EXCEEDED.value, now)
    wait = timedelta(seconds=backoff_seconds(failures, policy.base_seconds))
    return seen.model_copy(update={"state": JobState.PENDING, "next_attempt_time": now + wait})


def backoff_seconds(failures: int, base: float) -> float:
    """Return how long to wait after that many failures (from 1)."""
    return min(MAX_WAIT_SECONDS, base * 2.0 ** (failures - 1))


def _closed(record: JobRecord, state: JobState, reason: str | None, now: datetime) -> JobRecord:
    return record.model_copy(update={"state": state, "reason": reason, "completion_time": now})
