# SPDX-License-Identifier: Apache-2.0
"""findings.json: the newest look, and those before it. Pure but for reading the look before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pydantic

from thinkrec_crds.findings import FINDINGS_NAME, MOST_LOOKS, PREVIOUS_ROLE, FindingsReport, Look
from thinkrec_crds.stages import AnalyseParameters
from thinkrec_trainer.context import StageContext
from thinkrec_trainer.errors import BadInput
from thinkrec_trainer.online.gathered import Gathered
from thinkrec_trainer.online.mirrored import summaries
from thinkrec_trainer.online.verdict import Known


@dataclass(frozen=True, slots=True)
class Before:
    """The look that this one goes on from."""

    key: str
    """Of its artifact."""
    report: FindingsReport


def report(given: AnalyseParameters, known: Known, gathered: Gathered, before: Before | None = None) -> FindingsReport:
    """Return the whole report."""
    metrics = given.analysis.metrics if given.analysis is not None else ()
    guardrails = given.analysis.guardrails if given.analysis is not None else ()
    others = [name for name in given.variants if name != given.control]
    return FindingsReport(
        control=given.control,
        variants=given.variants,
        metrics=tuple(metric.name for metric in metrics),
        guardrails=tuple(guard.name for guard in guardrails),
        looks=history(
            before.report.looks if before is not None else (), known.look, deciding=metrics[0].name if metrics else ""
        ),
        groups=known.groups,
        mirrored=summaries(gathered.counts.mirrored, others) if given.mode == "Mirror" else (),
        previous=before.key if before is not None else None,
    )


def history(earlier: Sequence[Look], newest: Look, *, deciding: str, most: int = MOST_LOOKS) -> tuple[Look, ...]:
    """Return the looks before, with the deciding metric only, and the newest one; `most` at most.

    Where they are too many, every second one of the older half goes, never the first: what was long ago is told more
    and more coarsely. Looks that are not older than the newest one (a clock was set back) are left out.
    """
    older = [_reduced(look, deciding) for look in earlier if look.end < newest.end]
    while len(older) + 1 > most:
        half = max(2, len(older) // 2)
        older = [look for place, look in enumerate(older) if place >= half or place % 2 == 0]
    return (*older, newest)


def look_before(context: StageContext) -> Before | None:
    """Return the input `previous`, None without it; raise BadInput when it is no report."""
    artifact = context.inputs.get(PREVIOUS_ROLE)
    if artifact is None:
        return None
    try:
        return Before(artifact.manifest.key, FindingsReport.from_json(artifact.file(FINDINGS_NAME).read_bytes()))
    except pydantic.ValidationError as error:
        raise BadInput(
            f"input {PREVIOUS_ROLE!r}: {FINDINGS_NAME} is none of this version ({error.errors()[0]['msg']}); "
            "leave the input out, and the history begins anew"
        ) from error


def _reduced(look: Look, deciding: str) -> Look:
    return look.model_copy(
        update={
            "values": tuple(value for value in look.values if value.metric == deciding),
            "effects": tuple(effect for effect in look.effects if effect.metric == deciding),
            "guardrails": (),
            "unavailable": (),
        }
    )
