# SPDX-License-Identifier: Apache-2.0
"""What a decision about an experiment sees, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from thinkrec_crds.artifact import TerminationMessage
from thinkrec_crds.experiment import ThinkRecExperiment
from thinkrec_crds.model import ThinkRecModel
from thinkrec_operator.observed import (
    ChildRef,
    JobObservation,
    Refusal,
    RevisionRecord,
    ServingObservation,
    Settings,
)

_SETTINGS = Settings()


@dataclass(frozen=True, slots=True)
class ObservedModel:
    """A model that a variant names, or whose gateway shares out the users."""

    model: ThinkRecModel
    revisions: tuple[RevisionRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class ObservedExperiment:
    """Everything one decision depends on."""

    experiment: ThinkRecExperiment
    """Spec, metadata and the status written last."""
    now: datetime
    settings: Settings = _SETTINGS
    models: Mapping[str, ObservedModel] = field(default_factory=lambda: MappingProxyType({}))
    """By name, those that exist."""
    jobs: tuple[JobObservation, ...] = ()
    config_maps: tuple[str, ...] = ()
    """Names of the experiment's own ConfigMaps that exist."""
    completed: Mapping[str, TerminationMessage] = field(default_factory=lambda: MappingProxyType({}))
    """Key -> published result, for work known to be finished without a Job that says so."""

    deployments: Mapping[str, ServingObservation] = field(default_factory=lambda: MappingProxyType({}))
    """Name of a variant -> its Deployment."""
    other_children: tuple[ChildRef, ...] = ()
    """Deployments and Services of the experiment's own."""
    refusals: tuple[Refusal, ...] = ()
    """Children that the apiserver refused."""

    @property
    def generation(self) -> int:
        """Return the generation of the spec."""
        return self.experiment.metadata.generation

    @property
    def first_visit(self) -> bool:
        """Return whether no status was ever written."""
        return not self.experiment.status.conditions

    @property
    def concluded(self) -> bool:
        """Return whether there is a verdict; nothing changes it any more."""
        return self.experiment.status.conclusion is not None
