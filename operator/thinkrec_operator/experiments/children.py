# SPDX-License-Identifier: Apache-2.0
"""ConfigMap and Job of an experiment's stage: its pods are the evaluation pods of a variant's model. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from thinkrec_crds import group
from thinkrec_crds.artifact import TerminationMessage
from thinkrec_crds.experiment_spec import Offline
from thinkrec_crds.stage_kinds import SEMANTICS_VERSION, StageKind
from thinkrec_crds.stages import CheckpointOptions, InputRef, StageSpec, StoreOptions
from thinkrec_operator import children as build
from thinkrec_operator.experiments.observed import ObservedExperiment
from thinkrec_operator.experiments.variants import Contender
from thinkrec_operator.graph import Input, Stage
from thinkrec_operator.names import artifact_uri, job_name, stage_config_map_name
from thinkrec_operator.observed import Observed
from thinkrec_operator.plan import ConfigMapChild, JobChild, Layout, Owner, PodSettings

Results = Mapping[str, TerminationMessage]


def owner_of(observed: ObservedExperiment) -> Owner:
    """Return the experiment as the owner of its children."""
    meta = observed.experiment.metadata
    return Owner(meta.name, meta.namespace, meta.uid, meta.generation, kind=group.EXPERIMENT_KIND)


def name_of(observed: ObservedExperiment, stage: Stage) -> str:
    """Return the name of a stage's Job."""
    return job_name(observed.experiment.metadata.name, stage.title, stage.key)


def stage_children(
    observed: ObservedExperiment, stage: Stage, results: Results, offline: Offline, whose: Contender
) -> tuple[ConfigMapChild, JobChild]:
    """Return the ConfigMap and the Job of a stage whose inputs are all published.

    Its pods are those of an evaluation of `whose` model, which has what they need: image, devices, Secrets.
    """
    owner, told = owner_of(observed), stage_spec(stage, results, seed=whose.record.data.seed)
    text = told.to_json(indent=2) + "\n"
    config_map = stage_config_map_name(owner.name, text)
    model = whose.owner.model
    if stage.kind is StageKind.DATASET:  # with the Secret of the experiment's own data
        spec = model.spec.model_copy(update={"dataset": offline.dataset})
        model = model.model_copy(update={"spec": spec})
    seen = Observed(model=model, now=observed.now, settings=observed.settings)
    job = JobChild(
        name=name_of(observed, stage),
        owner=owner,
        stage=told,
        title=stage.title,
        config_map=config_map,
        settings=_settings(seen, stage, offline),
        layout=build.layout(seen, StageKind.EVALUATE) if stage.kind is StageKind.SCORE else Layout(),
    )
    return ConfigMapChild(config_map, owner, ((build.STAGE_FILE, text),), "training"), job


def stage_spec(stage: Stage, results: Results, *, seed: int) -> StageSpec:
    """Return what the stage's process is told; everything goes into the store of control's model."""
    artifacts, checkpoint = stage.spec.artifacts, stage.spec.training.checkpoint
    return StageSpec(
        kind=stage.kind,
        name=stage.role,
        key=stage.key,
        semantics_version=SEMANTICS_VERSION[stage.kind],
        seed=seed,
        parameters=stage.parameters,
        inputs=tuple(_input(item, results[item.key], artifacts.storage_uri) for item in stage.inputs),
        output_uri=artifact_uri(artifacts.storage_uri, stage.kind, stage.key),
        store=StoreOptions(endpoint=artifacts.endpoint, region=artifacts.region),
        checkpoint=CheckpointOptions(period_seconds=checkpoint.period_seconds, resume_policy=checkpoint.resume_policy),
    )


def _input(item: Input, result: TerminationMessage, root: str) -> InputRef:
    """Return where an input is: where it was published, which need not be the store of control's model."""
    assert result.digest is not None, "finished work always carries a digest"
    uri = result.uri or artifact_uri(root, item.kind, item.key)
    return InputRef(name=item.role, kind=item.kind, key=item.key, uri=uri, digest=result.digest)


def _settings(seen: Observed, stage: Stage, offline: Offline) -> PodSettings:
    kind = StageKind.DATASET if stage.kind is StageKind.DATASET else StageKind.EVALUATE
    settings = build.pod_settings(seen, kind)
    own = offline.resources
    return replace(
        settings,
        resources=own if own.requests or own.limits else settings.resources,
        backoff_limit=offline.backoff_limit,
        ttl_seconds_after_finished=offline.ttl_seconds_after_finished,
    )
