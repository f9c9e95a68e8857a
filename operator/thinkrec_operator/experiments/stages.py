# SPDX-License-Identifier: Apache-2.0
"""The work of the offline comparison: score every variant on the same rows, then compare. Pure.

Keys follow from what is compared, not from the experiment's name: two experiments about the same revisions share the
scores, and one that is applied again runs nothing again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from thinkrec_crds.artifact import TerminationMessage
from thinkrec_crds.comparison import TRAINING_ROLE, VARIANT_PREFIX
from thinkrec_crds.experiment import ExperimentSpec
from thinkrec_crds.experiment_spec import Offline
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_crds.stages import CompareParameters, Parameters, ScoreParameters, stage_key
from thinkrec_operator import parameters as read
from thinkrec_operator.experiments.variants import Contender, Lineup
from thinkrec_operator.graph import Input, Stage

LEVEL = 0.05
"""Where there is no `spec.analysis` to name one."""
LEAST_DRAWS, MOST_DRAWS = 2000, 20_000


def lineage(lineup: Lineup) -> dict[str, TerminationMessage]:
    """Return key -> result of everything that the variants' revisions were made of."""
    return {result.key: result for one in lineup.contenders for result in one.record.data.results.values()}


def offline_stages(spec: ExperimentSpec, lineup: Lineup) -> tuple[Stage, ...]:
    """Return the stages in the order of work; the data comes first where it is not that of control's revision.

    There are none without an offline comparison, or while variants are missing. Variants of one revision share a stage.
    """
    offline = spec.offline
    if offline is None or lineup.missing is not None:
        return ()
    control = lineup.control(spec.control_variant_name)
    own = _own_data(offline, control)
    data = own.key if own is not None else control.record.data.results["dataset"].key
    scores = _scores(lineup, control, data)
    stages = [*{stage.key: stage for stage in reversed(scores)}.values()][::-1]
    stages.append(_compare(offline, lineup, control, scores, level_of(spec)))
    known = lineage(lineup)
    return tuple(stages) if own is None or own.key in known else (own, *stages)


def score_stages(spec: ExperimentSpec, lineup: Lineup) -> tuple[Stage, ...]:
    """Return the stage that scores each variant, in the spec's order; on the experiment's own data where it has any."""
    control = lineup.control(spec.control_variant_name)
    own = _own_data(spec.offline, control) if spec.offline is not None else None
    return tuple(_scores(lineup, control, own.key if own else control.record.data.results["dataset"].key))


def _scores(lineup: Lineup, control: Contender, data: str) -> list[Stage]:
    return [_score(one, control, data) for one in lineup.contenders]


def level_of(spec: ExperimentSpec) -> float:
    """Return the chance of a false winner that is accepted."""
    return float(spec.analysis.significance_level) if spec.analysis is not None else LEVEL


def score_title(contender: Contender) -> str:
    """Return what the stage that scores a variant is called."""
    return f"{StageKind.SCORE}-{contender.name}"


def metrics(offline: Offline) -> tuple[str, ...]:
    """Return every metric that is measured, what is decided by first: where room is short, the rest is left out."""
    first, *others = [metric.name for metric in offline.metrics]
    return tuple(dict.fromkeys([first, *(gate.metric for gate in offline.gates), *others]))


def draws(challengers: int, level: float) -> int:
    """Return how many bootstrap draws tell a p-value well below the level, corrected for so many challengers."""
    return min(MOST_DRAWS, max(LEAST_DRAWS, math.ceil(20 * challengers / level)))


def _own_data(offline: Offline, control: Contender) -> Stage | None:
    """Return the stage that reads the experiment's own data, or None where control's revision has it already."""
    if offline.dataset is None:
        return None
    spec = control.owner.model.spec.model_copy(update={"dataset": offline.dataset})
    return made_stage(control, StageKind.DATASET, "dataset", (), read.dataset(spec, None))


def _score(one: Contender, control: Contender, data: str) -> Stage:
    learned = one.record.data.results["dataset"].key
    inputs = [
        Input("dataset", StageKind.DATASET, data),
        Input("bundle", StageKind.BUNDLE, one.record.bundle.key),
    ]
    if learned != data:  # rows that it learned from are left out of the comparison
        inputs.append(Input(TRAINING_ROLE, StageKind.DATASET, learned))
    sizes = read.evaluate(control.owner.model.spec)
    given = ScoreParameters(max_users=sizes.max_users, max_rows_per_user=sizes.max_rows_per_user)
    return made_stage(control, StageKind.SCORE, score_title(one), tuple(inputs), given)


def _compare(offline: Offline, lineup: Lineup, control: Contender, scores: list[Stage], level: float) -> Stage:
    inputs = tuple(
        Input(f"{VARIANT_PREFIX}{one.name}", StageKind.SCORE, stage.key)
        for one, stage in zip(lineup.contenders, scores, strict=True)
    )
    given = CompareParameters(
        variants=tuple(one.name for one in lineup.contenders),
        control=control.name,
        metrics=metrics(offline),
        minimize=tuple(metric.name for metric in offline.metrics if metric.direction == "Minimize"),
        bootstrap_samples=draws(len(lineup.contenders) - 1, level),
    )
    return made_stage(control, StageKind.COMPARE, StageKind.COMPARE.value, inputs, given)


def made_stage(control: Contender, kind: StageKind, title: str, inputs: tuple[Input, ...], given: Parameters) -> Stage:
    """Return a stage of an experiment: published with control's model, with control's seed."""
    # The seed of control's revision: a model that is trained again with another one changes nothing here.
    key = stage_key(given, kind, control.record.data.seed, tuple((item.role, item.key) for item in inputs))
    return Stage(kind, title, title, inputs, key, control.owner.model.spec, given=given)


def finished(known: Mapping[str, TerminationMessage], stages: tuple[Stage, ...]) -> TerminationMessage | None:
    """Return what the comparison published, or None while it is not done."""
    return known.get(stages[-1].key)
