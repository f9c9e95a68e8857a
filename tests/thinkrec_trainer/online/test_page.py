# SPDX-License-Identifier: Apache-2.0
"""The page: what happened in a sentence for every state an experiment can be in, every number, nothing unescaped."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from thinkrec_crds.analysis_spec import Analysis
from thinkrec_crds.findings import (
    FindingsReport,
    GroupEffect,
    GuardrailCheck,
    Look,
    MetricEffect,
    MetricValue,
)
from thinkrec_crds.stages import AnalyseParameters
from thinkrec_trainer.online.gathered import Counts
from thinkrec_trainer.online.page import guardrail_state, render, write_page
from thinkrec_trainer.online.sentences import sentences

START = datetime(2026, 11, 28, 12, tzinfo=UTC)
GUARD = {"name": "slow", "request": {"field": "LatencyMilliseconds"}, "maximum": "500", "maxRegression": "0.1"}


def given(**more: Any) -> AnalyseParameters:
    analysis = {"metrics": [{"name": "likes", "event": {"name": "Like"}}], "guardrails": [GUARD]}
    body = {
        "experiment": "u1",
        "model": "movies",
        "mode": "ABTest",
        "control": "old",
        "variants": ("old", "new"),
        "start": START,
        "end": START + timedelta(hours=1),
        "number": 1,
        "analysis": Analysis.model_validate(analysis | more.pop("analysis", {})),
    }
    return AnalyseParameters.model_validate(body | more)


def effect(value: float = 0.02, **more: Any) -> MetricEffect:
    told = {"lower": value - 0.01, "upper": value + 0.01, "p_value": 0.0004, "relative": value / 0.4} | more
    return MetricEffect(variant="new", metric="likes", effect=value, **told)


def look(**more: Any) -> Look:
    body: dict[str, Any] = {
        "end": START + timedelta(hours=1),
        "users": {"old": 6000, "new": 4000},
        "exposures": {"old": 70_000, "new": 40_000},
        "fallbacks": {"old": 0, "new": 123},
        "expected": {"old": 0.6, "new": 0.4},
        "sample_ratio_p_value": 0.5,
        "enough": True,
        "values": (
            MetricValue(variant="old", metric="likes", value=0.4, lower=0.39, upper=0.41),
            MetricValue(variant="new", metric="likes", value=0.42, lower=0.4, upper=0.44),
        ),
        "effects": (effect(),),
    }
    return Look(**body | more)


def report(newest: Look, *earlier: Look, **more: Any) -> FindingsReport:
    return FindingsReport(
        control="old",
        variants=("old", "new"),
        metrics=("likes",),
        guardrails=("slow",),
        looks=(*earlier, newest),
        **more,
    )


def first(newest: Look, **more: Any) -> str:
    return sentences(report(newest), given(**more))[0]


def test_a_winner_is_told_with_its_difference() -> None:
    won = look(winner="new", effects=(effect(significant=True, better=True),))
    assert first(won) == ("new beats old on likes: the difference is +0.02 (+5 %, 95 % interval [+0.01, +0.03]).")
    lost = look(winner="old", effects=(effect(-0.02, significant=True),))
    assert first(lost).startswith("old beats new on likes: the difference is -0.02 (-5 %")


@pytest.mark.parametrize(
    ("newest", "told"),
    [
        (look(effects=(effect(0.001),)), "new and old may be alike on likes: the difference is +0.001"),
        (look(users={"old": 0, "new": 0}, enough=False), "No user has been counted yet."),
        (
            look(enough=False),
            "6\u202f000 of old, 4\u202f000 of new. Nothing is said before each variant has 1\u202f000.",
        ),
        (look(void=True, winner=None), "Users did not arrive in the expected proportion"),
        (look(effects=(effect(lower=None, upper=None),)), "new cannot be compared with old on likes yet."),
        (look(effects=(effect(significant=True),)), "new is worse than old on likes: the difference is +0.02"),
    ],
)
def test_every_state_has_its_sentence(newest: Look, told: str) -> None:
    assert told in first(newest)


def test_a_fixed_horizon_says_that_it_waits() -> None:
    fixed = {"method": "FixedHorizon"}
    assert first(look(), analysis=fixed).startswith("The planned time is not over")
    assert "planned time" not in first(look(), analysis=fixed, at_end=True)


def test_the_level_is_the_manifests() -> None:
    assert "90 % interval" in first(look(), analysis={"significanceLevel": "0.1"})


def test_a_broken_guardrail_is_told_whatever_else_happened() -> None:
    check = GuardrailCheck(variant="new", guardrail="slow", value=612.345, regression=0.25, violated=True)
    told = sentences(report(look(guardrails=(check,))), given())
    assert told[-1] == "new breaks the guardrail slow: its value is 612.3, 25 % worse than control's."
    page = render(report(look(guardrails=(check,))), given(), Counts(), moved=0)
    assert "at most 500, at most 10 % worse" in page
    assert ">violated<" in page


@pytest.mark.parametrize(
    ("check", "read_elsewhere", "state"),
    [
        ({"value": 1.0, "lower": 0.5, "upper": 1.5}, (), "kept"),
        ({"value": 1.0}, (), "cannot be told yet"),
        ({"value": 1.0}, ("slow",), "kept"),
        ({}, ("slow",), "no value"),
        ({"value": 1.0, "violated": True}, ("slow",), "violated"),
    ],
)
def test_a_guardrail_is_kept_only_if_something_is_known(
    check: dict[str, Any], read_elsewhere: tuple[str, ...], state: str
) -> None:
    assert guardrail_state(GuardrailCheck(variant="new", guardrail="slow", **check), read_elsewhere) == state


def test_the_page_holds_every_number(tmp_path: Path) -> None:
    check = GuardrailCheck(variant="new", guardrail="slow", value=98.7, lower=90.0, upper=101.5, regression=-0.03)
    groups = (GroupEffect(group="drama fans", variant="new", effect=0.017, lower=-0.01, upper=0.05, users=777),)
    earlier = [look(end=START + timedelta(minutes=minutes), effects=(effect(minutes / 1000),)) for minutes in (10, 30)]
    newest = look(guardrails=(check,), effects=(effect(reduction=0.37),), unavailable=("metric x: Prometheus is away",))
    told = report(newest, *earlier, groups=groups)
    counts = Counts(weights=("old=60,new=40",), events=4321, several=17)
    page = write_page(tmp_path, told, given(), counts, moved=99).read_text()
    for text in (
        "new against old",
        "4\u202f321",
        "0.42<small> [0.4, 0.44]",
        "+0.02<small> [+0.01, +0.03]",
        "&lt; 0.001",
        "37 % of the variance",
        "98.7<small> [90, 101.5]",
        ">kept<",
        "60.00 %",
        "70\u202f000",
        ">123<",
        "drama fans",
        "+0.017<small> [-0.01, +0.05]",
        "not corrected for their number",
        "metric x: Prometheus is away",
        "99 users are left out because a change of weights moved them",
        "17 users are left out because they were seen with several identities",
        "old=60,new=40",
        "How to read it",
        "more is better",
    ):
        assert text in page, text
    assert page.count("<svg") == 1
    assert "minutes since the start" in page
    assert page == render(told, given(), counts, moved=99), "the same arguments, the same text"


def test_what_others_named_is_escaped() -> None:
    told = report(
        look(unavailable=("metric x: <script>alert(1)</script>",)), groups=(GroupEffect(group="<b>", variant="new"),)
    )
    page = render(told, given(), Counts(weights=("<i>",)), moved=0)
    assert "<script>alert" not in page
    assert "<b>" not in page
    assert "<i>" not in page
    assert "&lt;script&gt;" in page
