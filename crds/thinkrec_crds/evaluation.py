# SPDX-License-Identifier: Apache-2.0
"""What the `evaluate` stage found: `metrics.json` and `explanations.json`, and their plain table for a terminal.

Metric names are those of `spec.evaluation.metrics`: AUC, UAUC, NDCG@k, MAP@k. `MAP@k` divides by all liked rows of the
user, and users without one count as 0 (in NDCG@k too), as in the published code; `MAP@k capped` divides by min(k, liked
rows) and leaves those users out, the usual definition.
"""

from __future__ import annotations

from typing import Literal

from thinkrec_crds.contract import Contract
from thinkrec_crds.engine_api import Branch
from thinkrec_crds.stages import BaseModelRef

METRICS_NAME = "metrics.json"
EXPLANATIONS_NAME = "explanations.json"
PREDICTIONS_NAME = "predictions.parquet"
REPORT_NAME = "report/index.html"
FUSED = "fused"
COLLABORATIVE = "collaborative"
MAIN_METRIC = "UAUC"
"""The metric that training stops on and that the verdict speaks of."""

RowKind = Literal["Base", "Collaborative", "General", "Expert", "BestExpert", "Fused", "Ablation", "Serving"]


class Estimate(Contract):
    """A value with its 95 % bootstrap interval over users; null where the rows do not define it."""

    value: float | None = None
    lower: float | None = None
    upper: float | None = None
    users: int = 0
    """Users that the value stands on."""

    def excludes_zero(self) -> bool:
        """Return whether the whole interval lies on one side of zero."""
        return self.lower is not None and self.upper is not None and (self.lower > 0 or self.upper < 0)


class EvaluationRow(Contract):
    """One scorer on one set of rows."""

    name: str
    """`base`, `collaborative`, `general`, `expert-<k>`, `best-expert`, `fused`, `serving`, or an ablation's name."""
    title: str
    kind: RowKind
    metrics: dict[str, Estimate]
    note: str = ""


class Difference(Contract):
    """Fused minus another row, paired over users on the same draws."""

    other: str
    """Name of the other row."""
    metrics: dict[str, Estimate]


class EvaluationSlice(Contract):
    """The table on a part of the rows."""

    name: Literal["all", "warm", "cold"]
    """`warm`: user and item both have train rows; `cold`: at least one has none."""
    users: int
    test_rows: int
    rows: tuple[EvaluationRow, ...]
    differences: tuple[Difference, ...] = ()

    def row(self, name: str) -> EvaluationRow | None:
        """Return the row of that name, or None."""
        return next((row for row in self.rows if row.name == name), None)


class TextMetrics(Contract):
    """Checks of the sampled explanations; each value is a mean over them, null where there is nothing to check."""

    explanations: int = 0
    agreement: float | None = None
    """Share whose text begins with the decision that the score implies."""
    grounding: float | None = None
    """Share that name no catalogue title outside of the history and the candidate."""
    words: float | None = None
    repetition: float | None = None
    """Share of word triples that occurred before in the same text; 0 is none."""
    rouge_l: float | None = None
    """ROUGE-L F1 against teacher traces of the same samples; null without them."""
    traces: int = 0
    """Traces that `rouge_l` stands on. The adapter was trained on them, so this is a fit, not a test."""


class EvaluationReport(Contract):
    """The content of metrics.json."""

    schema_version: Literal[1] = 1
    generation: str
    """Digest of the bundle that was evaluated."""
    base_model: BaseModelRef
    seed: int
    bootstrap_samples: int
    experts: int
    history_length: int
    users_with_test_rows: int
    """Of whom `all` holds a sample."""
    slices: tuple[EvaluationSlice, ...]
    """First `all`; then `warm` and `cold` where both exist."""
    branches: dict[Branch, int]
    """Users by the gate's decision."""
    text: TextMetrics = TextMetrics()

    @property
    def all_rows(self) -> EvaluationSlice:
        """The slice with every evaluated row."""
        return self.slices[0]


class HistoryLine(Contract):
    """One past interaction of an explained user."""

    item_id: str
    title: str
    liked: bool


class Explanation(Contract):
    """One sampled explanation with everything needed to judge it."""

    user_id: str
    history: tuple[HistoryLine, ...]
    """Oldest first, as in the prompt."""
    item_id: str
    title: str
    keywords: tuple[str, ...] = ()
    liked: bool
    """The truth."""
    score: float
    """fp32 logit."""
    decision: Literal["Yes", "No"]
    text: str
    gates: tuple[float, ...]
    """K expert weights and, last, the general adapter's."""
    branch: Branch


class ExplanationFile(Contract):
    """The content of explanations.json."""

    schema_version: Literal[1] = 1
    explanations: tuple[Explanation, ...]


def metrics_table(report: EvaluationReport, part: EvaluationSlice | None = None) -> list[tuple[str, ...]]:
    """Return a header and one line per row of `part` (default: all rows), as text: `0.683 [0.661, 0.704]`."""
    part = part or report.all_rows
    names = metric_names(part)
    lines = [tuple(_cell(row.metrics.get(name)) for name in names) for row in part.rows]
    return [("Model", *names), *((row.title, *line) for row, line in zip(part.rows, lines, strict=True))]


def metric_names(part: EvaluationSlice) -> list[str]:
    """Return the metrics of a slice in reading order: AUC, UAUC, NDCG@k, MAP@k by rising k (JSON sorts keys)."""
    return sorted({name for row in part.rows for name in row.metrics}, key=_reading_order)


def _reading_order(name: str) -> tuple[int, int, str]:
    family, _, rest = name.partition("@")
    known = ("AUC", "UAUC", "NDCG", "MAP")
    return (known.index(family) if family in known else len(known), int(rest.split()[0]) if rest else 0, name)


def _cell(estimate: Estimate | None) -> str:
    if estimate is None or estimate.value is None:
        return "-"
    if estimate.lower is None or estimate.upper is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} [{estimate.lower:.3f}, {estimate.upper:.3f}]"


def verdict(report: EvaluationReport) -> str:
    """Return one plain sentence: who is ahead on UAUC, fused model or CF encoder, and is it more than chance."""
    part = report.all_rows
    fused, other = part.row(FUSED), part.row(COLLABORATIVE)
    gap = next((d.metrics.get(MAIN_METRIC) for d in part.differences if d.other == COLLABORATIVE), None)
    if fused is None or other is None or gap is None or gap.value is None:
        return f"{MAIN_METRIC} is undefined here: no evaluated user has both liked and disliked test rows."
    ours, theirs = (row.metrics[MAIN_METRIC].value or 0.0 for row in (fused, other))
    if gap.value == 0:
        return f"Fused model and CF encoder are even on {MAIN_METRIC} ({ours:.3f})."
    ahead, behind = ("The fused model", "the CF encoder") if gap.value > 0 else ("The CF encoder", "the fused model")
    high, low = max(ours, theirs), min(ours, theirs)
    sure = "excludes zero" if gap.excludes_zero() else "includes zero, so this may be chance"
    return (
        f"{ahead} is ahead of {behind} on {MAIN_METRIC}, {high:.3f} against {low:.3f}; the 95 % interval of the paired "
        f"difference over {gap.users} users, [{_nearer(gap):.3f}, {_farther(gap):.3f}], {sure}."
    )


def _nearer(gap: Estimate) -> float:
    """Return the interval's lower end, seen from the side that is ahead."""
    lower, upper = gap.lower or 0.0, gap.upper or 0.0
    return lower if (gap.value or 0.0) > 0 else -upper


def _farther(gap: Estimate) -> float:
    """Return the interval's upper end, seen from the side that is ahead."""
    lower, upper = gap.lower or 0.0, gap.upper or 0.0
    return upper if (gap.value or 0.0) > 0 else -lower
