# SPDX-License-Identifier: Apache-2.0
"""What the numbers of a page cannot say, in sentences. Pure."""

from __future__ import annotations

from thinkrec_crds.evaluation import MAIN_METRIC, EvaluationReport


def limits(report: EvaluationReport) -> list[str]:
    """Return the limits that hold for this report, the most important first."""
    part = report.all_rows
    fused = part.row("fused")
    counted = fused.metrics[MAIN_METRIC].users if fused and MAIN_METRIC in fused.metrics else 0
    found = [
        "One training run with one seed: the intervals show how much the choice of users matters, not how much another "
        "run would differ.",
        f"{part.users} of {report.users_with_test_rows} users with test rows were evaluated, {part.test_rows} rows; "
        f"{MAIN_METRIC} stands on the {counted} of them who both liked and disliked something.",
        "Rows are items that users chose to rate. Ranking these says little of ranking a whole catalogue.",
        "The CF encoder was stopped early on the validation split of all users; the language model saw only what its "
        "steps allowed. A longer training may change who is ahead.",
    ]
    if report.text.explanations:
        found.append(
            f"Explanations were checked on {report.text.explanations} samples. The checks find contradictions and "
            "foreign titles; they do not find a wrong argument."
        )
    if part.row("best-expert"):
        found.append("The best single expert was chosen on the same test rows, which flatters it.")
    return found
