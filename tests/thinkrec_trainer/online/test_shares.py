# SPDX-License-Identifier: Apache-2.0
"""Several pods find what one finds; a signal stops a pod between two parts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.llm_stages import MemoryCheckpoints
from support.shares import in_shares
from thinkrec_crds.artifact import TerminationMessage
from thinkrec_crds.evaluation import REPORT_NAME
from thinkrec_crds.findings import FINDINGS_NAME
from thinkrec_crds.scale_out import INDEX_VARIABLE, SHARD_COUNT_VARIABLE
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_trainer import analyse
from thinkrec_trainer.errors import Interrupted
from thinkrec_trainer.events.layout import user_part
from thinkrec_trainer.protocol import run_stage
from thinkrec_trainer.registry import sharded_stage, stage_function
from thinkrec_trainer.store import fetch_artifact, open_blobs

Log = Any
GIVEN = {
    "metrics": [
        {"name": "likes", "event": {"name": "Like"}},
        {"name": "watched", "event": {"type": "Mean", "name": "Watch"}},
        {"name": "rate", "event": {"type": "Ratio", "name": "Like", "denominator": "Watch"}},
    ],
    "guardrails": [{"name": "latency", "request": {"field": "LatencyMilliseconds"}, "maxRegression": "0.1"}],
    "minSampleSize": 50,
}


@pytest.fixture
def busy(log: Log) -> Log:
    """400 users with a past; a second step of weights that met one user of another part than the user it moved."""
    for number in range(400):
        variant = "new" if number % 4 == 0 else "control"
        bucket = number if variant == "new" else 5000 + number
        latency = 10 + number / 7
        log.see(f"u{number}", variant, 1, bucket=bucket, weights="control=75,new=25", latency_milliseconds=latency)
        for minutes in (-10, 3, 9)[: number % 4]:
            log.act(f"u{number}", "Watch", minutes, value=number / 3)
        if number % 5 == 0:
            log.act(f"u{number}", "Like", 20)
    log.see("late", "control", 50, bucket=9000, weights="control=76,new=24")
    log.see("moved", "new", 5, bucket=2450, weights="control=75,new=25")
    assert user_part("late") % 3 != user_part("moved") % 3
    return log


@pytest.mark.parametrize("count", [3, 20])
def test_many_pods_find_what_one_finds(busy: Log, count: int) -> None:
    one = busy.look(GIVEN)
    contexts: dict[Path, Any] = {}

    def context(path: Path) -> Any:
        contexts[path] = busy.context(GIVEN, name=str(path))
        return contexts[path]

    result, _ = in_shares(analyse, count, busy.root / "many", context)
    many = busy.looked(contexts[busy.root / "many" / "whole"], result)
    assert many.report.newest.users == one.report.newest.users == {"control": 301, "new": 100}
    assert many.report.numbers(most_bytes=10**6) == pytest.approx(one.report.numbers(most_bytes=10**6))
    assert many.page == one.page
    assert result.counts == one.result.counts
    assert result.counts["users_of_moved_buckets"] == 1, "although its own pod saw no other weights"


def test_the_protocol_finds_the_stage() -> None:
    assert stage_function(StageKind.ANALYSE) is analyse.run
    assert sharded_stage(StageKind.ANALYSE).merge is analyse.merge


def test_two_pods_under_the_protocol_publish_one_look(
    busy: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = busy.look(GIVEN).result
    spec, message = busy.context(GIVEN).spec, tmp_path / "message"
    stage = tmp_path / "stage.json"
    stage.write_text(spec.to_json())
    monkeypatch.setenv("THINKREC_TERMINATION_PATH", str(message))
    monkeypatch.setenv(SHARD_COUNT_VARIABLE, "2")
    for index in ("0", "1"):
        monkeypatch.setenv(INDEX_VARIABLE, index)
        assert run_stage(stage) == 0
    told = TerminationMessage.from_json(message.read_bytes())
    assert told.metrics == pytest.approx(dict(wanted.metrics))
    assert told.counts == wanted.counts
    artifact = fetch_artifact(open_blobs(spec.output_uri), tmp_path / "cache")
    assert artifact.file(FINDINGS_NAME).is_file()
    assert artifact.file(REPORT_NAME).is_file()


def test_a_signal_stops_it_between_two_parts(busy: Log, tmp_path: Path) -> None:
    context = busy.context(GIVEN)
    with pytest.raises(Interrupted):
        analyse.run(replace(context, checkpoint=MemoryCheckpoints(tmp_path / "checkpoints", interrupt_at=0)))
    assert list(context.output.iterdir()) == []
