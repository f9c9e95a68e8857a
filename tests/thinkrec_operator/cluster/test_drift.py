# SPDX-License-Identifier: Apache-2.0
"""What counts as drift: our own values changed; what others add does not."""

from __future__ import annotations

from typing import Any

import pytest

from thinkrec_operator.cluster.drift import ANNOTATION_APPLIED, applied_hash, covers, stamped

WANTED: dict[str, Any] = {
    "metadata": {"name": "x", "labels": {"a": "1"}},
    "spec": {
        "replicas": 2,
        "template": {
            "containers": [
                {"name": "triton", "image": "i:1", "resources": {"limits": {"cpu": "1000m", "memory": "1Gi"}}},
                {"name": "gateway", "image": "g:1", "args": ["--a", "--b"]},
            ],
            "volumes": [{"name": "scratch", "emptyDir": {}}],
        },
    },
}


def live() -> dict[str, Any]:
    """Return it as an apiserver shows it: defaults, another order, rewritten quantities, an injected container."""
    return {
        "metadata": {"name": "x", "labels": {"a": "1", "theirs": "2"}, "uid": "u"},
        "spec": {
            "replicas": 2,
            "progressDeadlineSeconds": 600,
            "template": {
                "containers": [
                    {"name": "mesh", "image": "m"},
                    {"name": "gateway", "image": "g:1", "args": ["--a", "--b"], "imagePullPolicy": "IfNotPresent"},
                    {"name": "triton", "image": "i:1", "resources": {"limits": {"cpu": "1", "memory": "1024Mi"}}},
                ],
                "volumes": [{"name": "scratch", "emptyDir": {}}],
            },
        },
    }


def test_defaults_and_other_peoples_fields_are_no_drift() -> None:
    assert covers(live(), WANTED)


@pytest.mark.parametrize(
    "edit",
    [
        lambda body: body["spec"].__setitem__("replicas", 5),
        lambda body: body["spec"]["template"]["containers"].pop(1),
        lambda body: body["spec"]["template"]["containers"][1].__setitem__("args", ["--b", "--a"]),
        lambda body: body["spec"]["template"]["containers"][1]["args"].append("--c"),
        lambda body: body["spec"]["template"]["containers"][2].__setitem__("image", "i:2"),
        lambda body: body["spec"]["template"]["containers"][2]["resources"]["limits"].__setitem__("memory", "2Gi"),
        lambda body: body["metadata"]["labels"].pop("a"),
        lambda body: body["spec"]["template"]["volumes"].clear(),
    ],
)
def test_a_change_of_ours_is_drift(edit: Any) -> None:
    body = live()
    edit(body)
    assert not covers(body, WANTED)


def test_the_stamp_finds_what_a_manifest_no_longer_says() -> None:
    before = stamped({"metadata": {"name": "x"}, "spec": {"nodeSelector": {"gpu": "a"}}})
    after = stamped({"metadata": {"name": "x"}, "spec": {}})
    assert applied_hash(before) != applied_hash(after)
    assert before["metadata"]["annotations"][ANNOTATION_APPLIED] == applied_hash(before)
    assert not covers(before, after)
