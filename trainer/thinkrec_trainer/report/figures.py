# SPDX-License-Identifier: Apache-2.0
"""The pictures of the report. Each function takes plain values and returns inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes

from thinkrec_crds.evaluation import Estimate, EvaluationRow
from thinkrec_trainer.report.svg import ACCENT, MUTED, SECOND, SERIES, SOFT, TEXT, new_figure, to_svg

_KIND_COLOURS = {"Fused": ACCENT, "Collaborative": SECOND}
WIDTH = 5.6
"""Inches: about the width of one column of the page."""


def forest(rows: Sequence[EvaluationRow], metric: str) -> Markup:
    """Draw each row's value with its interval; the fused model's value as a line for the eye."""
    known = [
        (row, row.metrics[metric]) for row in rows if metric in row.metrics and row.metrics[metric].value is not None
    ]
    figure, axes = new_figure(WIDTH, 0.62 + 0.32 * max(1, len(known)))
    for place, (row, found) in enumerate(known):
        draw_interval(axes, place, found, _KIND_COLOURS.get(row.kind, MUTED))
        if row.kind == "Fused" and found.value is not None:
            axes.axvline(found.value, color=ACCENT, linewidth=0.8, alpha=0.45, zorder=0)
    if metric in ("AUC", "UAUC"):
        axes.axvline(0.5, color=SOFT, linewidth=1, linestyle=(0, (2, 2)), zorder=0)
    axes.set_yticks(range(len(known)), [row.title for row, _ in known])
    axes.set_ylim(len(known) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(metric)
    return to_svg(figure, f"{metric} of each model with 95 % intervals")


def draw_interval(axes: Axes, place: int, found: Estimate, colour: str) -> None:
    """Draw a value as a dot on its own line, and its interval where it has one."""
    if found.lower is not None and found.upper is not None:
        axes.plot([found.lower, found.upper], [place, place], color=colour, linewidth=2, solid_capstyle="round")
    axes.plot([found.value or 0.0], [place], "o", color=colour, markersize=6)


def curves(points: Mapping[str, Sequence[Mapping[str, float]]], field: str, label: str) -> Markup | None:
    """Draw one value of curve.json over steps, a line per stage; None when no stage has it twice."""
    series = {
        name: [(point["step"], point[field]) for point in curve if point.get(field) is not None]
        for name, curve in points.items()
    }
    series = {name: values for name, values in series.items() if len(values) > 1}
    if not series:
        return None
    figure, axes = new_figure(WIDTH, 2.7)
    for number, (name, values) in enumerate(series.items()):
        steps, heights = zip(*values, strict=True)
        colour = SERIES[number % len(SERIES)]
        axes.plot(
            np.array(steps) / max(steps), heights, color=colour, linewidth=1.8, label=f"{name} ({int(max(steps))})"
        )
    axes.set_xlabel("share of the run (number of steps or epochs in brackets)")
    axes.set_ylabel(label)
    legend = axes.legend(frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_color(TEXT)
    return to_svg(figure, f"{label} during training")


def gate_weights(slots: Sequence[Sequence[float]], names: Sequence[str]) -> Markup:
    """Draw the histogram of each adapter's weight over users; users it has no part in are left out, not drawn at 0."""
    weights = np.asarray(slots, dtype=np.float64)
    figure, axes = new_figure(WIDTH, 2.7)
    parts = [weights[weights[:, slot] > 0.005, slot] for slot in range(len(names))]
    colours = [*SERIES[: len(names) - 1], MUTED] if len(names) - 1 <= len(SERIES) else None
    labels = [f"{name} ({len(part)})" for name, part in zip(names, parts, strict=True)]
    axes.hist(parts, bins=np.linspace(0, 1, 11).tolist(), stacked=True, color=colours, label=labels)
    axes.set_xlabel("weight of the adapter (number of users it serves in brackets)")
    axes.set_ylabel("users")
    legend = axes.legend(frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_color(TEXT)
    return to_svg(figure, "Histogram of gate weights")


def ratings(histogram: Sequence[Mapping[str, float]], threshold: float | None) -> Markup:
    """Draw how often each rating occurs; likes in the accent colour where the threshold is known."""
    figure, axes = new_figure(WIDTH, 2.3)
    for entry in histogram:
        liked = threshold is not None and entry["rating"] >= threshold
        axes.bar(f"{entry['rating']:g}", entry["rows"], color=ACCENT if liked else MUTED, width=0.7)
    axes.set_xlabel("rating")
    axes.set_ylabel("rows")
    return to_svg(figure, "Number of rows per rating")
