# SPDX-License-Identifier: Apache-2.0
"""ConfigMap and Job of an experiment's stage: its pods are the evaluation pods of a variant's model. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from thinkrec_crds import group
from thinkrec_crds.artifact import TerminationMessage
from thinkrec_crds.experiment import ExperimentSpec
from thinkrec_crds.experiment_spec import Offline
from thinkrec_crds.fields import Resources
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_crds.stages import InputRef, StageSpec
from thinkrec_operator import children as build
from thinkrec_operator.experiments.observed import ObservedExperiment
from thinkrec_operator.experiments.stages import score_title
from thinkrec_operator.experiments.variants import Lineup
from thinkrec_operator.graph import Input, Stage
from thinkrec_operator.names import artifact_uri, job_name, stage_config_map_name
from thinkrec_operator.observed import Observed
from thinkrec_operator.plan import ConfigMapChild, JobChild, Layout, Owner, PodSettings

Results = Mapping[str, TerminationMessage]
ANALYSIS_BACKOFF_LIMIT = 3
ANALYSIS_TTL_SECONDS = 600
"""A look leaves a Job each period: longer than that it would only be in the way."""
ANALYSIS_RESOURCES = Resources(requests={"cpu": "250m", "memory": "1Gi"}, limits={"memory": "4Gi"})


def owner_of(observed: ObservedExperiment) -> Owner:
    """Return the experiment as the owner of its children."""
    meta = observed.experiment.metadata
    return Owner(meta.name, meta.namespace, meta.uid, meta.generation, kind=group.EXPERIMENT_KIND)


def name_of(observed: ObservedExperiment, stage: Stage) -> str:
    """Return the name of a stage's Job."""
    return job_name(observed.experiment.metadata.name, stage.title, stage.key)


def stage_children(
    observed: ObservedExperiment, stage: Stage, results: Results, lineup: Lineup
) -> tuple[ConfigMapChild, JobChild]:
    """Return the ConfigMap and the Job of a stage whose inputs are all published.

    The pods that score a variant are those of an evaluation of its own model, which has what they need: image, devices,
    Secrets; all others are of control's. The seed is control's for all, as in the keys: it draws the rows.
    """
    experiment = observed.experiment.spec
    control, offline = lineup.control(experiment.control_variant_name), experiment.offline
    whose = next((one for one in lineup.contenders if stage.title == score_title(one)), control)
    owner, told = owner_of(observed), stage_spec(stage, results, seed=control.record.data.seed)
    text = told.to_json(indent=2) + "\n"
    config_map = stage_config_map_name(owner.name, text)
    model = whose.owner.model
    if stage.kind is StageKind.DATASET and offline is not None:  # with the Secret of the experiment's own data
        spec = model.spec.model_copy(update={"dataset": offline.dataset})
        model = model.model_copy(update={"spec": spec})
    seen = Observed(model=model, now=observed.now, settings=observed.settings)
    job = JobChild(
        name=name_of(observed, stage),
        owner=owner,
        stage=told,
        title=stage.title,
        config_map=config_map,
        settings=_settings(seen, stage, experiment),
        layout=_layout(seen, stage, experiment),
    )
    return ConfigMapChild(config_map, owner, ((build.STAGE_FILE, text),), "training"), job


def stage_spec(stage: Stage, results: Results, *, seed: int) -> StageSpec:
    """Return what the stage's process is told; everything goes into the store of control's model."""
    root = stage.spec.artifacts.storage_uri
    inputs = tuple(_input(item, results[item.key], root) for item in stage.inputs)
    return build.described(stage.spec, stage, inputs, seed=seed)


def _input(item: Input, result: TerminationMessage, root: str) -> InputRef:
    """Return where an input is: where it was published, which need not be the store of control's model."""
    assert result.digest is not None, "finished work always carries a digest"
    uri = result.uri or artifact_uri(root, item.kind, item.key)
    return InputRef(name=item.role, kind=item.kind, key=item.key, uri=uri, digest=result.digest)


def _layout(seen: Observed, stage: Stage, experiment: ExperimentSpec) -> Layout:
    if stage.kind is StageKind.SCORE:
        return build.layout(seen, StageKind.EVALUATE)
    if stage.kind is StageKind.ANALYSE and experiment.analysis is not None and not seen.settings.laptop:
        return Layout(shards=experiment.analysis.parallelism)
    return Layout()


def _settings(seen: Observed, stage: Stage, experiment: ExperimentSpec) -> PodSettings:
    """Return how a pod runs: as an evaluation, and as nothing but a reader of the store where it looks at users."""
    if stage.kind is StageKind.ANALYSE:
        settings = build.pod_settings(seen, StageKind.GATE)  # which has the store's Secret only
        own, limit, kept = analysis_resources(experiment), ANALYSIS_BACKOFF_LIMIT, ANALYSIS_TTL_SECONDS
        return replace(settings, resources=own, backoff_limit=limit, ttl_seconds_after_finished=kept)
    offline = experiment.offline or Offline()
    kind = StageKind.DATASET if stage.kind is StageKind.DATASET else StageKind.EVALUATE
    settings = build.pod_settings(seen, kind)
    own = offline.resources
    return replace(
        settings,
        resources=own if own.requests or own.limits else settings.resources,
        backoff_limit=offline.backoff_limit,
        ttl_seconds_after_finished=offline.ttl_seconds_after_finished,
    )


def analysis_resources(experiment: ExperimentSpec) -> Resources:
    """Return the compute resources of an analysis: the experiment's own, else enough, and no device."""
    own = experiment.analysis.resources if experiment.analysis is not None else Resources()
    return own if own.requests or own.limits else ANALYSIS_RESOURCES
