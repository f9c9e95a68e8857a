# SPDX-License-Identifier: Apache-2.0
"""Fields that are set in vain where they are set, so that no wish is dropped in silence. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from thinkrec_crds.model import ModelSpec
from thinkrec_crds.scale_out import DISTRIBUTED_KINDS, SHARDED_KINDS
from thinkrec_crds.spec_training import StageOverride, Training
from thinkrec_crds.stage_kinds import StageKind


def unsupported_fields(spec: ModelSpec, *, local: bool = False) -> list[str]:
    """Return one sentence for each field that is set and has no effect; `local`: where the laptop's driver runs it."""
    found = [*_training(spec.training), *_serving(spec)]
    return found + (list(_laptop(spec)) if local else [])


def _training(training: Training) -> Iterator[str]:
    if training.backend == "TrainJob":
        yield from _train_job(training)
    elif training.runtime_ref is not None:
        yield "`spec.training.runtimeRef` has no effect: it belongs to the backend TrainJob."
    for stage in training.stages:
        yield from _spread_in_vain(stage)
    own_images = training.image is not None or any(stage.image is not None for stage in training.stages)
    if training.args and not own_images:
        yield "`spec.training.args` has no effect without an image of your own: the operator's takes none."


def _spread_in_vain(stage: StageOverride) -> Iterator[str]:
    """Yield the pods of a stage that cannot be spread in that way."""
    ways = ("nodes", stage.nodes, DISTRIBUTED_KINDS), ("parallelism", stage.parallelism, SHARDED_KINDS)
    for name, number, kinds in ways:
        if number is not None and number > 1 and stage.name not in kinds:
            yield f"`spec.training.stages[{stage.name}].{name}` {number} has no effect: it is for {_list(kinds)}."


def _list(kinds: Iterable[StageKind]) -> str:
    names = [kind.value for kind in StageKind if kind in kinds]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _train_job(training: Training) -> Iterator[str]:
    """Yield what a TrainJob has no field for."""
    named = {
        "backoffLimit": training.backoff_limit != Training().backoff_limit,
        "priorityClassName": training.priority_class_name is not None,
        "ttlSecondsAfterFinished": training.ttl_seconds_after_finished != Training().ttl_seconds_after_finished,
        "terminationGracePeriodSeconds": (
            training.termination_grace_period_seconds != Training().termination_grace_period_seconds
        ),
    }
    for name in (name for name, given in named.items() if given):
        yield f"`spec.training.{name}` has no effect with the backend TrainJob: set it in the runtime it names."


def _serving(spec: ModelSpec) -> Iterator[str]:
    wish, resources = spec.serving.autoscaling, spec.serving.resources
    follows_cpu = wish is not None and any(metric.name == "CPUUtilization" for metric in wish.metrics)
    if follows_cpu and "cpu" not in {*resources.requests, *resources.limits}:
        yield "`spec.serving.autoscaling` has nothing to measure CPUUtilization by: set `spec.serving.resources`."


def _one_process(training: Training) -> Iterator[str]:
    """Yield what has no effect where each stage is one process of this machine."""
    if training.backend != "Job":
        yield f"`spec.training.backend` {training.backend} is left out on this machine: stages run as processes."
    parts: list[tuple[str, Training | StageOverride]] = [("spec.training", training)]
    parts += [(f"spec.training.stages[{stage.name}]", stage) for stage in training.stages]
    for where, part in parts:
        for name, number in (("nodes", part.nodes), ("parallelism", part.parallelism)):
            if number is not None and number > 1:
                yield f"`{where}.{name}` {number} is left out on this machine: each stage runs as one process."


def _laptop(spec: ModelSpec) -> Iterator[str]:
    """Yield what a driver without a cluster leaves out."""
    yield from _one_process(spec.training)
    if spec.artifacts.deletion_policy == "Delete":
        yield "`spec.artifacts.deletionPolicy` Delete is left out on this machine: artifacts stay in the store."
    if spec.schedule is not None and spec.schedule.cron is not None:
        yield f"`spec.schedule.cron` {spec.schedule.cron!r} is left out on this machine: nothing watches the clock."
    named = [("spec.training.image", spec.training.image), ("spec.serving.image", spec.serving.image)]
    named += [("spec.serving.gatewayImage", spec.serving.gateway_image)]
    named += [(f"spec.training.stages[{stage.name}].image", stage.image) for stage in spec.training.stages]
    for where, image in named:
        if image is not None:
            yield f"`{where}` {image} is left out on this machine: the installed thinkrec runs, without containers."
    if spec.serving.autoscaling is not None:
        yield "`spec.serving.autoscaling` is left out on this machine: one server runs."
    if spec.serving.replicas is not None and spec.serving.replicas != 1:
        yield f"`spec.serving.replicas` {spec.serving.replicas} is left out on this machine: one server runs."
