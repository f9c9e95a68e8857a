# SPDX-License-Identifier: Apache-2.0
"""Tables and places that several subcommands show. Nothing is printed here."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from thinkrec_crds.model import ThinkRecModel
from thinkrec_crds.model_status import ModelStatus
from thinkrec_operator.local.store import local_path

REPORT_PAGE = "report/index.html"


def metrics_table(status: ModelStatus) -> Table:
    """Return the metrics of the latest revision, beside the collaborative baseline."""
    table = Table(title=f"{status.latest_revision or 'no revision'} on the test split", title_justify="left")
    for name in ("metric", "fused model", "95 % interval", "collaborative"):
        table.add_column(name, justify="left" if name == "metric" else "right")
    for metric in status.metrics:
        interval = f"{metric.lower} to {metric.upper}" if metric.lower and metric.upper else "-"
        table.add_row(metric.name, metric.value, interval, metric.baseline or "-")
    return table


def report_page(model: ThinkRecModel, status: ModelStatus, manifest: Path) -> str | None:
    """Return the path of the report page, its address where the store is not a folder, or None while there is none."""
    uri = next((row.artifact_uri for row in status.stages if row.kind == "evaluate"), None)
    if uri is None:
        return None
    folder = local_path(uri, manifest.resolve().parent)
    if folder is None:
        return f"{uri}/{REPORT_PAGE}"
    page = folder / REPORT_PAGE
    return str(page) if page.is_file() else None
