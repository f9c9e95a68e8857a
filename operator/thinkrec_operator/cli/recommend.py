# SPDX-License-Identifier: Apache-2.0
"""`thinkrec recommend`: ask the running model and show the answer as a table."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import httpx
import typer
from pydantic import ValidationError
from rich.table import Table

from thinkrec_crds.exit_codes import Exit
from thinkrec_crds.gateway_api import GatewayErrorView, RecommendationView
from thinkrec_operator.cli.common import StateOption, app, fail, load, open_state, out
from thinkrec_operator.local.find import models_below, models_in
from thinkrec_operator.local.state import StateDamaged

URL_VARIABLE = "THINKREC_URL"
_SHOWN_EXPLANATIONS = 50
"""The gateway's own limit of explained items."""


@app.command()
def recommend(
    user: Annotated[str, typer.Option("--user", metavar="ID", help="The user's id, as in the ratings.")],
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            "-f",
            metavar="FILE",
            help="Manifest of the model that serves here; default: the only one that serves in or below this folder.",
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="Items to recommend.")] = 10,
    *,
    explain: Annotated[bool, typer.Option("--explain", help="Write a reason for each item.")] = False,
    url: Annotated[
        str | None,
        typer.Option("--url", help=f"Address of any gateway, for example http://127.0.0.1:8080; or ${URL_VARIABLE}."),
    ] = None,
    state_dir: StateOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="The gateway's own answer.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds to wait for the answer.")] = 300.0,
) -> None:
    """Ask the running model for a user's best unseen items.

    **Examples**

    - `thinkrec recommend --user 42 -k 10 --explain`
    - `thinkrec recommend -f model.yaml --user 42`
    - `thinkrec recommend --url http://127.0.0.1:8080 --user 42 --json`
    """
    base = url or _server(file, state_dir)
    body = {"userId": user, "k": k, "explain": explain, "explainTop": min(k, _SHOWN_EXPLANATIONS)}
    text = _ask(base.rstrip("/"), body, timeout)
    if as_json:
        typer.echo(text)
        return
    try:
        answer = RecommendationView.from_json(text)
    except ValidationError as error:
        fail(f"{base} answered something else than recommendations: {error.errors()[0]['msg']}", Exit.UNAVAILABLE)
    out.print(recommendation_table(answer, explain=explain))
    for line in summary(answer):
        out.print(line)


def _server(file: Path | None, state_dir: Path | None) -> str:
    """Return the address of the manifest's server, else the one in the environment, else of the only one around."""
    try:
        if file is not None:
            return _server_of(file, state_dir)
        return os.environ.get(URL_VARIABLE) or _only_server(state_dir)
    except StateDamaged as error:
        fail(str(error), Exit.BAD_INPUT)


def _only_server(state_dir: Path | None) -> str:
    found = models_below(Path.cwd()) if state_dir is None else models_in(state_dir)
    serving = [model for model in found if model.url is not None]
    if len(serving) == 1 and serving[0].url is not None:
        return serving[0].url
    remedy = f"name one with --file FILE, --url URL or {URL_VARIABLE}"
    if serving:
        lines = "".join(f"\n  {model.name} at {model.url} ({model.folder})" for model in serving)
        fail(f"{len(serving)} models serve below {state_dir or Path.cwd()}; {remedy}:{lines}", Exit.USAGE)
    known = ", ".join(model.name for model in found)
    there = f"the models there, {known}, do not serve" if found else "there is no model"
    where = state_dir or f"{Path.cwd()} and two folders deep"
    return fail(
        f"nothing serves in {where}: {there}; first: thinkrec serve -f FILE --detach; or {remedy}", Exit.UNAVAILABLE
    )


def _server_of(file: Path, state_dir: Path | None) -> str:
    serving = open_state(load(file), file, state_dir).serving()
    if serving is None:
        fail(f"nothing serves here; first: thinkrec serve -f {file} --detach", Exit.UNAVAILABLE)
    return serving.url


def _ask(base: str, body: dict[str, object], timeout: float) -> str:
    """Return the gateway's answer, or end with its own sentence."""
    try:
        response = httpx.post(f"{base}/v1/recommend", json=body, timeout=timeout, trust_env=False)
    except httpx.TimeoutException:
        fail(f"{base} did not answer within {timeout:g} s; ask for fewer items, or raise --timeout", Exit.UNAVAILABLE)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        fail(f"no gateway answers at {base}: {error}; is `thinkrec serve` running?", Exit.UNAVAILABLE)
    if response.is_success:
        return response.text
    try:
        told = GatewayErrorView.from_json(response.text)
        message = f"{told.error}. {told.remedy}".strip()
    except ValidationError:
        message = f"{base} answered {response.status_code}"
    return fail(message, Exit.UNAVAILABLE if response.is_server_error else Exit.BAD_INPUT)


def recommendation_table(answer: RecommendationView, *, explain: bool) -> Table:
    """Return one row for each item."""
    table = Table(title=f"for user {answer.user_id}", title_justify="left")
    table.add_column("#", justify="right")
    table.add_column("title")
    table.add_column("score", justify="right")
    table.add_column("CF rank", justify="right")
    table.add_column("before")
    if explain:
        table.add_column("reason", overflow="fold")
    for item in answer.items:
        row = [
            str(item.rank),
            item.title,
            f"{item.score:.3f}",
            str(item.cf_rank or "-"),
            "seen!" if item.seen else "new",
        ]
        table.add_row(*row, *([item.reason or "-"] if explain else []))
    return table


def summary(answer: RecommendationView) -> list[str]:
    """Return how the answer came about: gate weights, branch, checks."""
    weights = "  ".join(f"{gate.expert} {gate.weight:.2f}" for gate in answer.gates)
    seen = sum(item.seen for item in answer.items)
    lines = [f"gate: {weights}  ({answer.branch})" if weights else ""]
    lines.append(f"seen before: {seen} of {len(answer.items)}" if seen else "seen before: none, as it should be")
    if answer.cold_start:
        lines.append("cold start: nothing is known about this user, so the general adapter scored")
    return [line for line in lines if line]
