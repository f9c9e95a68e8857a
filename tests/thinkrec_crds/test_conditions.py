# SPDX-License-Identifier: Apache-2.0
"""Condition types and reasons follow the API conventions and can be turned into a troubleshooting page."""

from __future__ import annotations

import re

import pytest

from thinkrec_crds.conditions import EXPERIMENT_CONDITIONS, MODEL_CONDITIONS, ConditionType, Reason

USED = {
    reason for table in (MODEL_CONDITIONS, EXPERIMENT_CONDITIONS) for reasons in table.values() for reason in reasons
}


@pytest.mark.parametrize("member", [*ConditionType, *Reason], ids=lambda member: repr(member))
def test_every_word_is_camel_case_and_explained(member: ConditionType | Reason) -> None:
    assert re.fullmatch(r"[A-Z][A-Za-z]*", member.value)
    assert f"{member}" == member.value
    assert re.match(r"^[A-Z`].*\.$", member.meaning)


@pytest.mark.parametrize("reason", list(Reason), ids=lambda reason: reason.value)
def test_a_remedy_is_a_sentence(reason: Reason) -> None:
    assert not reason.remedy or re.match(r"^[A-Z].*\.$", reason.remedy)


def test_what_stalls_has_a_remedy() -> None:
    for table in (MODEL_CONDITIONS, EXPERIMENT_CONDITIONS):
        assert [reason for reason in table[ConditionType.STALLED] if not reason.remedy] == []


def test_every_type_and_every_reason_is_used() -> None:
    assert set(MODEL_CONDITIONS) | set(EXPERIMENT_CONDITIONS) == set(ConditionType)
    assert set(Reason) - USED == set()


def test_reasons_are_not_repeated() -> None:
    for table in (MODEL_CONDITIONS, EXPERIMENT_CONDITIONS):
        for type_, reasons in table.items():
            assert len(reasons) == len(set(reasons)), type_


def test_transient_conditions_are_those_that_are_present_only_when_true() -> None:
    transient = {type_ for type_ in ConditionType if type_.transient}
    assert transient == {ConditionType.RECONCILING, ConditionType.STALLED, ConditionType.STALE}
