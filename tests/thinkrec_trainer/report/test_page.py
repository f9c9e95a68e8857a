# SPDX-License-Identifier: Apache-2.0
"""The page: self-contained, escaped, honest about the baseline, the same bytes for the same facts."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest

from support.llm_stages import seal
from thinkrec_crds.engine_api import Branch
from thinkrec_crds.evaluation import (
    Difference,
    Estimate,
    EvaluationReport,
    EvaluationRow,
    EvaluationSlice,
    Explanation,
    HistoryLine,
    RowKind,
    TextMetrics,
    metrics_table,
    verdict,
)
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_crds.stages import BaseModelRef
from thinkrec_trainer.report.facts import Facts, Group, StageLine, gather
from thinkrec_trainer.report.limits import limits
from thinkrec_trainer.report.page import duration, gap_lines, percent, probability, render, thousands

VOID = {"meta", "br", "img", "link", "input", "hr"}


def row(name: str, kind: RowKind, value: float) -> EvaluationRow:
    found = Estimate(value=value, lower=value - 0.02, upper=value + 0.02, users=30)
    return EvaluationRow(name=name, title=name.title(), kind=kind, metrics={"UAUC": found, "AUC": found})


def report(fused: float = 0.61, gap: tuple[float, float, float] = (-0.07, -0.1, -0.04)) -> EvaluationReport:
    difference = Estimate(value=gap[0], lower=gap[1], upper=gap[2], users=30)
    part = EvaluationSlice(
        name="all",
        users=40,
        test_rows=400,
        rows=(row("base", "Base", 0.5), row("collaborative", "Collaborative", 0.68), row("fused", "Fused", fused)),
        differences=(Difference(other="collaborative", metrics={"UAUC": difference}),),
    )
    return EvaluationReport(
        generation="sha256:" + "a" * 64,
        base_model=BaseModelRef(storage_uri="file:models/tiny"),
        seed=0,
        bootstrap_samples=1000,
        experts=2,
        history_length=10,
        users_with_test_rows=900,
        slices=(part,),
        branches={Branch.ONE_HOT: 30, Branch.FUSED: 10},
        text=TextMetrics(explanations=1, agreement=1.0, grounding=0.5, words=12.0, repetition=0.0),
    )


EXPLANATION = Explanation(
    user_id="u<1>",
    history=(HistoryLine(item_id="i1", title="Tom & <b>Jerry</b>", liked=True),),
    item_id="i2",
    title="<script>alert(1)</script>",
    keywords=("war & peace",),
    liked=False,
    score=0.4,
    decision="Yes",
    text='Yes. "Because" <img src=x>',
    gates=(0.7, 0.3, 0.0),
    branch=Branch.FUSED,
)
FACTS = Facts(
    statistics={
        "users": 943,
        "items": 1682,
        "rows": {"train": {"rows": 80367, "users": 943, "items": 1600, "positiveShare": 0.55}},
        "density": 0.063,
        "coldUsers": 0,
        "coldItems": 32,
        "ratingHistogram": [{"rating": 1.0, "rows": 6110}, {"rating": 4.0, "rows": 34174}],
    },
    threshold=4.0,
    groups=(Group("drama <lovers>", 500, (("Schindler's List", 1.8),)), Group("action", 443, ())),
    curves={"adapter": [{"step": 1, "train_loss": 0.7}, {"step": 9, "train_loss": 0.5, "validation_uauc": 0.55}]},
    stages=(StageLine("dataset", 1.5, "cpu, Float32", "0" * 12, "1" * 12, "0.1.0", ""),),
)


def page() -> str:
    return render(
        report(),
        (EXPLANATION,),
        FACTS,
        slots=[(0.7, 0.3, 0.0), (1.0, 0.0, 0.0)],
        experts=["drama <lovers>", "action"],
    )


class Outline(HTMLParser):
    """Checks nesting and collects tags and their addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href") or name.endswith(":href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_needs_nothing_from_outside() -> None:
    outline = Outline()
    outline.feed(page())
    assert outline.open == []
    assert {"script", "link", "iframe", "img"}.isdisjoint(outline.tags)
    assert all(address.startswith("#") for address in outline.addresses), outline.addresses
    assert not re.search(r"url\((?!#)|@import", page())
    assert outline.tags.count("svg") == 5


def test_names_from_outside_are_escaped() -> None:
    text = page()
    for raw in ("<script>", "<b>Jerry", "<img src", "drama <lovers>", "u<1>"):
        assert raw not in text
    assert "Tom &amp; &lt;b&gt;Jerry&lt;/b&gt;" in text


def test_the_baseline_that_wins_is_on_the_page_and_named() -> None:
    text = page()
    assert "Collaborative" in text
    assert verdict(report()) in text
    assert "wrong</span>" in text, "the model said Yes, the user did not like it"


def test_the_same_facts_give_the_same_bytes() -> None:
    assert page() == page()


def test_colours_follow_the_reader() -> None:
    text = page()
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"#0[1-5]0[1-5]0[1-5]\b", text), "every stand-in colour of a figure is replaced"


def test_a_page_without_explanations_groups_or_statistics_is_still_a_page() -> None:
    bare = Facts(statistics=None, threshold=None, groups=(), curves={}, stages=())
    outline = Outline()
    outline.feed(render(report(), (), bare, slots=[], experts=["a", "b"]))
    assert outline.open == []


@pytest.mark.parametrize(
    ("fused", "gap", "begins", "ends"),
    [
        (0.61, (-0.07, -0.1, -0.04), "The CF encoder is ahead of the fused model", "[0.040, 0.100], excludes zero."),
        (0.74, (0.06, 0.01, 0.09), "The fused model is ahead of the CF encoder", "[0.010, 0.090], excludes zero."),
        (0.69, (0.01, -0.02, 0.03), "The fused model is ahead", "includes zero, so this may be chance."),
        (0.68, (0.0, 0.0, 0.0), "Fused model and CF encoder are even on UAUC", "(0.680)."),
    ],
)
def test_the_verdict_in_words(fused: float, gap: tuple[float, float, float], begins: str, ends: str) -> None:
    sentence = verdict(report(fused, gap))
    assert sentence.startswith(begins)
    assert sentence.endswith(ends)


def test_a_verdict_without_anything_to_say() -> None:
    found = report()
    nothing = found.all_rows.model_copy(update={"differences": ()})
    assert "undefined" in verdict(found.model_copy(update={"slices": (nothing,)}))


def test_the_plain_table() -> None:
    header, *lines = metrics_table(report())
    assert header == ("Model", "AUC", "UAUC")
    assert lines[1] == ("Collaborative", "0.680 [0.660, 0.700]", "0.680 [0.660, 0.700]")
    undefined = EvaluationSlice(
        name="all",
        users=1,
        test_rows=1,
        rows=(
            EvaluationRow(
                name="base", title="Base", kind="Base", metrics={"AUC": Estimate(), "UAUC": Estimate(value=0.5)}
            ),
        ),
    )
    assert metrics_table(report(), undefined)[1] == ("Base", "-", "0.500")


def test_a_difference_says_what_it_means() -> None:
    assert gap_lines(report().all_rows) == [("Collaborative", "-0.070 [-0.100, -0.040]", "fused is behind")]
    chance = report(gap=(0.01, -0.02, 0.03)).all_rows
    assert gap_lines(chance)[0][2] == "may be chance"
    same = report(gap=(0.0, 0.0, 0.0)).all_rows
    assert gap_lines(same)[0][2] == "the same order for every user"


def test_a_report_survives_its_file() -> None:
    assert EvaluationReport.from_json(report().to_json()) == report()


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (duration(12.34), "12.3 s"),
        (duration(200), "3 min 20 s"),
        (duration(59.96), "1 min 00 s"),
        (thousands(1234567), "1\u202f234\u202f567"),
        (percent(0.0), "0 %"),
        (percent(0.5), "50 %"),
        (percent(0.0631), "6.3 %"),
        (probability(0.0), "50 %"),
        (probability(-1e9), "< 0.1 %"),
    ],
)
def test_numbers_are_written_for_people(found: str, expected: str) -> None:
    assert found == expected


def test_limits_say_how_much_of_the_test_rows_was_evaluated() -> None:
    rows = {"train": {"rows": 800}, "test": {"rows": 1000}}
    told = limits(report(), replace(FACTS, statistics={"rows": rows}))[1]
    assert told.startswith("40 of 900 users with test rows were evaluated, on 400 rows of 1000: at most maxUsers")
    assert told.endswith("UAUC stands on the 30 of them who both liked and disliked something.")
    rows["test"]["rows"] = 400
    assert "maxUsers" not in limits(report(), replace(FACTS, statistics={"rows": rows}))[1]


@pytest.mark.parametrize(("share", "begins"), [(0.853, "85 % of the train rows"), (0.001, "less than 1 %")])
def test_limits_say_what_other_users_let_through(share: float, begins: str) -> None:
    told = limits(report(), replace(FACTS, later_train_share=share))
    assert [line for line in told if line.startswith(begins) and "GlobalTemporal" in line]
    for nothing in (0.0, None):
        assert "GlobalTemporal" not in " ".join(limits(report(), replace(FACTS, later_train_share=nothing)))


def test_limits_of_texts_are_told_where_texts_were_checked() -> None:
    assert "METEOR and BERTScore are not computed" in " ".join(limits(report(), FACTS))
    assert "without intervals" in " ".join(limits(report(), FACTS))
    silent = report().model_copy(update={"text": TextMetrics()})
    assert "METEOR" not in " ".join(limits(silent, FACTS))


@pytest.mark.parametrize(("test_times", "share"), [([25, 40], 0.5), ([50], 0.0), ([], None)])
def test_train_rows_later_than_the_earliest_test_row(
    tmp_path: Path, test_times: list[int], share: float | None
) -> None:
    """Train times 10, 20, 30, 40: of two splits by time only one lets the future in."""
    for name, times in {"train": [10, 20, 30, 40], "test": test_times}.items():
        table = {"timestamp": pl.Series(times, dtype=pl.Int64), "rating": [5.0] * len(times)}
        pl.DataFrame(table).with_columns(liked=True).write_parquet(tmp_path / f"{name}.parquet")
    found = gather({"dataset": seal(tmp_path, StageKind.DATASET)}, [])
    assert found.later_train_share == share
    assert found.absent == ("keywords", "collaborative", "traces", "adapter", "projector", "gate", "expert", "bundle")
