# SPDX-License-Identifier: Apache-2.0
"""The pictures of an online experiment, as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from markupsafe import Markup
from matplotlib.axes import Axes

from thinkrec_crds.findings import FindingsReport
from thinkrec_trainer.report.figures import WIDTH
from thinkrec_trainer.report.svg import SERIES, SOFT, TEXT, new_figure, to_svg

Point = tuple[float, float, float | None, float | None]
"""Time since the start, effect, lower, upper."""


def over_time(report: FindingsReport, start: datetime) -> Markup | None:
    """Draw the deciding metric's effect at each look with its band, a line per variant; None before there is any."""
    others = [name for name in report.variants if name != report.control]
    unit, unit_name = _unit(report.newest.end - start)
    series = {name: _points(report, name, start, unit) for name in others}
    series = {name: points for name, points in series.items() if points}
    if not series:
        return None
    figure, axes = new_figure(1.6 * WIDTH, 3.0)
    axes.axhline(0.0, color=SOFT, linewidth=1, linestyle=(0, (2, 2)), zorder=0)
    for place, (name, points) in enumerate(series.items()):
        _draw(axes, name, points, SERIES[place % len(SERIES)])
    axes.set_xlabel(f"{unit_name} since the start")
    axes.set_ylabel(f"{report.metrics[0]}, minus {report.control}")
    for text in axes.legend(frameon=False, fontsize=9).get_texts():
        text.set_color(TEXT)
    return to_svg(figure, f"Difference of {report.metrics[0]} from {report.control} over time, with its interval")


def _draw(axes: Axes, name: str, points: Sequence[Point], colour: str) -> None:
    """Draw one variant's line; the band is there from the look on at which there are users enough."""
    axes.plot([time for time, *_ in points], [effect for _, effect, *_ in points], color=colour, label=name)
    axes.plot(*[[value] for value in points[-1][:2]], "o", color=colour, markersize=6)
    known = [(time, lower, upper) for time, _, lower, upper in points if lower is not None and upper is not None]
    if len(known) > 1:
        times, lowers, uppers = zip(*known, strict=True)
        axes.fill_between(times, lowers, uppers, color=colour, alpha=0.18, linewidth=0)
    elif known:
        axes.plot([known[0][0]] * 2, known[0][1:], color=colour, linewidth=2, solid_capstyle="round")


def _points(report: FindingsReport, variant: str, start: datetime, unit: timedelta) -> list[Point]:
    return [
        ((look.end - start) / unit, effect.effect, effect.lower, effect.upper)
        for look in report.looks
        for effect in look.effects
        if effect.variant == variant and effect.metric in report.metrics[:1] and effect.effect is not None
    ]


def _unit(span: timedelta) -> tuple[timedelta, str]:
    """Return a unit in which the span is a number that one can read."""
    if span > timedelta(days=3):
        return timedelta(days=1), "days"
    return (timedelta(hours=1), "hours") if span > timedelta(hours=3) else (timedelta(minutes=1), "minutes")
