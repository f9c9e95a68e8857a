# SPDX-License-Identifier: Apache-2.0
"""How users are shared out, and what the gateway is told about it. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from thinkrec_crds.experiment import ExperimentSpec, ThinkRecExperiment
from thinkrec_crds.experiment_spec import Assignment
from thinkrec_crds.experiment_status import VariantStatus
from thinkrec_crds.traffic import TrafficAssignment, TrafficExperiment, TrafficVariant


def shares(spec: ExperimentSpec, step: int | None) -> dict[str, int]:
    """Return each variant's share of the users in percent; a Mirror leaves all of them with control."""
    names, control, traffic = [v.name for v in spec.variants], spec.control_variant_name, spec.traffic
    assert traffic is not None, "only traffic is shared out"
    if traffic.mode == "Mirror":
        return all_to_control(spec)
    if traffic.mode == "Canary":
        assert traffic.steps is not None, "a rule of the resource"
        weight = traffic.steps[min(step or 0, len(traffic.steps) - 1)].weight
        return {name: 100 - weight if name == control else weight for name in names}
    if spec.variants[0].weight is not None:
        return {variant.name: variant.weight or 0 for variant in spec.variants}
    each, rest = divmod(100, len(names))
    return {name: each + (rest if name == control else 0) for name in names}


def all_to_control(spec: ExperimentSpec) -> dict[str, int]:
    """Return the shares before the start, while suspended, and after the end."""
    return {variant.name: 100 * (variant.name == spec.control_variant_name) for variant in spec.variants}


def _told(assignment: Assignment | None) -> TrafficAssignment:
    if assignment is None:
        return TrafficAssignment()
    return TrafficAssignment(type=assignment.type, key=None if assignment.type == "Random" else assignment.key)


def table_entry(experiment: ThinkRecExperiment) -> TrafficExperiment | None:
    """Return what the gateway is told, from status alone; None while the users are not shared out.

    Without a control that answers there is no experiment: its users would have nobody to fall back to.
    """
    spec, status, traffic = experiment.spec, experiment.status, experiment.spec.traffic
    told: Mapping[str, VariantStatus] = {row.name: row for row in status.variants}
    control = told.get(spec.control_variant_name)
    ended = status.conclusion is not None or experiment.metadata.deletion_timestamp is not None
    if traffic is None or ended or spec.suspend or status.traffic_start_time is None:
        return None
    if control is None or not control.ready_replicas or any(not row.resolved_revision for row in told.values()):
        return None
    assignment = traffic.assignment
    return TrafficExperiment(
        uid=experiment.metadata.uid,
        name=experiment.metadata.name,
        mode=traffic.mode,
        assignment=_told(assignment),
        mirror_percent=traffic.mirror_percent,
        control=spec.control_variant_name,
        variants=tuple(
            TrafficVariant(
                name=row.name,
                revision=row.resolved_revision or "",
                url=row.url,
                weight=row.weight or 0,
                ready=bool(row.ready_replicas),
            )
            for row in status.variants
        ),
    )
