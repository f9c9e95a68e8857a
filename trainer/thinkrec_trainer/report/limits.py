# SPDX-License-Identifier: Apache-2.0
"""What the numbers of a page cannot say, in sentences. Pure."""

from __future__ import annotations

from thinkrec_crds.evaluation import MAIN_METRIC, EvaluationReport
from thinkrec_trainer.report.facts import Facts


def limits(report: EvaluationReport, facts: Facts) -> list[str]:
    """Return the limits that hold for this report, the most important first."""
    return [
        "One training run with one seed: the intervals show how much the choice of users matters, not how much another "
        "run would differ.",
        *_rows(report, facts),
        *_time(facts),
        "Every test row of a user is scored with the history before the user's first test row. That history holds the "
        "validation rows, which are newer than the rows that the CF encoder was fitted on.",
        "Rows are items that users chose to rate. Ranking these says little of ranking a whole catalogue.",
        "The CF encoder was stopped early on the validation split of all users; the language model saw only what its "
        "steps allowed. A longer training may change who is ahead.",
        *_texts(report),
        *(
            ["The best single expert was chosen on the same test rows, which flatters it."]
            if report.all_rows.row("best-expert")
            else []
        ),
    ]


def _rows(report: EvaluationReport, facts: Facts) -> list[str]:
    """Say how much of the test split was evaluated, and how many users the main metric stands on."""
    part = report.all_rows
    fused = part.row("fused")
    counted = fused.metrics[MAIN_METRIC].users if fused and MAIN_METRIC in fused.metrics else 0
    there = facts.statistics["rows"].get("test", {}).get("rows") if facts.statistics else None
    cut = f" of {there}: at most maxUsers users, and of each the earliest maxRowsPerUser rows"
    return [
        f"{part.users} of {report.users_with_test_rows} users with test rows were evaluated, on {part.test_rows} rows"
        f"{cut if there and part.test_rows < there else ''}. {MAIN_METRIC} stands on the {counted} of them who both "
        "liked and disliked something."
    ]


def _time(facts: Facts) -> list[str]:
    """Say what of the future others let through: a split per user keeps only the user's own future out."""
    share = facts.later_train_share
    if not share:
        return []
    shown = f"{100 * share:.0f} %" if share >= 0.01 else "less than 1 %"
    return [
        f"{shown} of the train rows are later than the earliest test row. No user's own future was seen, but CF "
        "vectors and groups know what other users did meanwhile; dataset.split: GlobalTemporal excludes that too."
    ]


def _texts(report: EvaluationReport) -> list[str]:
    if not report.text.explanations:
        return []
    return [
        f"Explanations were checked on {report.text.explanations} samples. The checks find contradictions and foreign "
        "titles; they do not find a wrong argument.",
        "The checks of texts are plain means without intervals. METEOR and BERTScore are not computed: the one needs "
        "WordNet, the other a language model of its own, and neither comes with the package.",
    ]
