# SPDX-License-Identifier: Apache-2.0
"""Fields that the contract has and nobody acts on yet, so that no wish is dropped in silence. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from thinkrec_crds.model import ModelSpec
from thinkrec_crds.spec_training import StageOverride, Training


def unsupported_fields(spec: ModelSpec, *, local: bool = False) -> list[str]:
    """Return one sentence for each field that is set and has no effect; `local`: where the laptop's driver runs it.

    A field goes from here in the change that makes it work.
    """
    found = [*_training(spec.training), *_serving(spec)]
    if spec.artifacts.deletion_policy == "Delete":
        found.append("`spec.artifacts.deletionPolicy` Delete is not implemented: artifacts stay in the store.")
    return found + (list(_laptop(spec)) if local else [])


def _training(training: Training) -> Iterator[str]:
    if training.backend != "Job":
        yield f"`spec.training.backend` {training.backend} is not implemented: stages run as Jobs."
    if training.runtime_ref is not None:
        yield "`spec.training.runtimeRef` is not implemented: it belongs to the backend TrainJob."
    for where, part in _parts(training):
        if part.nodes is not None and part.nodes > 1:
            yield f"`{where}.nodes` {part.nodes} is not implemented: each stage runs in one pod."
        if part.parallelism is not None and part.parallelism > 1:
            yield f"`{where}.parallelism` {part.parallelism} is not implemented: each stage runs in one pod."
    own_images = training.image is not None or any(stage.image is not None for stage in training.stages)
    if training.args and not own_images:
        yield "`spec.training.args` has no effect without an image of your own: the operator's takes none."


def _parts(training: Training) -> Iterator[tuple[str, Training | StageOverride]]:
    yield "spec.training", training
    for stage in training.stages:
        yield f"spec.training.stages[{stage.name}]", stage


def _serving(spec: ModelSpec) -> Iterator[str]:
    if spec.serving.gateway_image is not None:
        yield "`spec.serving.gatewayImage` is not implemented: the gateway runs in the pod and image of Triton."
    if spec.serving.autoscaling is not None:
        count = spec.serving.effective_replicas
        yield f"`spec.serving.autoscaling` is not implemented: nothing scales beyond `minReplicas`, {count}."


def _laptop(spec: ModelSpec) -> Iterator[str]:
    """Yield what a driver without a cluster leaves out."""
    if spec.schedule is not None and spec.schedule.cron is not None:
        yield f"`spec.schedule.cron` {spec.schedule.cron!r} is left out on this machine: nothing watches the clock."
    named = [("spec.training.image", spec.training.image), ("spec.serving.image", spec.serving.image)]
    named += [(f"spec.training.stages[{stage.name}].image", stage.image) for stage in spec.training.stages]
    for where, image in named:
        if image is not None:
            yield f"`{where}` {image} is left out on this machine: the installed thinkrec runs, without containers."
    if spec.serving.replicas is not None and spec.serving.replicas != 1:
        yield f"`spec.serving.replicas` {spec.serving.replicas} is left out on this machine: one server runs."
