# SPDX-License-Identifier: Apache-2.0
"""Rights: a table of what the operator may do, and one of what it may not, read from the rendered roles.

The rules are evaluated as the API server does it; test_install.py asks the real one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pytest

from support import chart
from support.chart import Body
from support.rights import CONTRACT, EVERY_VERB, FORBIDDEN, WATCH
from thinkrec_crds import group


@dataclass(frozen=True, slots=True)
class Grant:
    """A rule that holds for an account, in one namespace or everywhere ("")."""

    namespace: str
    rule: Body

    def allows(self, api: str, resource: str, verb: str, namespace: str) -> bool:
        """Return whether it lets the account do this there."""
        return self.namespace in ("", namespace) and all(
            wanted in self.rule[part] or "*" in self.rule[part]
            for part, wanted in (("apiGroups", api), ("resources", resource), ("verbs", verb))
        )


def grants(objects: Iterable[Body], account: str) -> Iterator[Grant]:
    """Yield what the bindings give to one ServiceAccount."""
    found = list(objects)
    for binding in chart.of_kind(found, "RoleBinding", "ClusterRoleBinding"):
        if account not in [item["name"] for item in binding["subjects"] if item["namespace"] == chart.NAMESPACE]:
            continue
        where = binding["metadata"].get("namespace", "")
        for role in chart.of_kind(found, binding["roleRef"]["kind"]):
            same_place = role["metadata"].get("namespace", "") in ("", where)
            if role["metadata"]["name"] == binding["roleRef"]["name"] and same_place:
                yield from (Grant(where, rule) for rule in role["rules"])


def may(held: Iterable[Grant], api: str, resource: str, verb: str, namespace: str = "team-a") -> bool:
    return any(grant.allows(api, resource, verb, namespace) for grant in held)


@pytest.fixture(scope="module")
def cluster_wide() -> list[Body]:
    return chart.render()


@pytest.fixture(scope="module")
def namespaced() -> list[Body]:
    return chart.render({"namespaces": ["team-a", "team-b"]})


@pytest.fixture(params=["cluster_wide", "namespaced"])
def objects(request: pytest.FixtureRequest) -> list[Body]:
    found: list[Body] = request.getfixturevalue(request.param)
    return found


def test_the_operator_holds_exactly_the_contract(objects: list[Body]) -> None:
    held: dict[tuple[str, str], set[str]] = {}
    for grant in grants(objects, "thinkrec"):
        for api in grant.rule["apiGroups"]:
            for resource in grant.rule["resources"]:
                held.setdefault((api, resource), set()).update(grant.rule["verbs"])
    assert held == {what: set(verbs) for what, verbs in CONTRACT.items()}


@pytest.mark.parametrize(("api", "resource", "verb"), FORBIDDEN, ids=["/".join(row) for row in FORBIDDEN])
def test_what_no_account_of_ours_may_do(objects: list[Body], api: str, resource: str, verb: str) -> None:
    for account in ("thinkrec", "thinkrec-uninstall", "default"):
        assert not may(grants(objects, account), api, resource, verb), account


def test_no_rule_has_a_wildcard_or_an_address(objects: list[Body]) -> None:
    for role in chart.of_kind(objects, "Role", "ClusterRole"):
        for rule in role["rules"]:
            assert rule.keys() == {"apiGroups", "resources", "verbs"}
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]


def test_namespaced_mode_gives_nothing_elsewhere(namespaced: list[Body]) -> None:
    held = list(grants(namespaced, "thinkrec"))
    assert {grant.namespace for grant in held} == {"team-a", "team-b"}
    assert may(held, "batch", "jobs", "create", "team-b")
    for (api, resource), verbs in CONTRACT.items():
        for verb in verbs:
            assert not may(held, api, resource, verb, "team-c")
            assert not may(held, api, resource, verb, chart.NAMESPACE), "not even in its own namespace"
    assert chart.of_kind(namespaced, "ClusterRoleBinding") == []


def test_namespaced_mode_can_do_without_any_cluster_role() -> None:
    values = {"namespaces": ["team-a"], "rbac": {"aggregateToUserRoles": False}, "crds": {"install": False}}
    scoped = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "Namespace"}
    assert {body["kind"] for body in chart.render(values)} & scoped == set()


def test_two_releases_that_watch_one_namespace_do_not_share_a_role() -> None:
    def names(namespace: str) -> set[str]:
        done = chart.helm("template", "thinkrec", str(chart.CHART), "-n", namespace, "--set", "namespaces={team-a}")
        return {line for line in done.stdout.splitlines() if line.startswith("  name: ") and namespace in line}

    assert names("one")
    assert names("one") & names("two") == set()


def test_the_uninstall_may_take_finalizers_off_and_nothing_else(objects: list[Body]) -> None:
    rules = [grant.rule for grant in grants(objects, "thinkrec-uninstall")]
    wanted = {"apiGroups": ["thinkrec.io"], "resources": ["thinkrecmodels"], "verbs": ["get", "list", "patch"]}
    assert rules == [wanted] * len(rules)
    assert rules


class TestPeople:
    def role(self, objects: list[Body], suffix: str) -> Body:
        return chart.only(objects, "ClusterRole", suffix)

    def test_who_may_view_a_namespace_sees_models_and_experiments(self, cluster_wide: list[Body]) -> None:
        held = [Grant("", rule) for rule in self.role(cluster_wide, "-view")["rules"]]
        for plural in (group.MODEL_PLURAL, group.EXPERIMENT_PLURAL):
            assert all(may(held, group.GROUP, plural, verb) for verb in WATCH)
            assert not any(may(held, group.GROUP, plural, verb) for verb in set(EVERY_VERB) - set(WATCH))

    def test_who_may_edit_writes_spec_and_scale_but_never_status(self, cluster_wide: list[Body]) -> None:
        held = [Grant("", rule) for rule in self.role(cluster_wide, "-edit")["rules"]]
        for plural in (group.MODEL_PLURAL, group.EXPERIMENT_PLURAL):
            assert all(may(held, group.GROUP, plural, verb) for verb in set(EVERY_VERB) - set(WATCH))
            assert not any(may(held, group.GROUP, f"{plural}/status", verb) for verb in EVERY_VERB)
            assert not any(may(held, group.GROUP, f"{plural}/finalizers", verb) for verb in EVERY_VERB)
        assert may(held, group.GROUP, "thinkrecmodels/scale", "patch")

    def test_aggregation(self, cluster_wide: list[Body]) -> None:
        prefix = "rbac.authorization.k8s.io/aggregate-to-"
        for suffix, roles in (("-view", {"view", "edit", "admin"}), ("-edit", {"edit", "admin"})):
            labels = self.role(cluster_wide, suffix)["metadata"]["labels"]
            assert {name.removeprefix(prefix) for name in labels if name.startswith(prefix)} == roles


def test_rights_can_be_left_to_the_cluster() -> None:
    objects = chart.render({"rbac": {"create": False}})
    assert chart.of_kind(objects, "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding") == []


def test_an_account_that_is_there_already() -> None:
    objects = chart.render({"serviceAccount": {"create": False, "name": "robot"}})
    assert chart.pods(objects)["Deployment/thinkrec"]["serviceAccountName"] == "robot"
    assert may(grants(objects, "robot"), "batch", "jobs", "create")
    assert [body["metadata"]["name"] for body in chart.of_kind(objects, "ServiceAccount")] == ["thinkrec-uninstall"]
