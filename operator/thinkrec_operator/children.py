# SPDX-License-Identifier: Apache-2.0
"""From views and the chosen revision to typed children. Pure; `manifests/` turns them into Kubernetes objects."""

from __future__ import annotations

from dataclasses import replace

from thinkrec_crds.artifact import Digest
from thinkrec_crds.fields import Resources
from thinkrec_crds.model import ModelSpec
from thinkrec_crds.scale_out import DISTRIBUTED_KINDS, SHARDED_KINDS
from thinkrec_crds.spec_serving import Serving
from thinkrec_crds.spec_training import StageOverride
from thinkrec_crds.stage_kinds import SEMANTICS_VERSION, StageKind
from thinkrec_crds.stages import SOURCE_PREFIX, CheckpointOptions, InputRef, StageSpec, StoreOptions
from thinkrec_operator import parameters as read
from thinkrec_operator import work
from thinkrec_operator.graph import SERVING_ROLE, Comparator, Stage
from thinkrec_operator.manifests.quantities import gpus
from thinkrec_operator.memo import Memo, spec_digest
from thinkrec_operator.names import artifact_uri, child_name, content_hash, stage_config_map_name
from thinkrec_operator.observed import ChildRef, Observed, RevisionRecord
from thinkrec_operator.plan import (
    CLEANUP_BACKOFF_LIMIT,
    CLEANUP_DEADLINE_SECONDS,
    AutoscalerChild,
    Child,
    ChildKind,
    ConfigMapChild,
    ControllerRevisionChild,
    DeploymentChild,
    DisruptionBudgetChild,
    JobChild,
    Layout,
    Owner,
    PeersServiceChild,
    PodSettings,
    SecretEnvironment,
    ServiceChild,
)
from thinkrec_operator.work import Results, StageView, retrain_token, scheduled_token

STAGE_FILE = "stage.json"
_NOT_IN_PODS = {"revision", "update_policy", "replicas", "autoscaling"}
"""Fields of `spec.serving` that choose which pods there are, and how many; a change of them restarts none."""

_READS_BASE_MODEL = frozenset(StageKind) - {StageKind.DATASET, StageKind.COLLABORATIVE, StageKind.GATE}


def owner_of(observed: Observed) -> Owner:
    """Return the model as the owner of its children."""
    meta = observed.model.metadata
    tokens = retrain_token(observed), scheduled_token(observed)
    return Owner(meta.name, meta.namespace, meta.uid, meta.generation, *tokens)


def stage_children(observed: Observed, view: StageView, results: Results, comparator: Comparator | None) -> list[Child]:
    """Return the ConfigMap and the Job of a stage whose inputs are all published."""
    owner = owner_of(observed)
    stage, text = _described(observed.model.spec, view.stage, results, comparator)
    config_map = stage_config_map_name(owner.name, text)
    settings = pod_settings(observed, view.stage.kind)
    spread, backend = layout(observed, view.stage.kind), view.job.backend if view.job else work.backend(observed)
    job = JobChild(
        name=view.job_name,
        owner=owner,
        stage=stage,
        title=view.stage.title,
        config_map=config_map,
        settings=settings,
        layout=spread,
        peers=peers_service_name(observed),
        backend=backend,
        runtime=observed.model.spec.training.runtime_ref if backend == "TrainJob" else None,
    )
    found: list[Child] = [ConfigMapChild(config_map, owner, ((STAGE_FILE, text),), "training")]
    if backend == "Job" and spread.nodes > 1:
        found.append(PeersServiceChild(job.peers, owner))
    return [*found, job]


def peers_service_name(observed: Observed) -> str:
    """Return the name of the Service through which pods that train together find each other."""
    return child_name(observed.model.metadata.name, "training")


def reference(child: Child) -> ChildRef | None:
    """Return kind and name of a child that is found again among `Observed.other_children`."""
    match child:
        case ServiceChild() | PeersServiceChild():
            return ChildRef(ChildKind.SERVICE, child.name)
        case DisruptionBudgetChild():
            return ChildRef(ChildKind.POD_DISRUPTION_BUDGET, child.name)
        case AutoscalerChild():
            return ChildRef(ChildKind.HORIZONTAL_POD_AUTOSCALER, child.name)
        case _:
            return None


def layout(observed: Observed, kind: StageKind) -> Layout:
    """Return over how many pods and processes a stage is spread; a laptop runs each as one process."""
    training = observed.model.spec.training
    over = _override(observed, kind)
    if observed.settings.laptop:
        return Layout()
    if kind in SHARDED_KINDS:
        return Layout(shards=over.parallelism or training.parallelism)
    if kind in DISTRIBUTED_KINDS:
        return Layout(nodes=over.nodes or training.nodes, processes=max(1, gpus(over.resources or training.resources)))
    return Layout()


def _override(observed: Observed, kind: StageKind) -> StageOverride:
    stages = observed.model.spec.training.stages
    return next((item for item in stages if item.name == kind.value), StageOverride(name=kind))


_TEXTS: Memo[tuple[StageSpec, str]] = Memo(2048)
"""Of stages at work, which are described again by every decision."""


def _described(spec: ModelSpec, stage: Stage, results: Results, comparator: Comparator | None) -> tuple[StageSpec, str]:
    """Return what the stage's process is told, and the same as text."""
    digests = tuple(_digest(item.role, item.key, results, comparator) for item in stage.inputs)

    def make() -> tuple[StageSpec, str]:
        found = stage_spec(spec, stage, results, comparator)
        return found, found.to_json(indent=2) + "\n"

    return _TEXTS.get((spec_digest(spec), stage.key, digests), make)


def stage_spec(spec: ModelSpec, stage: Stage, results: Results, comparator: Comparator | None) -> StageSpec:
    """Return what the stage's process is told; addresses are as the user typed them."""
    root = spec.artifacts.storage_uri
    inputs = tuple(
        InputRef(
            name=item.role,
            kind=item.kind,
            key=item.key,
            uri=artifact_uri(root, item.kind, item.key),
            digest=_digest(item.role, item.key, results, comparator),
        )
        for item in stage.inputs
    )
    return described(spec, stage, inputs, seed=spec.training.seed)


def described(spec: ModelSpec, stage: Stage, inputs: tuple[InputRef, ...], *, seed: int) -> StageSpec:
    """Return what a stage's process is told whose inputs are known; `spec` says where and how it publishes."""
    checkpoint = spec.training.checkpoint
    return StageSpec(
        kind=stage.kind,
        name=stage.role,
        key=stage.key,
        semantics_version=SEMANTICS_VERSION[stage.kind],
        seed=seed,
        parameters=stage.parameters,
        inputs=inputs,
        output_uri=artifact_uri(spec.artifacts.storage_uri, stage.kind, stage.key),
        store=StoreOptions(endpoint=spec.artifacts.endpoint, region=spec.artifacts.region),
        checkpoint=CheckpointOptions(
            period_seconds=checkpoint.period_seconds,
            resume_policy=checkpoint.resume_policy,
        ),
    )


def _digest(role: str, key: str, results: Results, comparator: Comparator | None) -> Digest:
    if role == SERVING_ROLE and comparator is not None:
        return comparator.digest
    digest = results[key].digest
    assert digest is not None, "finished work always carries a digest"
    return digest


def pod_settings(observed: Observed, kind: StageKind) -> PodSettings:
    """Return `spec.training` with the override of this stage laid over it."""
    training = observed.model.spec.training
    over = _override(observed, kind)
    own_image = over.image or training.image
    limit, deadline = over.backoff_limit, over.active_deadline_seconds
    return PodSettings(
        image=own_image or observed.settings.trainer_image,
        args=training.args if own_image else (),
        resources=over.resources or training.resources,
        backoff_limit=training.backoff_limit if limit is None else limit,
        active_deadline_seconds=training.active_deadline_seconds if deadline is None else deadline,
        ttl_seconds_after_finished=training.ttl_seconds_after_finished,
        termination_grace_period_seconds=training.termination_grace_period_seconds,
        service_account_name=training.service_account_name,
        priority_class_name=training.priority_class_name,
        queue_name=training.queue_name,
        node_selector=training.node_selector,
        tolerations=training.tolerations,
        pod_template=training.pod_template,
        secrets=_secrets(observed.model.spec, kind),
    )


def cleanup_settings(observed: Observed, resources: Resources) -> PodSettings:
    """Return how the clean-up runs: where training pods may run and as who they are, with the store's Secret only."""
    settings = pod_settings(observed, StageKind.GATE)
    return replace(
        settings,
        image=observed.settings.trainer_image,
        args=(),
        resources=resources,
        backoff_limit=CLEANUP_BACKOFF_LIMIT,
        active_deadline_seconds=CLEANUP_DEADLINE_SECONDS,
        queue_name=None,
    )


def _secrets(spec: ModelSpec, kind: StageKind) -> tuple[SecretEnvironment, ...]:
    """Return the Secrets a stage needs and no other; the store's comes first and keeps the plain variable names."""
    sources = []
    if kind is StageKind.DATASET and spec.dataset.secret_ref:
        sources.append(spec.dataset.secret_ref.name)
    if kind in _READS_BASE_MODEL and spec.base_model.secret_ref:
        sources.append(spec.base_model.secret_ref.name)
    store = spec.artifacts.secret_ref.name if spec.artifacts.secret_ref else None
    prefix = SOURCE_PREFIX if store else ""
    found = [SecretEnvironment(store)] if store else []
    found += [SecretEnvironment(name, prefix) for name in dict.fromkeys(sources) if name != store]
    if kind in (StageKind.KEYWORDS, StageKind.TRACES) and spec.teacher.secret_ref:
        found.append(SecretEnvironment(spec.teacher.secret_ref.name))
    return tuple(found)


def revision_child(observed: Observed, record: RevisionRecord) -> Child:
    """Return the child that keeps a revision's lineage."""
    return ControllerRevisionChild(owner_of(observed), record)


def serving_children(observed: Observed, target: RevisionRecord) -> list[Child]:
    """Return ConfigMap, Deployment and Service that serve one revision."""
    owner, deployment = owner_of(observed), deployment_child(observed, target)
    wish = observed.model.spec.serving
    config = ConfigMapChild(deployment.config_map, owner, serving_settings(wish), "serving")
    found: list[Child] = [config, deployment, ServiceChild(owner.name, owner)]
    most = wish.autoscaling.max_replicas if wish.autoscaling else wish.effective_replicas
    if most > 1 and not observed.settings.laptop:  # for a single pod it could only be in the way of a drain
        found.append(DisruptionBudgetChild(deployment.name, owner))
    if wish.autoscaling is not None and not observed.settings.laptop:
        found.append(AutoscalerChild(deployment.name, owner, deployment.name, wish.autoscaling))
    return found


_HASHES: Memo[tuple[str, str]] = Memo(32_768)
"""Name of the settings and digest of the pods, by what they are made from."""


def pods_hash(observed: Observed, target: RevisionRecord) -> str:
    """Return the digest of everything that makes the serving pods of a revision what they are."""
    return _pods_hashes(observed, target)[1]


def _pods_hashes(observed: Observed, target: RevisionRecord) -> tuple[str, str]:
    """Return the name of the pods' settings, and that digest."""
    spec, name, image = observed.model.spec, observed.model.metadata.name, _serving_image(observed)
    digest = target.bundle.digest

    def make() -> tuple[str, str]:
        config_map = child_name(name, "serving", content_hash(serving_settings(spec.serving))[:10])
        wish = spec.serving.model_dump(mode="json", by_alias=True, exclude=_NOT_IN_PODS, exclude_none=True)
        base = read.base_model(spec).model_dump(mode="json")
        return config_map, content_hash([wish, digest, base, image, config_map, _serving_account(spec)])

    return _HASHES.get((spec_digest(spec), name, digest, image), make)


def _serving_image(observed: Observed) -> str:
    return observed.model.spec.serving.image or observed.settings.inference_image


def _serving_account(spec: ModelSpec) -> str | None:
    return spec.serving.service_account_name or spec.training.service_account_name


def deployment_child(observed: Observed, target: RevisionRecord) -> DeploymentChild:
    """Return the Deployment of a revision, with the digest of everything that makes its pods what they are."""
    spec, owner = observed.model.spec, owner_of(observed)
    config_map, spec_hash = _pods_hashes(observed, target)
    return DeploymentChild(
        name=child_name(owner.name, "serving"),
        owner=owner,
        revision=target.name,
        bundle=target.bundle,
        bundle_uri=artifact_uri(spec.artifacts.storage_uri, StageKind.BUNDLE, target.bundle.key),
        base_model=read.base_model(spec),
        artifacts=spec.artifacts,
        serving=spec.serving,
        image=_serving_image(observed),
        fetch_image=spec.training.image or observed.settings.trainer_image,
        service_account_name=_serving_account(spec),
        config_map=config_map,
        secrets=_secrets(spec, StageKind.BUNDLE),
        spec_hash=spec_hash,
    )


def serving_settings(serving: Serving) -> tuple[tuple[str, str], ...]:
    """Return the environment of the serving container: the limits and the number format of `spec.serving`."""
    limits = serving.limits
    return (
        ("THINKREC_DEADLINE_MILLISECONDS", str(limits.deadline_milliseconds)),
        ("THINKREC_MAX_BODY_BYTES", str(limits.max_body_bytes)),
        ("THINKREC_MAX_CANDIDATES", str(limits.max_candidates)),
        ("THINKREC_MAX_EXPLANATION_TOKENS", str(limits.max_explanation_tokens)),
        ("THINKREC_PRECISION", serving.precision),
    )


def relative_uri(observed: Observed) -> str | None:
    """Return the field, and its value, that only means something on the laptop it was typed on."""
    spec = observed.model.spec
    named = {
        "spec.baseModel.storageUri": spec.base_model.storage_uri,
        "spec.dataset.storageUri": spec.dataset.storage_uri,
        "spec.dataset.items.storageUri": spec.dataset.items.storage_uri,
        "spec.collaborative.checkpointUri": spec.collaborative.checkpoint_uri or "",
        "spec.artifacts.storageUri": spec.artifacts.storage_uri,
    }
    for name, uri in named.items():
        if uri.startswith("file:") and not uri.startswith("file:/"):
            return f"`{name}` is {uri}"
    return None
