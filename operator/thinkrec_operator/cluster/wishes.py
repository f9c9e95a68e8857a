# SPDX-License-Identifier: Apache-2.0
"""What experiments ask of the models they name, kept up to date with every visit of an experiment.

A model's decision looks here: which revisions must stay, how its gateway shares out users, what was promoted.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, datetime

from pydantic import ValidationError

from thinkrec_crds.conditions import ConditionType
from thinkrec_crds.experiment import ThinkRecExperiment
from thinkrec_crds.traffic import TrafficExperiment
from thinkrec_operator.cluster.workqueue import Key
from thinkrec_operator.experiments.places import gateway_of
from thinkrec_operator.experiments.shares import table_entry
from thinkrec_operator.observed import Experiments, Promotion

_log = logging.getLogger(__name__)
_NOTHING = Experiments()
_NEVER = datetime.min.replace(tzinfo=UTC)


class Wishes:
    """Experiments by the models that they name."""

    def __init__(self) -> None:
        """Know none yet."""
        self._experiments: dict[Key, ThinkRecExperiment] = {}
        self._about: dict[Key, set[Key]] = {}
        self._asked: dict[Key, Experiments] = {}
        """Model -> what it is asked; kept, for every visit of every model looks here."""

    def put(self, key: Key, experiment: ThinkRecExperiment) -> tuple[Key, ...]:
        """Take in an experiment; return the models that are asked something else than before."""
        before = self._names(key)
        self._leave(key, before)
        self._experiments[key] = experiment
        for model in self._names(key):
            self._about.setdefault(model, set()).add(key)
        return self._changed({*before, *self._names(key)})

    def drop(self, key: Key) -> tuple[Key, ...]:
        """Forget an experiment; return the models that are asked something else than before."""
        names = self._names(key)
        self._leave(key, names)
        self._experiments.pop(key, None)
        return self._changed(names)

    def followers(self, model: Key) -> tuple[Key, ...]:
        """Return the experiments without a verdict that name a model."""
        found = self._about.get(model, ())
        return tuple(key for key in found if self._experiments[key].status.conclusion is None)

    def about(self, model: Key) -> Experiments:
        """Return what is asked of a model."""
        return self._asked.get(model, _NOTHING)

    def _found(self, model: Key) -> Experiments:
        found = sorted((self._experiments[key] for key in self._about.get(model, ())), key=_precedence)
        running = [one for one in found if one.status.conclusion is None]
        entries = [entry for one in running if (entry := _entry(one, model[1])) is not None]
        return Experiments(
            in_use=frozenset(name for one in running for name in _revisions(one, model[1])),
            traffic=tuple(entries),
            holding=next((one.metadata.name for one in running if _shares_out(one, model[1])), ""),
            promotion=_newest_promotion(found, model[1]),
        )

    def _leave(self, key: Key, models: Iterable[Key]) -> None:
        for model in models:
            followers = self._about.get(model, set())
            followers.discard(key)
            if not followers:
                self._about.pop(model, None)

    def _names(self, key: Key) -> tuple[Key, ...]:
        experiment = self._experiments.get(key)
        return () if experiment is None else tuple((key[0], name) for name in named_models(experiment))

    def _changed(self, models: Iterable[Key]) -> tuple[Key, ...]:
        found = []
        for model in models:
            now = self._found(model)
            if now != self.about(model):
                found.append(model)
            self._asked[model] = now
            if model not in self._about:
                del self._asked[model]
        return tuple(found)


def named_models(experiment: ThinkRecExperiment) -> tuple[str, ...]:
    """Return the models that an experiment is about, its gateway's among them, each once."""
    names = [variant.model_ref.name for variant in experiment.spec.variants]
    return tuple(dict.fromkeys([*names, gateway_of(experiment.spec)]))


def _precedence(experiment: ThinkRecExperiment) -> tuple[datetime, str]:
    return experiment.metadata.creation_timestamp or _NEVER, experiment.metadata.name


def _entry(experiment: ThinkRecExperiment, model: str) -> TrafficExperiment | None:
    """Return what a gateway is told of an experiment; nothing where it would be no table, whatever let it through.

    One experiment must not keep a model, or this process, from its work.
    """
    if gateway_of(experiment.spec) != model:
        return None
    try:
        return table_entry(experiment)
    except ValidationError as error:
        _log.error("%s/%s shares out nobody: %s", experiment.metadata.namespace, experiment.metadata.name, error)
        return None


def _shares_out(experiment: ThinkRecExperiment, model: str) -> bool:
    """Return whether it has begun to share out the users of this model's gateway."""
    begun = experiment.spec.traffic is not None and experiment.status.traffic_start_time is not None
    return begun and gateway_of(experiment.spec) == model


def _revisions(experiment: ThinkRecExperiment, model: str) -> Iterable[str]:
    told = {row.name: row.resolved_revision for row in experiment.status.variants}
    for variant in experiment.spec.variants:
        if variant.model_ref.name == model:
            yield from (name for name in (variant.revision, told.get(variant.name)) if name)


def _newest_promotion(experiments: Iterable[ThinkRecExperiment], model: str) -> Promotion | None:
    """Return the decision of the experiment that ended last, of those that promoted a revision of this model."""
    found = [
        Promotion(one.metadata.name, one.metadata.uid, revision, one.status.completion_time or _NEVER)
        for one in experiments
        if (revision := _promoted_revision(one, model)) is not None
    ]
    return max(found, key=lambda promotion: promotion.time, default=None)


def _promoted_revision(experiment: ThinkRecExperiment, model: str) -> str | None:
    """Return the revision of this model that an experiment promoted, or None."""
    condition, told = experiment.status.condition(ConditionType.PROMOTED), experiment.status.conclusion
    if condition is None or condition.status != "True" or told is None or told.winner is None:
        return None
    winner = next((v for v in experiment.spec.variants if v.name == told.winner), None)
    if winner is None or winner.model_ref.name != model:
        return None
    return next((row.resolved_revision for row in experiment.status.variants if row.name == winner.name), None)
