# SPDX-License-Identifier: Apache-2.0
"""What a worker does for an experiment: observe it and the models it names, decide, apply.

One decision a visit: what it changes makes the experiment due again. An experiment is due too when a model that it
names was visited, so that the order in which they are applied does not matter.
"""

from __future__ import annotations

from collections.abc import Iterator

from thinkrec_crds.experiment import ThinkRecExperiment
from thinkrec_operator.cluster import resources
from thinkrec_operator.cluster.objects import Unreadable, parsed_experiment, parsed_model
from thinkrec_operator.cluster.observe import observe_jobs, revisions_of
from thinkrec_operator.cluster.view import View
from thinkrec_operator.cluster.worker import Parts, Worker
from thinkrec_operator.cluster.workqueue import Key
from thinkrec_operator.experiments import work
from thinkrec_operator.experiments.observed import ObservedExperiment, ObservedModel
from thinkrec_operator.experiments.reconcile import reconcile
from thinkrec_operator.experiments.variants import line_up


class ExperimentController(Worker):
    """Reconciles experiments from the queue."""

    def __init__(self, parts: Parts, models: View) -> None:
        """Use these parts; `models` holds the models that experiments name."""
        super().__init__(parts)
        self._models = models
        self._followers: dict[Key, set[Key]] = {}
        """Model -> experiments without a verdict that name it."""
        self._follows: dict[Key, tuple[Key, ...]] = {}
        for key, record in parts.view.models():  # before any model's visit: it asks which revisions are in use
            if not isinstance(experiment := parsed_experiment(record), Unreadable):
                self._follow(key, experiment)

    def model_changed(self, model: Key) -> None:
        """Make the experiments due that name this model and have no verdict yet."""
        for key in tuple(self._followers.get(model, ())):
            self._parts.queue.add(key)

    def revisions_in_use(self, model: Key) -> frozenset[str]:
        """Return the revisions of a model that experiments without a verdict compare."""
        found: set[str] = set()
        for key in self._followers.get(model, ()):
            record = self._parts.view.model(key)
            experiment = parsed_experiment(record) if record is not None else None
            if experiment is not None and not isinstance(experiment, Unreadable):
                found |= {row.resolved_revision for row in experiment.status.variants if row.resolved_revision}
                found |= {variant.revision for variant in experiment.spec.variants if variant.revision}
        return frozenset(found)

    async def reconcile(self, key: Key) -> str:
        """Decide about an experiment once, and write what follows."""
        parts, record = self._parts, self._parts.view.model(key)
        self._unfollow(key)
        if record is None:
            await self.forget(key)
            return "gone"
        experiment = parsed_experiment(record)
        if isinstance(experiment, Unreadable):
            if not record.deleting:
                await self.tell_unreadable(key, record, experiment)
            return "unreadable"
        self._follow(key, experiment)
        await self.read_progress(key)
        observed = self._observe(key, experiment)
        if not observed.concluded and await self.make_lost_jobs_again(
            key, lambda: work.results(observed, line_up(observed))
        ):
            return "lost"
        plan = reconcile(observed)
        outcome = await parts.applier.children(key, experiment, plan)
        if not outcome.refusals_changed:  # else it was decided without knowing
            await parts.applier.tell(key, experiment, events=plan.events, status=plan.status, now=observed.now)
        if outcome.failure is not None:
            raise outcome.failure
        parts.view.let_go(key, observed.completed)
        parts.queue.forget(key)
        if outcome.changed or outcome.refusals_changed or plan.requeue_after == 0:
            parts.queue.add(key)
        elif plan.requeue_after is not None:
            parts.queue.add_after(key, plan.requeue_after)
        return "done"

    def _observe(self, key: Key, experiment: ThinkRecExperiment) -> ObservedExperiment:
        parts = self._parts
        jobs, _ = observe_jobs(parts.view, key, experiment.metadata.uid, parts.progress.newest)
        children, uid = parts.view.children(key), experiment.metadata.uid
        own = (r for r in children.objects.values() if r.owner in ("", uid) and not r.deleting)
        return ObservedExperiment(
            experiment=experiment,
            now=parts.clock(),
            settings=parts.settings,
            models=dict(self._named(key[0], experiment)),
            jobs=jobs,
            config_maps=tuple(sorted(r.name for r in own if r.kind == resources.CONFIG_MAP.kind)),
            completed=children.told(),
            refusals=parts.refusals.of(key),
        )

    def _named(self, namespace: str, experiment: ThinkRecExperiment) -> Iterator[tuple[str, ObservedModel]]:
        for name in {variant.model_ref.name for variant in experiment.spec.variants}:
            record = self._models.model((namespace, name))
            model = parsed_model(record) if record is not None and not record.deleting else None
            if model is not None and not isinstance(model, Unreadable):
                found = revisions_of(self._models, (namespace, name), model.metadata.uid)
                yield name, ObservedModel(model, found)

    def _follow(self, key: Key, experiment: ThinkRecExperiment) -> None:
        if experiment.status.conclusion is None:
            self._follows[key] = tuple((key[0], variant.model_ref.name) for variant in experiment.spec.variants)
            for model in self._follows[key]:
                self._followers.setdefault(model, set()).add(key)

    def _unfollow(self, key: Key) -> None:
        for model in self._follows.pop(key, ()):
            keys = self._followers.get(model, set())
            keys.discard(key)
            if not keys:
                self._followers.pop(model, None)
