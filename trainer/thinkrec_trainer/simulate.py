# SPDX-License-Identifier: Apache-2.0
"""Stage `simulate`: the event log of users who behave as the held-out test rows say (the model: `simulation`)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import polars as pl

from thinkrec_crds.comparison import SCORES_NAME, VARIANT_PREFIX
from thinkrec_crds.findings import EARLIER_ROLE
from thinkrec_crds.stages import SimulateParameters
from thinkrec_trainer.context import StageContext, StageResult
from thinkrec_trainer.errors import BadInput
from thinkrec_trainer.events.layout import FEEDBACK, Kind, require_model
from thinkrec_trainer.metrics.rows import Ints
from thinkrec_trainer.simulation.agreement import agreement
from thinkrec_trainer.simulation.draws import Draws
from thinkrec_trainer.simulation.lists import Candidates, candidates_of, lists_of
from thinkrec_trainer.simulation.people import People, Visits, people_of, visits_of
from thinkrec_trainer.simulation.reactions import happenings_of, looked_at, reactions_of
from thinkrec_trainer.simulation.records import Recorder, span_of
from thinkrec_trainer.simulation.segments import take_over, write_segment
from thinkrec_trainer.simulation.tastes import Tastes, read_tastes

SHORTEST = timedelta(seconds=1)


def run(context: StageContext) -> StageResult:
    """Write what would have been logged from `start` to `end`, beside what was before; counted is what is new."""
    given = context.spec.parameters
    assert isinstance(given, SimulateParameters)
    _require_sense(given)
    context.progress.update(0, 2, "reading the scores")
    tastes = read_tastes({name: _scores(context, name) for name, _ in given.weights})
    context.progress.update(1, 2, f"simulating {given.users} users")
    heights = {"feedback": 0, "exposure": 0, "mirror": 0}
    for kind, rows in _log(given, tastes, Draws(context.spec.seed)):
        write_segment(context.output, given.model, kind, rows, f"simulated-{context.spec.key[:16]}")
        heights[kind] += rows.height
    if EARLIER_ROLE in context.inputs:
        take_over(context.inputs[EARLIER_ROLE], context.output)
    context.progress.update(2, 2)
    return StageResult(
        counts={"users": given.users, "events": heights["feedback"], "exposures": heights["exposure"]},
    )


def _scores(context: StageContext, variant: str) -> pl.DataFrame:
    return pl.read_parquet(context.input(f"{VARIANT_PREFIX}{variant}").file(SCORES_NAME))


def _log(given: SimulateParameters, tastes: Tastes, draws: Draws) -> Iterator[tuple[Kind, pl.DataFrame]]:
    """Yield each kind of record once."""
    people, span = people_of(given, tastes, draws), span_of(given)
    visits = visits_of(people, span, draws)
    candidates = candidates_of(visits, tastes, draws)
    recorder = Recorder.of(given, people, visits, draws)
    if given.mode == "Mirror":
        yield "mirror", pl.concat(_mirrored(recorder, tastes, candidates))
    else:
        yield "exposure", recorder.exposures()
    seen = looked_at(_shown(people, visits, candidates, tastes), visits, draws)
    reactions = reactions_of(happenings_of(given.events), visits, seen, tastes.liked, span=span, draws=draws)
    tables = [recorder.feedback(found, tastes.items) for found in reactions]
    yield "feedback", pl.concat([FEEDBACK.to_frame(), *tables])


def _shown(people: People, visits: Visits, candidates: Candidates, tastes: Tastes) -> Ints:
    """Return the lists that visitors see: their own variant's."""
    variants = people.variants[visits.persons][candidates.visits]
    return lists_of(candidates, tastes.scores[variants, candidates.rows])


def _mirrored(recorder: Recorder, tastes: Tastes, candidates: Candidates) -> Iterator[pl.DataFrame]:
    """Yield the copies that each variant but control got."""
    given, names = recorder.given, [name for name, _ in recorder.given.weights]
    scores = dict(zip(names, tastes.scores, strict=True))
    lists = {name: lists_of(candidates, scores[name][candidates.rows]) for name in names}
    for name in names:
        if name != given.control:
            found = agreement(lists[given.control], lists[name], scores[given.control], scores[name])
            yield recorder.mirrored(name, found)


def _require_sense(given: SimulateParameters) -> None:
    """Raise BadInput for parameters of which no log can be made; all that is wrong is told at once."""
    require_model(given.model)
    if wrong := [problem for holds, problem in _conditions(given) if not holds]:
        raise BadInput("stage simulate: " + "; ".join(wrong))


def _conditions(given: SimulateParameters) -> Iterator[tuple[bool, str]]:
    names = [name for name, _ in given.weights]
    told = {name for name, _ in given.revisions}
    lacking = [name for name in names if name not in told]
    yield given.users >= 1, f"users is {given.users}: at least one must come"
    yield given.first_user >= 0, f"firstUser is {given.first_user}: persons are numbered from 0"
    yield given.end - given.start >= SHORTEST, f"end {given.end} must be a second or more after start {given.start}"
    yield given.control in names, f"control {given.control!r} is none of the weights' variants {names}"
    yield len(set(names)) == len(names), f"weights name a variant twice: {names}"
    yield not lacking, f"revisions lack {lacking}: each of the weights' variants needs one"
    yield any(weight > 0 for _, weight in given.weights) or given.mode == "Mirror", "no variant has a weight above 0"
    yield len(names) > 1 or given.mode != "Mirror", f"a Mirror needs a variant beside control {given.control!r}"
