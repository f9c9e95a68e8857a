# SPDX-License-Identifier: Apache-2.0
"""The pages about the cluster keep to the chart: links, values, rights, settings, verdicts."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import chart as chart_files
import pytest
import yaml

from support import chart, markdown
from support.rights import CONTRACT

DOCS = chart.ROOT / "docs"
PAGES = {name: (DOCS / f"{name}.md").read_text("utf-8") for name in ("install", "rbac", "gitops", "runbooks")}
OTHERS = [
    chart.ROOT / "helm" / "README.md",
    chart.CHART / "README.md",
    chart.ROOT / "examples" / "gitops" / "README.md",
]
SCHEMA = json.loads((chart.CHART / "values.schema.json").read_text("utf-8"))
DEFAULTS = yaml.safe_load((chart.CHART / "values.yaml").read_text("utf-8"))
LEAVES = {path for path, _, _ in chart_files.leaves(SCHEMA, DEFAULTS)}
KNOWN = LEAVES | {path.rpartition(".")[0] for path in LEAVES}


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: str(path.relative_to(chart.ROOT)))
def test_links_of_the_pages_beside_the_code(path: Path) -> None:
    assert list(markdown.broken_links(path.read_text("utf-8"), path)) == []


def test_values_that_the_pages_name_exist() -> None:
    roots = {path.split(".")[0] for path in LEAVES if "." in path} - {"image", "resources"}
    named = [span.partition("=")[0] for page in PAGES.values() for span in markdown.spans(page)]
    ours = {span for span in named if re.fullmatch(r"[a-zA-Z]+(\.[a-zA-Z]+)+", span) and span.split(".")[0] in roots}
    assert len(ours) > 15
    assert ours - KNOWN == set()


def test_helm_commands_of_the_pages_render() -> None:
    """Each is run as `helm template` with the same options: a value that is gone, or of another type, is refused."""
    shown = [line for page in PAGES.values() for line, complete in markdown.commands(page, "helm") if complete]
    tried = 0
    for line in shown:
        words = shlex.split(line)
        if words[1] in ("install", "upgrade", "template"):
            options = [word for word in words[2:] if word not in ("--reset-then-reuse-values", "--create-namespace")]
            done = chart.helm("template", *options)
            assert done.returncode == 0, f"{line}: {done.stderr}"
            tried += 1
    assert tried >= 5


def test_the_table_of_rights_is_the_contract() -> None:
    rows = re.findall(r"^\| ([\w.-]+) \| ([^|]+) \| ([\w, ]+) \| [^|]+ \|$", PAGES["rbac"], re.MULTILINE)
    told: dict[tuple[str, str], set[str]] = {}
    for api, resources, verbs in rows:
        for name in told_resources(resources):
            told.setdefault(("" if api == "core" else api, name), set()).update(verbs.split(", "))
    assert told == {what: set(verbs) for what, verbs in CONTRACT.items()}


def told_resources(cell: str) -> list[str]:
    both = re.fullmatch(r"both, `(/\w+)`", cell)
    return [f"{kind}{both[1]}" for kind in ("thinkrecmodels", "thinkrecexperiments")] if both else cell.split(", ")


def test_the_table_of_settings_is_what_the_chart_sets() -> None:
    rows = dict(re.findall(r"^\| `([\w.]+)` \| `(THINKREC_\w+)`", PAGES["install"], re.MULTILINE))
    (container,) = chart.pods([chart.only(chart.render(), "Deployment")])["Deployment/thinkrec"]["containers"]
    assert set(rows.values()) == {e["name"] for e in container["env"] if e["name"].startswith("THINKREC_")}
    assert set(rows) <= LEAVES
