# SPDX-License-Identifier: Apache-2.0
"""`thinkrec run` of a manifest with an experiment: its models first, then the comparison."""

from __future__ import annotations

import webbrowser
from collections.abc import Sequence
from pathlib import Path

import typer
from rich.table import Table

from thinkrec_crds.exit_codes import Exit
from thinkrec_crds.experiment import ThinkRecExperiment
from thinkrec_crds.experiment_status import ExperimentStatus
from thinkrec_crds.model import ThinkRecModel
from thinkrec_crds.validation import Resource
from thinkrec_operator.cli.common import err, fail, open_state, warn_of_fields_without_effect
from thinkrec_operator.cli.run import CODES, OutputFormat, Wish, drive, working
from thinkrec_operator.cli.tables import REPORT_PAGE
from thinkrec_operator.experiments.places import gateway_of
from thinkrec_operator.local.outcome import Outcome
from thinkrec_operator.local.state import State
from thinkrec_operator.local.store import local_path

Models = dict[str, tuple[ThinkRecModel, State]]


def compare(
    found: Sequence[Resource],
    file: Path,
    state_dir: Path | None,
    cpus: int,
    *,
    output: OutputFormat,
    report: bool,
) -> Exit:
    """Train the models of a manifest, then compare them; return how it ended."""
    experiment, models = _sorted(found, file, state_dir)
    for model, state in models.values():
        warn_of_fields_without_effect(model)
        outcome = drive(model, state, Wish(file, cpus, train=True, serve=False, port=0), output=output, command="run")
        if outcome not in (
            Outcome.DONE,
            Outcome.GATE_FAILED,
        ):  # a revision that missed its gates counts for none
            stalled = state.status().condition("Stalled")
            typer.echo(f"error: model {model.metadata.name}: {stalled.message if stalled else outcome.value}", err=True)
            return CODES[outcome]
    return _experiment(experiment, models, file, open_state(experiment, file, state_dir), cpus, output, report)


def _sorted(found: Sequence[Resource], file: Path, state_dir: Path | None) -> tuple[ThinkRecExperiment, Models]:
    experiments = [resource for resource in found if isinstance(resource, ThinkRecExperiment)]
    if len(experiments) > 1:
        names = ", ".join(one.metadata.name for one in experiments)
        fail(f"{file} has {len(experiments)} experiments ({names}); put each into a file of its own", Exit.BAD_INPUT)
    (experiment,) = experiments
    if experiment.spec.offline is None:
        told = "`spec.offline` is not set, and without test rows nobody's taste is known on a laptop"
        fail(f"{told}; write `offline: {{}}` to compare the variants on their test rows", Exit.BAD_INPUT)
    if experiment.spec.traffic is not None:
        err.print("a laptop has no users: simulated ones like what the test rows say", soft_wrap=True)
    namespace = experiment.metadata.namespace
    models = [r for r in found if isinstance(r, ThinkRecModel) and r.metadata.namespace == namespace]
    named = {gateway_of(experiment.spec), *(variant.model_ref.name for variant in experiment.spec.variants)}
    wanted = [model for model in models if model.metadata.name in named]
    return experiment, {model.metadata.name: (model, open_state(model, file, state_dir)) for model in wanted}


def _experiment(
    experiment: ThinkRecExperiment,
    models: Models,
    file: Path,
    state: State,
    cpus: int,
    output: OutputFormat,
    report: bool,
) -> Exit:
    from thinkrec_operator.local.experiment import ExperimentDriver
    from thinkrec_operator.local.jobs import JobOptions

    folder = file.resolve().parent
    with working(state, output=output, command="run") as view:
        driver = ExperimentDriver(experiment, models, state, folder=folder, jobs=JobOptions(folder, cpus), view=view)
        outcome = driver.run()
    _tell(outcome, state, file, show=report)
    return CODES[outcome]


def _tell(outcome: Outcome, state: State, file: Path, *, show: bool) -> None:
    """Say in a sentence how it ended and what can be done next."""
    status = state.experiment_status()
    told, folder = status.conclusion, file.resolve().parent
    looked = status.analysis.artifact_uri if status.analysis is not None else None
    page, users_page = page_of(status.report_uri, folder), page_of(looked, folder)
    if outcome is Outcome.INTERRUPTED:
        err.print(f"stopped; to go on: thinkrec run -f {file}", soft_wrap=True)
    elif outcome is Outcome.SUSPENDED:
        err.print("suspended: set `spec.suspend` to false to go on")
    elif told is not None:
        err.print(variants_table(status))
        err.print(f"{told.reason}: {told.message}", soft_wrap=True)
        if page is not None:
            err.print(f"report: {page}", soft_wrap=True)
        if users_page is not None:
            err.print(f"report on simulated users: {users_page}", soft_wrap=True)
    else:
        found = status.condition("Stalled") or status.condition("VariantsReady")
        typer.echo(f"error: {found.message if found else outcome.value}\nlogs: {state.logs}", err=True)
    for shown in (page, users_page):
        if show and shown is not None and "://" not in shown:
            webbrowser.open(Path(shown).as_uri())


def variants_table(status: ExperimentStatus) -> Table:
    """Return each variant's revision, its metrics on the test rows, and those of its users where there were some."""
    names = list(dict.fromkeys(metric.name for row in status.variants for metric in row.metrics))
    table = Table(title="variants", title_justify="left")
    for name in ("variant", "revision", *names):
        table.add_column(name)
    for row in status.variants:
        values = {m.name: f"{m.value} [{m.lower}, {m.upper}]" if m.lower else m.value for m in row.metrics}
        table.add_row(row.name, row.resolved_revision or "-", *(values.get(name, "-") for name in names))
    return table


def page_of(uri: str | None, folder: Path) -> str | None:
    """Return the path of a comparison's page, its address where the store is no folder, or None while there is none."""
    if uri is None:
        return None
    local = local_path(uri, folder)
    if local is None:
        return f"{uri}/{REPORT_PAGE}"
    page = local / REPORT_PAGE
    return str(page) if page.is_file() else None
