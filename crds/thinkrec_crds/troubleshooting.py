# SPDX-License-Identifier: Apache-2.0
"""From conditions, reasons and exit codes to the troubleshooting page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from thinkrec_crds import group
from thinkrec_crds.artifact import ExitCode
from thinkrec_crds.conditions import EXPERIMENT_CONDITIONS, MODEL_CONDITIONS, ConditionType, Reason
from thinkrec_crds.exit_codes import Exit, ExplainedCode
from thinkrec_crds.markdown import anchor, code, generated_note, page, table
from thinkrec_crds.reference import COMMAND, SOURCE

Conditions = Mapping[ConditionType, tuple[Reason, ...]]

_KINDS: Final[tuple[tuple[str, Conditions], ...]] = (
    (group.MODEL_KIND, MODEL_CONDITIONS),
    (group.EXPERIMENT_KIND, EXPERIMENT_CONDITIONS),
)
_INTRODUCTION: Final = """\
A model says where it stands in its conditions: each has a status (True, False or Unknown), a reason in one word and a
message in a sentence. On a laptop `thinkrec status -f FILE` shows them, on a cluster `kubectl describe thinkrecmodel`.
Look at `Ready` first: its reason says what stands in the way. Then look the reason up here.

`thinkrec logs STAGE -f FILE` prints the newest log of a stage. A manifest is best checked before it is used:
`thinkrec validate -f FILE` names every mistake at once."""
_STAGES: Final = """\
`python -m thinkrec_trainer run stage.json` ends with one of these. Any other code is a failure that is tried again, up
to `spec.training.backoffLimit` times; 1 is a defect, with its traceback in the log."""


def troubleshooting() -> str:
    """Return the troubleshooting page."""
    return page(
        "# Troubleshooting",
        generated_note(SOURCE, COMMAND),
        _INTRODUCTION,
        *(block for kind, conditions in _KINDS for block in _conditions(kind, conditions)),
        "## Reasons that ask something of you",
        *(_explained(reason) for reason in _sorted(reason for reason in Reason if reason.remedy)),
        "## Reasons in the ordinary course of things",
        table(("reason", "meaning"), _ordinary()),
        "## Exit codes of `thinkrec`",
        _codes(Exit),
        "## Exit codes of a stage",
        _STAGES,
        _codes(ExitCode),
    )


def _conditions(kind: str, conditions: Conditions) -> Iterator[str]:
    yield f"## Conditions of a {kind}"
    rows = []
    for type_, reasons in conditions.items():
        when = " Present only while it is True." if type_.transient else ""
        rows.append((code(type_), type_.meaning + when, ", ".join(_link(reason) for reason in reasons)))
    yield table(("condition", "True means", "reasons"), rows)


def _link(reason: Reason) -> str:
    return f"[{reason}](#{anchor(reason)})" if reason.remedy else f"{reason}"


def _explained(reason: Reason) -> str:
    blocks = (f"### {reason}", reason.meaning, f"**What to do:** {reason.remedy}", f"Seen in {_places(reason)}.")
    return "\n\n".join(blocks)


def _places(reason: Reason) -> str:
    """Return the conditions in which a reason is seen."""
    found = {kind: [code(type_) for type_, said in table_.items() if reason in said] for kind, table_ in _KINDS}
    return "; ".join(f"{', '.join(types)} of a {kind}" for kind, types in found.items() if types)


def _ordinary() -> Iterator[tuple[str, str]]:
    yield from ((f"{reason}", reason.meaning) for reason in _sorted(item for item in Reason if not item.remedy))


def _sorted(reasons: Iterable[Reason]) -> list[Reason]:
    return sorted(reasons, key=lambda reason: reason.value.lower())


def _codes(codes: Iterable[ExplainedCode]) -> str:
    return table(("code", "meaning", "what to do"), [(f"{item.value}", item.meaning, item.remedy) for item in codes])
