# SPDX-License-Identifier: Apache-2.0
"""The part of an experiment's status that is about its users. Pure."""

from __future__ import annotations

from thinkrec_crds.conditions import ConditionType, Reason
from thinkrec_crds.experiment_status import Conclusion
from thinkrec_operator.board import Board
from thinkrec_operator.experiments.observed import ObservedExperiment
from thinkrec_operator.experiments.online import Online, waiting_words
from thinkrec_operator.experiments.places import gateway_of
from thinkrec_operator.experiments.shares import all_to_control


def online_fields(observed: ObservedExperiment, online: Online | None) -> dict[str, object]:
    """Return the members of status that tell of users; none before it is their turn."""
    if online is None:
        return {}
    gateway = observed.models.get(gateway_of(observed.experiment.spec))
    return {
        "traffic_start_time": online.start,
        "current_step_index": online.step,
        "step_start_time": online.step_start,
        "analysis": online.analysis,
        "url": gateway.model.status.url if gateway is not None else None,
    }


def online_variant(observed: ObservedExperiment, online: Online | None, name: str, *, over: bool) -> dict[str, object]:
    """Return the members of a variant's status that tell of users; `over`: all of them are with control."""
    spec = observed.experiment.spec
    if spec.traffic is None:
        return {}
    if online is None:
        return {"weight": all_to_control(spec)[name]} if over else {}
    place = next((place for place in online.places if place.contender.name == name), None)
    found: dict[str, object] = {
        "weight": (all_to_control(spec) if over else online.weights)[name],
        "ready_replicas": place.ready_replicas if place is not None else None,
        "url": place.url if place is not None else None,
    }
    if name in online.users:
        found |= {"users": online.users[name], "exposures": online.exposures[name]}
    return found


def traffic_configured(board: Board, observed: ObservedExperiment, online: Online | None, *, over: bool) -> None:
    """Say whether the gateway shares out the users as specified."""
    kind, spec = ConditionType.TRAFFIC_CONFIGURED, observed.experiment.spec
    if spec.traffic is None:
        board.put(kind, "Unknown", Reason.PENDING.value, "`spec.traffic` is not set.")
    elif over:
        board.put(kind, "False", Reason.SUCCEEDED.value, "The experiment is over; nobody is shared out any more.")
    elif online is None:
        board.put(kind, "Unknown", Reason.PENDING.value, Reason.PENDING.meaning)
    elif spec.suspend:
        board.put(kind, "False", Reason.SUSPENDED.value, "All users are with control.")
    elif not online.places:
        told = "A variant is missing, so all users are with control."
        board.put(kind, "False", Reason.PROGRESSING.value, told)
    elif online.start is None:
        board.put(
            kind, "False", Reason.PROGRESSING.value, f"Waits for every variant to answer: {waiting_words(online)}"
        )
    elif any(place.contender.name == spec.control_variant_name for place in online.waiting):
        told = f"Nobody is shared out while control does not answer: {waiting_words(online)}"
        board.put(kind, "False", Reason.SERVING_NOT_READY.value, told)
    elif online.waiting:
        told = f"Control answers for variants that do not: {waiting_words(online)}"
        board.put(kind, "True", Reason.SERVING_NOT_READY.value, told)
    else:
        board.put(kind, "True", Reason.SUCCEEDED.value, f"Users are shared out: {_words(online)}.")


def _words(online: Online) -> str:
    return ", ".join(f"{name} {weight} %" for name, weight in online.weights.items())


def rolled_back(board: Board, observed: ObservedExperiment, conclusion: Conclusion | None) -> None:
    """Say whether users that another variant had are with control again."""
    kind, spec = ConditionType.ROLLED_BACK, observed.experiment.spec
    had = observed.experiment.status.traffic_start_time is not None and spec.traffic is not None
    if not had or conclusion is None or _mirrors(observed):
        board.put(kind, "False", Reason.PENDING.value, "No traffic was taken from control.")
    elif conclusion.winner not in (None, spec.control_variant_name):
        board.put(kind, "False", Reason.SIGNIFICANT_WINNER.value, f"Variant {conclusion.winner} won.")
    else:
        board.put(kind, "True", conclusion.reason, "All users are with control.")


def _mirrors(observed: ObservedExperiment) -> bool:
    traffic = observed.experiment.spec.traffic
    return traffic is not None and traffic.mode == "Mirror"
