# SPDX-License-Identifier: Apache-2.0
"""What a worker does for an experiment: observe it and the models it names, decide, apply.

One decision a visit: what it changes makes the experiment due again. An experiment is due too when a model that it
names was visited, so that the order in which they are applied does not matter; and what it asks of a model (to share
out users, to follow a promotion) makes that model due.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from thinkrec_crds.experiment import ThinkRecExperiment
from thinkrec_operator.cluster import resources
from thinkrec_operator.cluster.objects import Unreadable, parsed_experiment, parsed_model
from thinkrec_operator.cluster.observe import observe_jobs, observe_variants, revisions_of
from thinkrec_operator.cluster.view import View
from thinkrec_operator.cluster.wishes import Wishes, named_models
from thinkrec_operator.cluster.worker import Parts, Worker
from thinkrec_operator.cluster.workqueue import Key
from thinkrec_operator.experiments import work
from thinkrec_operator.experiments.observed import ObservedExperiment, ObservedModel
from thinkrec_operator.experiments.reconcile import reconcile
from thinkrec_operator.experiments.variants import line_up
from thinkrec_operator.observed import ChildRef, Experiments

_SERVING = frozenset({resources.DEPLOYMENT.kind, resources.SERVICE.kind})


class ExperimentController(Worker):
    """Reconciles experiments from the queue."""

    def __init__(self, parts: Parts, models: View, asked: Callable[[Key], None]) -> None:
        """Use these parts; `models` holds the models that experiments name, `asked` is told which of them to visit."""
        super().__init__(parts)
        self._models = models
        self._asked = asked
        self._wishes = Wishes()
        for key, record in parts.view.models():  # before any model's visit: it asks what experiments want of it
            if not isinstance(experiment := parsed_experiment(record), Unreadable):
                self._wishes.put(key, experiment)

    def model_changed(self, model: Key) -> None:
        """Make the experiments due that name this model and have no verdict yet."""
        for key in self._wishes.followers(model):
            self._parts.queue.add(key)

    def wishes(self, model: Key) -> Experiments:
        """Return what the experiments about a model ask of it."""
        return self._wishes.about(model)

    async def reconcile(self, key: Key) -> str:
        """Decide about an experiment once, and write what follows."""
        parts, record = self._parts, self._parts.view.model(key)
        if record is None:
            self._ask(self._wishes.drop(key))
            parts.metrics.forget_experiment(*key)
            await self.forget(key)
            return "gone"
        experiment = parsed_experiment(record)
        if isinstance(experiment, Unreadable):
            self._ask(self._wishes.drop(key))
            if not record.deleting:
                await self.tell_unreadable(key, record, experiment)
            return "unreadable"
        self._ask(self._wishes.put(key, experiment))
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
            told = experiment.model_copy(update={"status": plan.status})
            self._ask(self._wishes.put(key, told))
            parts.metrics.experiment(*key, plan.status)
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
        own = [r for r in children.objects.values() if r.owner in ("", uid) and not r.deleting]
        return ObservedExperiment(
            experiment=experiment,
            now=parts.clock(),
            settings=parts.settings,
            models=dict(self._named(key[0], experiment)),
            jobs=jobs,
            config_maps=tuple(sorted(r.name for r in own if r.kind == resources.CONFIG_MAP.kind)),
            completed=children.told(),
            deployments=observe_variants(parts.view, key, uid),
            other_children=tuple(ChildRef(r.kind, r.name) for r in own if r.kind in _SERVING),
            refusals=parts.refusals.of(key),
        )

    def _ask(self, models: Iterable[Key]) -> None:
        for model in models:
            self._asked(model)

    def _named(self, namespace: str, experiment: ThinkRecExperiment) -> Iterator[tuple[str, ObservedModel]]:
        for name in named_models(experiment):
            record = self._models.model((namespace, name))
            model = parsed_model(record) if record is not None and not record.deleting else None
            if model is not None and not isinstance(model, Unreadable):
                found = revisions_of(self._models, (namespace, name), model.metadata.uid)
                yield name, ObservedModel(model, found)
