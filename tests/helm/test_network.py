# SPDX-License-Identifier: Apache-2.0
"""Network policies: what is let through, which pods they select, and that their ports are those of the pods."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from support import chart
from support.chart import Body
from thinkrec_crds import group
from thinkrec_operator.manifests import serving

PEER = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}


def policy(values: dict[str, Any], suffix: str = "") -> Body:
    found: Body = chart.only(chart.render({"networkPolicy": values}), "NetworkPolicy", suffix)["spec"]
    return found


def ports(rule: Body) -> set[Any]:
    return {item["port"] for item in rule["ports"]}


def test_none_is_made_unless_asked_for() -> None:
    assert chart.of_kind(chart.render(), "NetworkPolicy") == []


class TestOperator:
    def test_selects_the_operator_and_not_the_pods_of_hooks(self) -> None:
        objects = chart.render({"networkPolicy": {"operator": {"enabled": True}}})
        selector = chart.only(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"].items()
        assert selector <= chart.only(objects, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
        assert not selector <= chart.only(objects, "Pod")["metadata"]["labels"].items()
        assert not selector <= chart.only(objects, "Job")["spec"]["template"]["metadata"]["labels"].items()

    def test_lets_out_to_names_and_the_apiserver_only(self) -> None:
        spec = policy({"operator": {"enabled": True, "apiServerCidrs": ["10.0.0.1/32"], "apiServerPorts": [6443]}})
        dns, api = spec["egress"]
        assert ports(dns) == {53}
        assert api == {"ports": [{"port": 6443, "protocol": "TCP"}], "to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}]}

    def test_lets_in_scrapes_from_chosen_peers_and_the_test_pod(self) -> None:
        objects = chart.render({"networkPolicy": {"operator": {"enabled": True, "metricsFrom": [PEER]}}})
        metrics, health = chart.only(objects, "NetworkPolicy")["spec"]["ingress"]
        assert (ports(metrics), metrics["from"]) == ({"metrics"}, [PEER])
        assert ports(health) == {"health"}
        (peer,) = health["from"]
        assert peer["podSelector"]["matchLabels"].items() <= chart.only(objects, "Pod")["metadata"]["labels"].items()


class TestServing:
    ON: ClassVar[dict[str, Any]] = {"enabled": True, "namespaces": ["team-a"]}

    def test_selects_what_the_operator_labels(self) -> None:
        spec = policy({"serving": self.ON})
        wanted = {item["key"]: item["values"] for item in spec["podSelector"]["matchExpressions"]}
        assert wanted == {group.LABEL_MANAGED_BY: [group.MANAGED_BY], group.LABEL_COMPONENT: ["serving", "gateway"]}
        assert serving.COMPONENT in wanted[group.LABEL_COMPONENT]

    def test_ports_are_those_of_the_pods(self) -> None:
        gateway, triton, metrics = policy({"serving": {**self.ON, "metricsFrom": [PEER]}})["ingress"]
        assert ports(gateway) == {serving.HTTP_PORT}
        assert ports(triton) == {serving.TRITON_HTTP_PORT, serving.TRITON_GRPC_PORT, serving.HTTP_PORT}
        assert ports(metrics) == {serving.TRITON_METRICS_PORT, serving.ENGINE_METRICS_PORT}

    def test_triton_is_asked_by_our_own_pods_only(self) -> None:
        spec = policy({"serving": {**self.ON, "from": [PEER]}})
        gateway, triton = spec["ingress"]
        assert gateway["from"] == [PEER]
        assert triton["from"] == [{"podSelector": spec["podSelector"]}]

    def test_lets_out_to_names_ours_and_the_store(self) -> None:
        given = {**self.ON, "storePorts": [8333], "storeCidrs": ["10.1.0.0/16"]}
        dns, ours, store = policy({"serving": given})["egress"]
        assert ports(dns) == {53}
        assert ports(ours) == {serving.TRITON_HTTP_PORT, serving.TRITON_GRPC_PORT, serving.HTTP_PORT}
        assert (ports(store), store["to"]) == ({8333}, [{"ipBlock": {"cidr": "10.1.0.0/16"}}])

    @pytest.mark.parametrize(("own", "expected"), [([], ["a", "b"]), (["c"], ["c"])])
    def test_holds_in_each_namespace(self, own: list[str], expected: list[str]) -> None:
        values = {"namespaces": ["a", "b"], "networkPolicy": {"serving": {"enabled": True, "namespaces": own}}}
        found = chart.of_kind(chart.render(values), "NetworkPolicy")
        assert [body["metadata"]["namespace"] for body in found] == expected
