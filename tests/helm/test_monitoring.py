# SPDX-License-Identifier: Apache-2.0
"""Alerts and dashboard: only metrics that exist, only labels and conditions that exist, each alert with its runbook."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from support import chart, markdown
from support.chart import Body
from thinkrec_crds.conditions import EXPERIMENT_CONDITIONS, MODEL_CONDITIONS

METRICS: dict[str, set[str]] = {
    "thinkrec_model_info": {"namespace", "name", "serving_revision", "latest_revision"},
    "thinkrec_model_condition": {"namespace", "name", "type", "status"},
    "thinkrec_model_age_seconds": {"namespace", "name"},
    "thinkrec_experiment_condition": {"namespace", "name", "type", "status"},
    "thinkrec_stage_duration_seconds_bucket": {"kind", "le"},
    "thinkrec_stage_duration_seconds_count": {"kind"},
    "thinkrec_queue_depth": set(),
    "thinkrec_reconcile_duration_seconds_bucket": {"le"},
    "thinkrec_reconcile_total": {"result"},
    "thinkrec_api_requests_total": {"verb", "kind", "code"},
    "thinkrec_watch_age_seconds": {"kind"},
    "thinkrec_watch_overdue_seconds": {"kind"},
    "thinkrec_event_loop_lag_seconds": set(),
}
"""Series of the operator and their labels; the names are a contract."""
METRIC = re.compile(r"\b(thinkrec_\w+)(?:\{([^}]*)\})?")
GROUPING = re.compile(r"\b(?:by|on)\s*\(([^)]*)\)")
ALERTING = {"metrics": {"prometheusRule": {"enabled": True}, "serviceMonitor": {"enabled": True}}}


def rules() -> list[Body]:
    rule = chart.only(chart.render(ALERTING, apis=[chart.MONITORING]), "PrometheusRule")
    return [alert for group in rule["spec"]["groups"] for alert in group["rules"]]


def panels() -> list[Body]:
    found: list[Body] = dashboard()["panels"]
    return found


def dashboard() -> Body:
    config_map = chart.only(chart.render({"metrics": {"dashboard": {"enabled": True}}}), "ConfigMap", "-dashboard")
    found: Body = json.loads(config_map["data"]["thinkrec.json"])
    return found


RULES = {alert["alert"]: alert for alert in rules()}
EXPRESSIONS = {name: alert["expr"] for name, alert in RULES.items()} | {
    f"{panel['title']}/{target['refId']}": target["expr"] for panel in panels() for target in panel["targets"]
}
EVERY_EXPRESSION = pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS.keys())


def problems(expression: str) -> Iterator[str]:
    """Yield what an expression mentions that the operator does not tell."""
    if not METRIC.search(expression):
        yield "it asks for no metric of ours"
    known: set[str] = set()
    for name, selector in METRIC.findall(expression):
        known |= METRICS.get(name, set())
        if name not in METRICS:
            yield f"there is no metric {name}"
        for label, value in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"([^\"]*)\"", selector):
            if label not in METRICS.get(name, set()):
                yield f"{name} has no label {label}"
            conditions = EXPERIMENT_CONDITIONS if "experiment" in name else MODEL_CONDITIONS
            if label == "type" and value not in conditions:
                yield f"there is no condition {value}"
            if label == "status" and value not in ("True", "False", "Unknown"):
                yield f"no condition has the status {value}"
    for group in GROUPING.findall(expression):
        yield from (f"no label {name}" for name in re.findall(r"\w+", group) if name not in known)
    for opening, closing in ("()", "{}", "[]"):
        if expression.count(opening) != expression.count(closing):
            yield f"unbalanced {opening}{closing}"


@EVERY_EXPRESSION
def test_an_expression_asks_for_what_is_told(expression: str) -> None:
    assert list(problems(expression)) == []


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("thinkrec_models_total > 1", "there is no metric thinkrec_models_total"),
        ('thinkrec_model_condition{type="Stale",state="True"}', "thinkrec_model_condition has no label state"),
        ('thinkrec_model_condition{type="Broken"}', "there is no condition Broken"),
        ('thinkrec_model_condition{status="true"}', "no condition has the status true"),
        ("sum by (model) (thinkrec_queue_depth)", "no label model"),
        ("up == 0", "it asks for no metric of ours"),
        ("max(thinkrec_queue_depth", "unbalanced ()"),
    ],
)
def test_the_check_itself(expression: str, problem: str) -> None:
    assert problem in list(problems(expression))


def test_the_table_is_what_the_operator_tells() -> None:
    metrics = pytest.importorskip("thinkrec_operator.cluster.metrics", exc_type=ImportError)
    told = {family.name for family in metrics.Metrics().registry.collect()}
    asked = {re.sub(r"_(bucket|count|total)$", "", name) for name in METRICS}
    assert asked <= told


@pytest.mark.parametrize("name", RULES)
class TestEveryAlert:
    def test_has_a_runbook_with_its_four_parts(self, name: str) -> None:
        page = (chart.ROOT / "docs" / "runbooks.md").read_text("utf-8")
        url = RULES[name]["annotations"]["runbook_url"]
        assert url.endswith(f"/docs/runbooks.md#{name.lower()}")
        assert name.lower() in markdown.anchors(page)
        section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
        for part in ("**Meaning.**", "**Impact.**", "kubectl ", "**Remedy.**"):
            assert part in section, part

    def test_has_a_severity_and_waits_before_it_fires(self, name: str) -> None:
        assert RULES[name]["labels"]["severity"] in ("critical", "warning")
        assert re.fullmatch(r"[1-9][0-9]*[mh]", RULES[name]["for"])

    def test_names_only_labels_that_its_result_has(self, name: str) -> None:
        used = set(re.findall(r"\$labels\.(\w+)", RULES[name]["annotations"]["summary"]))
        groups = GROUPING.findall(RULES[name]["expr"])
        kept = {label for group in groups for label in re.findall(r"\w+", group)}
        (metric, _), *_ = METRIC.findall(RULES[name]["expr"])
        assert used <= (kept or METRICS[metric])


def test_every_runbook_belongs_to_an_alert() -> None:
    page = (chart.ROOT / "docs" / "runbooks.md").read_text("utf-8")
    assert set(re.findall(r"^## (\w+)$", page, re.MULTILINE)) == set(RULES)


def test_few_alerts_wake_somebody() -> None:
    critical = {name for name, alert in RULES.items() if alert["labels"]["severity"] == "critical"}
    assert critical == {"ThinkRecModelUnavailable", "ThinkRecOperatorDown", "ThinkRecWatchStale"}


def test_a_threshold_follows_its_value() -> None:
    values: dict[str, Any] = {
        "metrics": {"prometheusRule": {"enabled": True, "modelProgressHours": 48, "queueDepth": 7}},
    }
    rule = chart.only(chart.render(values, apis=[chart.MONITORING]), "PrometheusRule")
    found = {alert["alert"]: alert for group in rule["spec"]["groups"] for alert in group["rules"]}
    assert found["ThinkRecQueueBacklog"]["expr"].endswith("> 7")
    assert found["ThinkRecModelProgressingLong"]["for"] == "48h"


def test_nothing_is_made_that_the_cluster_does_not_know() -> None:
    kinds = {body["kind"] for body in chart.render(ALERTING)}
    assert kinds & {"ServiceMonitor", "PrometheusRule"} == set()
    assert {"ServiceMonitor", "PrometheusRule"} <= {b["kind"] for b in chart.render(ALERTING, apis=[chart.MONITORING])}


def test_the_models_namespace_survives_the_scrape() -> None:
    """Else Prometheus renames our label to exported_namespace and puts the operator's in its place."""
    monitor = chart.only(chart.render(ALERTING, apis=[chart.MONITORING]), "ServiceMonitor")
    assert [endpoint["honorLabels"] for endpoint in monitor["spec"]["endpoints"]] == [True]


class TestDashboard:
    def test_panels_do_not_overlap(self) -> None:
        taken: dict[tuple[int, int], str] = {}
        for panel in panels():
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= 24
            for x in range(place["x"], place["x"] + place["w"]):
                for y in range(place["y"], place["y"] + place["h"]):
                    assert taken.setdefault((x, y), panel["title"]) == panel["title"]

    def test_every_panel_has_its_own_number_and_the_chosen_source(self) -> None:
        assert len({panel["id"] for panel in panels()}) == len(panels()) > 10
        assert {panel["datasource"]["uid"] for panel in panels()} == {"${datasource}"}

    def test_variables_are_declared(self) -> None:
        declared = {item["name"] for item in dashboard()["templating"]["list"]}
        assert set(re.findall(r"\$\{?(\w+)", json.dumps(panels()))) <= declared
