# SPDX-License-Identifier: Apache-2.0
"""CPUs for stages that run side by side. Pure.

Two torch processes with more threads than cores slow each other far more than twofold, so a Job starts only when its
CPUs are free. A stage without a CPU limit takes what suits its work: the whole machine where it computes for long
(keywords too, where the base model writes them), one CPU where it is light, an equal share where experts run in
parallel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from thinkrec_crds.stage_kinds import StageKind
from thinkrec_crds.stages import KeywordsParameters
from thinkrec_operator.manifests.quantities import cpu_threads
from thinkrec_operator.plan import JobChild

_LIGHT = frozenset({StageKind.KEYWORDS, StageKind.COLLABORATIVE, StageKind.GATE, StageKind.BUNDLE})


@dataclass(frozen=True, slots=True)
class Start:
    """A Job that may start now, and its CPUs."""

    child: JobChild
    cpus: int


def to_start(waiting: Sequence[JobChild], used: int, total: int) -> tuple[Start, ...]:
    """Return the Jobs that may start now, in order; one Job always may where nothing runs."""
    experts = sum(child.stage.kind is StageKind.EXPERT for child in waiting)
    found: list[Start] = []
    for child in waiting:
        wanted = min(total, _wanted(child, experts, total))
        if used + wanted <= total or (used == 0 and not found):
            found.append(Start(child, wanted))
            used += wanted
    return tuple(found)


def _wanted(child: JobChild, experts: int, total: int) -> int:
    limit = cpu_threads(child.settings.resources)
    if limit is not None:
        return limit
    if child.stage.kind in _LIGHT and not _asks_the_base_model(child):
        return 1
    if child.stage.kind is StageKind.EXPERT:
        return max(1, total // max(1, min(experts, total)))
    return total


def _asks_the_base_model(child: JobChild) -> bool:
    """Return whether keywords are written by the base model, in this very process."""
    given = child.stage.parameters
    teacher = given.teacher if isinstance(given, KeywordsParameters) else None
    return teacher is not None and teacher.type == "Self"
