# SPDX-License-Identifier: Apache-2.0
"""Figures as inline SVG whose colours are the page's own, so that they follow light and dark."""

from __future__ import annotations

import io
import re
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

TEXT, SOFT, ACCENT, SECOND, MUTED = "#010101", "#020202", "#030303", "#040404", "#050505"
"""Stand-ins, replaced by the page's CSS colours."""
_COLOURS = {
    TEXT: "currentColor",
    SOFT: "var(--line)",
    ACCENT: "var(--accent)",
    SECOND: "var(--second)",
    MUTED: "var(--muted)",
}
SERIES = ("#3b82c4", "#d9822b", "#2f9e77", "#b0568f", "#7a6fd0", "#c4483b", "#4aa3a8", "#9a8b3c", "#6b7d8f", "#a86f4a")
"""One colour per expert, readable on white and on near-black."""
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "thinkrec",
    "font.family": "sans-serif",
    "font.size": 11,
}


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a transparent figure (inches) with one quiet axes."""
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(SOFT)
    axes.tick_params(colors=TEXT, length=0, labelsize=10)
    axes.xaxis.label.set_color(TEXT)
    axes.yaxis.label.set_color(TEXT)
    return figure, axes


def to_svg(figure: Figure, description: str) -> Markup:
    """Return the figure as an accessible <svg> element that scales with the page; the same figure, the same text."""
    buffer = io.StringIO()
    with mpl.rc_context(_SETTINGS):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    for stand_in, colour in _COLOURS.items():
        text = text.replace(stand_in, colour)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1; font-family: inherit", text)
    label = Markup('<svg role="img" aria-label="{}"').format(description)
    return Markup(text.replace("<svg", str(label), 1))  # noqa: S704 - made here; the description is escaped
