# SPDX-License-Identifier: Apache-2.0
"""Stage `analyse`: one look at an online experiment's users, from its start up to, not including, a moment.

One pod does all 16 parts of the users, or each of several pods some of them; either way sums are gathered first
(`gather`), and whoever has all of them tells what they mean (`conclude`).
"""

from __future__ import annotations

from collections.abc import Sequence

from thinkrec_crds.findings import FINDINGS_NAME
from thinkrec_crds.stages import AnalyseParameters
from thinkrec_trainer.context import LocalArtifact, StageContext, StageResult
from thinkrec_trainer.errors import BadInput
from thinkrec_trainer.events.read import ALL_PARTS, parts_of_shard
from thinkrec_trainer.online.findings import look_before, report
from thinkrec_trainer.online.gathered import COUNTS_NAME, MOMENTS_NAME, Gathered, loaded, total
from thinkrec_trainer.online.gathering import gather
from thinkrec_trainer.online.groups import groups_of
from thinkrec_trainer.online.mirror_verdict import mirrored, unjudged
from thinkrec_trainer.online.older import remove_superfluous
from thinkrec_trainer.online.page import write_page
from thinkrec_trainer.online.readings import ask
from thinkrec_trainer.online.verdict import Known, compared
from thinkrec_trainer.shards import Shard

_AFTER = 2
"""Steps behind the parts: the analysis, the page."""


def run(context: StageContext) -> StageResult:
    """Gather everything and conclude; begin again the next time when interrupted: a look takes minutes at most."""
    given = _given(context)
    gathered = gather(context, given, ALL_PARTS, steps=len(ALL_PARTS) + _AFTER)
    return _conclude(context, given, gathered)


def share(context: StageContext, shard: Shard) -> StageResult:
    """Gather what this pod's users did."""
    parts = parts_of_shard(shard.index, shard.count)
    gathered = gather(context, _given(context), parts, steps=max(1, len(parts)))
    gathered.save(context.output)
    return StageResult(counts={"events": gathered.counts.events})


def merge(context: StageContext, parts: Sequence[LocalArtifact]) -> StageResult:
    """Put the pods' sums together and conclude."""
    found = total([loaded(part.file(COUNTS_NAME), part.file(MOMENTS_NAME)) for part in parts])
    return _conclude(context, _given(context), found)


def _conclude(context: StageContext, given: AnalyseParameters, gathered: Gathered) -> StageResult:
    """Write findings.json and the page; what a status can hold goes into the termination message."""
    steps = len(ALL_PARTS) + _AFTER
    context.checkpoint.raise_if_interrupted()
    context.progress.update(steps - 2, steps, "comparing the variants")
    known = _known(context, given, gathered)
    before = look_before(context)
    findings = report(given, known, gathered, before)
    (context.output / FINDINGS_NAME).write_text(findings.to_json(indent=1), encoding="utf-8")
    context.progress.update(steps - 1, steps, "writing the page")
    write_page(context.output, findings, given, gathered.counts, moved=known.moved)
    if given.events_uri is not None:  # simulated users can come again, and then their looks are found
        remove_superfluous(context, before)
    context.progress.update(steps, steps)
    return StageResult(
        metrics=findings.numbers(),
        counts={
            "users": sum(known.look.users.values()),
            "events": gathered.counts.events,
            "users_of_moved_buckets": known.moved,
            "users_of_several_buckets": gathered.counts.several,
        },
    )


def _known(context: StageContext, given: AnalyseParameters, gathered: Gathered) -> Known:
    if given.analysis is None:
        return unjudged(given, gathered)
    readings = ask(given, given.analysis)
    if given.mode == "Mirror":
        return mirrored(given, given.analysis, gathered, readings)
    groups = groups_of(context, given)
    return compared(given, given.analysis, gathered, readings, () if groups is None else groups.names)


def _given(context: StageContext) -> AnalyseParameters:
    given = context.spec.parameters
    assert isinstance(given, AnalyseParameters)
    if given.analysis is None and given.mode != "Mirror":
        raise BadInput(f"stage {context.spec.name}: `analysis` must be given unless `mode` is Mirror")
    if given.control not in given.variants:
        raise BadInput(f"stage {context.spec.name}: control {given.control!r} is none of {list(given.variants)}")
    return given
