# SPDX-License-Identifier: Apache-2.0
"""Buckets that no weight ever moved: by brute force over the buckets themselves."""

from __future__ import annotations

import pytest

from thinkrec_crds.buckets import BUCKETS, bucket_counts, bucket_table
from thinkrec_trainer.online.weights import comparable, owners, parsed, shares

TWO = ("control", "new")
THREE = ("new", "control", "other")


def test_a_text_is_read_in_its_own_order() -> None:
    assert parsed("control=90,new=10") == (("control", 90), ("new", 10))
    assert parsed("a=b=3,c=0") == (("a=b", 3), ("c", 0))


@pytest.mark.parametrize("text", ["", "control", "control=", "=3", "control=-1", "control=1.5", "a=1,,b=2", "a=²"])
def test_another_text_is_no_weights(text: str) -> None:
    assert parsed(text) is None
    assert not comparable(text, TWO)


def test_weights_compare_only_if_everybody_has_a_share() -> None:
    assert comparable("control=99,new=1", TWO)
    assert not comparable("control=100,new=0", TWO)
    assert not comparable("control=0,new=100", TWO)
    assert not comparable("control=50,new=50", THREE), "a variant that is not named has none"
    assert comparable("control=50,new=25,other=25", TWO)


def test_one_step_keeps_everything() -> None:
    found = owners("u1", ["control=90,new=10"], TWO)
    assert shares(found, TWO) == {"control": 0.9, "new": 0.1}
    assert [TWO[place] for place in found[[0, 999, 1000, 9999]]] == ["new", "new", "control", "control"]


def test_the_buckets_between_two_steps_are_lost() -> None:
    found = owners("u1", ["control=90,new=10", "control=70,new=30", "control=100,new=0", "nonsense"], TWO)
    assert (found == -1).sum() == 2000
    assert set(found[1000:3000]) == {-1}
    assert shares(found, TWO) == pytest.approx({"control": 7 / 8, "new": 1 / 8})


def test_three_variants_by_brute_force() -> None:
    steps = [
        (("control", 80), ("new", 10), ("other", 10)),
        (("control", 60), ("new", 30), ("other", 10)),
        (("control", 34), ("new", 33), ("other", 33)),
    ]
    found = owners("u1", [",".join(f"{name}={share}" for name, share in step) for step in steps], THREE)
    names = [[step[index][0] for index in bucket_table("u1", step)] for step in steps]
    wanted = [THREE.index(each[0]) if len(set(each)) == 1 else -1 for each in zip(*names, strict=True)]
    assert found.tolist() == wanted
    assert 0 < (found == -1).sum() < BUCKETS


def test_shares_of_one_step_are_those_that_the_gateway_gave() -> None:
    step = (("control", 34), ("new", 33), ("other", 33))
    found = shares(owners("u7", ["control=34,new=33,other=33"], THREE), THREE)
    assert found == {name: count / BUCKETS for name, count in bucket_counts("u7", step).items()}


def test_a_variant_that_is_not_analysed_keeps_no_bucket() -> None:
    found = owners("u1", ["control=50,gone=30,new=20"], TWO)
    counts = bucket_counts("u1", (("control", 50), ("gone", 30), ("new", 20)))
    assert (found == -1).sum() == counts["gone"]


@pytest.mark.parametrize("texts", [[], ["control=100,new=0"], ["?"]])
def test_without_comparable_weights_nothing_is_kept(texts: list[str]) -> None:
    found = owners("u1", texts, TWO)
    assert set(found) == {-1}
    assert shares(found, TWO) == {}
