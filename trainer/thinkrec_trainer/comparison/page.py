# SPDX-License-Identifier: Apache-2.0
"""The page of an offline comparison: what happened in a sentence, every number, and the differences drawn."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from markupsafe import Markup

from thinkrec_crds.comparison import ComparisonReport, Difference
from thinkrec_crds.evaluation import REPORT_NAME, Estimate
from thinkrec_crds.stages import CompareParameters
from thinkrec_trainer.report.figures import draw_interval
from thinkrec_trainer.report.page import templates, thousands
from thinkrec_trainer.report.svg import ACCENT, MUTED, SOFT, new_figure, to_svg

LEVEL = 0.05
"""Of the sentence on the page; what an experiment decides on is its own `significanceLevel`."""


def write_page(output: Path, report: ComparisonReport, given: CompareParameters) -> Path:
    """Write report/index.html into the output and return its path."""
    path = output / REPORT_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(report, given), encoding="utf-8")
    return path


def render(report: ComparisonReport, given: CompareParameters) -> str:
    """Return the page's HTML. The same arguments give the same text."""
    environment = templates("thinkrec_trainer.comparison", "thinkrec_trainer.report")
    environment.filters |= {
        "thousands": thousands,
        "estimate": _estimate,
        "signed": partial(_estimate, form="+.4f"),
        "p_value": _p_value,
    }
    return environment.get_template("comparison.html.j2").render(
        report=report,
        metrics=given.metrics,
        others=[variant.name for variant in report.variants if variant.name != report.control],
        sentences=[sentence(d, given) for d in report.differences if d.metric == given.metrics[0]],
        pictures=[forest(report, metric) for metric in given.metrics],
    )


def sentence(difference: Difference, given: CompareParameters) -> str:
    """Return in plain words who is ahead on the deciding metric, and whether it is more than chance."""
    name, metric, effect = difference.variant, difference.metric, difference.effect
    if effect.value is None or difference.adjusted_p_value is None or effect.lower is None or effect.upper is None:
        rows = "no user's rows define it" if effect.value is None else "only one user's rows define it"
        return f"{name} cannot be compared with {given.control} on {metric}: {rows}."
    if effect.value == 0:
        return f"{name} and {given.control} are even on {metric}."
    better = (effect.value > 0) is not (metric in given.minimize)
    sure = difference.adjusted_p_value < LEVEL
    chance = "which is more than chance" if sure else "which may be chance"
    return (
        f"{name} is {'ahead of' if better else 'behind'} {given.control} on {metric} by {abs(effect.value):.4f}, "
        f"{chance} "
        f"(95 % interval of the difference over {effect.users} users [{effect.lower:+.4f}, {effect.upper:+.4f}], "
        f"p {_p_value(difference.adjusted_p_value)})."
    )


def forest(report: ComparisonReport, metric: str) -> Markup:
    """Draw each variant's difference from control with its interval, and a line at no difference."""
    rows = [d for d in report.differences if d.metric == metric and d.effect.value is not None]
    figure, axes = new_figure(5.6, 0.62 + 0.32 * max(1, len(rows)))
    axes.axvline(0.0, color=SOFT, linewidth=1, linestyle=(0, (2, 2)), zorder=0)
    for place, row in enumerate(rows):
        draw_interval(axes, place, row.effect, ACCENT if row.effect.excludes_zero() else MUTED)
    axes.set_yticks(range(len(rows)), [row.variant for row in rows])
    axes.set_ylim(max(1, len(rows)) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(f"{metric}, difference from {report.control}")
    return to_svg(figure, f"Differences of {metric} from {report.control} with 95 % intervals")


def _estimate(value: Estimate, form: str = ".4f") -> str:
    """Return a value with its interval, numbers in this format."""
    if value.value is None:
        return "-"
    if value.lower is None or value.upper is None:
        return f"{value.value:{form}}"
    return f"{value.value:{form}} [{value.lower:{form}}, {value.upper:{form}}]"


def _p_value(value: float | None) -> str:
    if value is None:
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
