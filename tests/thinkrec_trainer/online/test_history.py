# SPDX-License-Identifier: Apache-2.0
"""What users did before the experiment (CUPED), and the looks before this one."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.stages import as_artifact
from thinkrec_crds.findings import FINDINGS_NAME, FindingsReport, GuardrailCheck, Look, MetricEffect, MetricValue
from thinkrec_trainer import analyse
from thinkrec_trainer.analysis.analyse import analyse as compare
from thinkrec_trainer.analysis.results import Metric, Plan
from thinkrec_trainer.analysis.sums import sums_of
from thinkrec_trainer.errors import BadInput
from thinkrec_trainer.online.findings import history
from thinkrec_trainer.store.file_blobs import FileBlobs

Log = Any
NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
WATCH = {"name": "watched", "event": {"type": "Mean", "name": "Watch", "cap": "50"}}
GIVEN = {"metrics": [WATCH], "minSampleSize": 50, "lookbackSeconds": 3600}


def lived(log: Log) -> dict[str, tuple[list[float], list[float]]]:
    """Log what 60 users a variant did, and return variant -> (values, history); every third user is new."""
    generator, told = np.random.default_rng(3), {}
    for side, variant in (("c", "control"), ("n", "new")):
        values, before = [], []
        for number in range(60):
            eager = float(generator.gamma(2.0, 2.0))
            values.append(min(50.0, eager * 2 + float(generator.random())))
            before.append(eager if number % 3 else float("nan"))
            log.act(f"{side}{number}", "Watch", 5, value=values[-1])
            if number % 3:
                log.act(f"{side}{number}", "Watch", -30, value=eager / 2)
                log.act(f"{side}{number}", "Watch", -10, value=eager / 2)
            log.act(f"{side}{number}", "Watch", -61, value=1000.0)
        told[variant] = (values, before)
    return told


def test_cuped_takes_what_users_did_in_the_lookback(log: Log, crowd: Sequence[str]) -> None:
    told = lived(log)
    found = log.look(GIVEN)
    (effect,) = found.report.newest.effects
    plan = Plan("control", (Metric("watched"),), {"control": 1, "new": 1}, minimum_users=50)
    arms = {
        variant: {"watched": sums_of("Mean", np.array(values), np.array(before))}
        for variant, (values, before) in told.items()
    }
    wanted = compare(arms, plan).effect("new", "watched")
    told_ = (effect.effect, effect.lower, effect.upper, effect.reduction)
    assert told_ == pytest.approx((wanted.effect, wanted.lower, wanted.upper, wanted.reduction))
    assert effect.reduction > 0.5
    assert "of the variance away" in found.page


@pytest.mark.parametrize("given", [{"varianceReduction": "None"}, {"lookbackSeconds": 0}, {"lookbackSeconds": 60}])
def test_without_a_past_nothing_is_adjusted(log: Log, crowd: Sequence[str], given: dict[str, Any]) -> None:
    told = lived(log)
    (effect,) = log.look(GIVEN | given).report.newest.effects
    assert effect.reduction == 0
    assert effect.effect == pytest.approx(np.mean(told["new"][0]) - np.mean(told["control"][0]))


def test_any_event_makes_a_user_known(log: Log, crowd: Sequence[str]) -> None:
    """Known with a history of 0 is not the same as unknown: here all of the difference is who was known."""
    for number in range(60):
        for side in "cn":
            if number < 30:
                log.act(f"{side}{number}", "Rating", -5)
                log.act(f"{side}{number}", "Watch", 5, value=10.0)
            else:
                log.act(f"{side}{number}", "Watch", 5, value=1.0 + number % 2)
    (effect,) = log.look(GIVEN).report.newest.effects
    assert effect.reduction > 0.9


def test_a_ratio_has_a_history_of_both_events(log: Log, crowd: Sequence[str]) -> None:
    generator = np.random.default_rng(1)
    for number in range(60):
        for side in "cn":
            share = generator.random()
            for minutes in (-20, 10):
                for view in range(10):
                    log.act(f"{side}{number}", "View", minutes)
                    if view < 10 * share:
                        log.act(f"{side}{number}", "Click", minutes)
    rate = {"name": "rate", "event": {"type": "Ratio", "name": "Click", "denominator": "View"}}
    (effect,) = log.look(GIVEN | {"metrics": [rate]}).report.newest.effects
    assert effect.reduction == pytest.approx(1.0), "everybody does what they did before"


def look(minutes: float, effect: float = 0.1) -> Look:
    return Look(
        end=NOON + timedelta(minutes=minutes),
        users={"control": 5, "new": 5},
        values=(MetricValue(variant="new", metric="a", value=1.0), MetricValue(variant="new", metric="b", value=2.0)),
        effects=(
            MetricEffect(variant="new", metric="a", effect=effect),
            MetricEffect(variant="new", metric="b", effect=9.0),
        ),
        guardrails=(GuardrailCheck(variant="new", guardrail="g"),),
        unavailable=("metric b: gone",),
    )


def test_older_looks_keep_the_deciding_metric_and_the_newest_everything() -> None:
    found = history([look(1), look(2)], look(3), deciding="a")
    assert [[effect.metric for effect in each.effects] for each in found] == [["a"], ["a"], ["a", "b"]]
    assert [[value.metric for value in each.values] for each in found] == [["a"], ["a"], ["a", "b"]]
    assert [len(each.guardrails) + len(each.unavailable) for each in found] == [0, 0, 2]
    assert found[0].users == {"control": 5, "new": 5}


def test_the_older_half_is_thinned_when_they_are_too_many() -> None:
    found = history([look(minute) for minute in range(8)], look(8), deciding="a", most=8)
    minutes = [(each.end - NOON).total_seconds() / 60 for each in found]
    assert minutes == [0, 2, 4, 5, 6, 7, 8]


def test_a_long_history_stays_bounded_and_keeps_its_ends() -> None:
    found: tuple[Look, ...] = ()
    for minute in range(200):
        found = history(found, look(minute), deciding="a", most=20)
    minutes = [(each.end - NOON).total_seconds() / 60 for each in found]
    assert len(found) <= 20
    assert minutes[0] == 0
    assert minutes[-3:] == [197, 198, 199]
    assert minutes == sorted(minutes)


def test_a_look_that_is_not_older_is_left_out() -> None:
    assert [each.end for each in history([look(1), look(5), look(9)], look(5), deciding="a")] == [
        NOON + timedelta(minutes=minutes) for minutes in (1, 5)
    ]


def test_looks_follow_each_other(log: Log, crowd: Sequence[str]) -> None:
    given = {"metrics": [WATCH], "minSampleSize": 50}
    log.act("n1", "Watch", 5, value=6.0)
    log.act("n2", "Watch", 70, value=6.0)
    context = log.context(given, name="first", end=NOON + timedelta(hours=1))
    first = as_artifact(context, analyse.run(context))
    found = log.look(given, inputs={"previous": first}, name="second", number=2)
    effects = [each.effects[0].effect for each in found.report.looks]
    assert effects == pytest.approx([0.1, 0.2])
    assert "hours since the start" not in found.page
    assert "minutes since the start" in found.page


def take_looks(log: Log, root: Path, count: int, given: dict[str, Any]) -> list[Path]:
    """Take looks one after the other, each published into a store below `root`; return their folders there."""
    folders, inputs = list[Path](), {}
    for number in range(1, count + 1):
        events = {"events-0": log.artifact("simulated")} if "events_uri" in given else {}
        context = log.context(GIVEN, name=f"look-{number}", inputs=inputs | events, number=number, **given)
        spec = context.spec
        spec = spec.model_copy(update={"output_uri": f"{root.as_uri()}/analyse/{spec.key}"})
        context = replace(context, spec=spec)
        inputs = {"previous": as_artifact(context, analyse.run(context))}
        folders.append(root / "analyse" / spec.key)
        shutil.copytree(context.output, folders[-1])
        (folders[-1] / "manifest.json").write_text(inputs["previous"].manifest.to_json())
    return folders


def test_the_store_keeps_the_look_before_and_no_older_one(log: Log, crowd: Sequence[str], tmp_path: Path) -> None:
    root = tmp_path / "root"
    (other := root / "analyse" / ("0" * 40)).mkdir(parents=True)
    (other / "findings.json").write_text("another experiment's")
    looks = take_looks(log, root, 4, {})
    assert [folder.exists() for folder in looks] == [False, False, True, True]
    assert len(FindingsReport.from_json((looks[-1] / FINDINGS_NAME).read_bytes()).looks) == 1, "all at one moment"
    assert other.exists()


def test_looks_at_simulated_users_stay(log: Log, crowd: Sequence[str], tmp_path: Path) -> None:
    assert all(folder.exists() for folder in take_looks(log, tmp_path / "root", 3, {"events_uri": None}))


def test_a_store_that_refuses_only_keeps_more(
    log: Log, crowd: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: FileBlobs, names: Sequence[str]) -> None:
        raise BadInput("the store lets nothing be deleted")

    monkeypatch.setattr(FileBlobs, "delete", refuse)
    looks = take_looks(log, tmp_path / "root", 3, {})
    assert all(folder.exists() for folder in looks)
    assert f"the look {looks[0].name} stays in the store: the store lets nothing be deleted" in caplog.text


def test_a_look_before_of_another_version_is_refused(log: Log, tmp_path: Path) -> None:
    context = log.context(GIVEN, name="first")
    first = as_artifact(context, analyse.run(context))
    (first.path / FINDINGS_NAME).write_text('{"control": 3}')
    with pytest.raises(BadInput, match="leave the input out, and the history begins anew"):
        log.look(GIVEN, inputs={"previous": first}, name="second")
