# SPDX-License-Identifier: Apache-2.0
"""Experiments without a cluster: real processes, kept state, interruptions, and what a laptop cannot do."""

from __future__ import annotations

import copy
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from support import local_run
from support.local_run import SPEC, write_manifest
from thinkrec_crds.experiment import ThinkRecExperiment
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_operator.cli import app
from thinkrec_operator.local.experiment import ExperimentDriver
from thinkrec_operator.local.jobs import JobOptions
from thinkrec_operator.local.outcome import Outcome
from thinkrec_operator.local.state import State, state_folder, utc_now
from thinkrec_operator.local.view import JsonLines

EXPERIMENT: dict[str, Any] = {
    "variants": [
        {"name": "old", "modelRef": {"name": "movies"}},
        {"name": "new", "modelRef": {"name": "warm"}},
    ],
    "controlVariantName": "old",
    "offline": {},
}


class Bench:
    """Two trained models and an experiment about them, with stages whose behaviour is ordered."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.control = folder / "control"
        self.control.mkdir()
        warm = {**copy.deepcopy(SPEC), "gate": {"temperature": "0.5"}}
        self.manifests = [write_manifest(folder, SPEC), write_manifest(folder, warm, name="warm")]
        for manifest in self.manifests:
            assert local_run.drive(manifest, self.control) is Outcome.DONE
        self.spec = copy.deepcopy(EXPERIMENT)

    @property
    def experiment(self) -> ThinkRecExperiment:
        return ThinkRecExperiment.model_validate({"metadata": {"name": "warmer"}, "spec": self.spec})

    @property
    def state(self) -> State:
        return State(state_folder(self.experiment, self.manifests[0], None))

    def order(self, stage: str, text: str) -> None:
        (self.control / stage).write_text(text)

    def starts(self, stage: str) -> int:
        path = self.control / f"{stage}.starts"
        return len(path.read_text().splitlines()) if path.is_file() else 0

    def drive(self) -> Outcome:
        command = (sys.executable, "-I", "-S", str(local_run.FAKE_STAGE))
        environment = {**os.environ, "FAKE_STAGE_CONTROL": str(self.control)}
        models = {}
        for manifest in self.manifests:
            model = local_run.load(manifest)
            models[model.metadata.name] = (model, local_run.state_of(manifest))
        with self.state.locked(command="run", now=utc_now()):
            jobs = JobOptions(self.folder, 2, 0.05, command=command, environment=environment)
            driver = ExperimentDriver(
                self.experiment, models, self.state, folder=self.folder, jobs=jobs, view=JsonLines(sys.stderr)
            )
            return driver.run()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_it_ends_with_a_verdict_and_a_second_run_starts_nothing(bench: Bench) -> None:
    assert bench.drive() is Outcome.DONE
    told = bench.state.experiment_status().conclusion
    assert told is not None
    assert (told.winner, told.reason) == ("new", "SignificantWinner")
    assert bench.state.experiment_status().report_uri
    assert bench.drive() is Outcome.DONE
    assert [bench.starts(name) for name in ("score-old", "score-new", "compare")] == [1, 1, 1]
    assert bench.state.experiment_status().conclusion == told


@pytest.mark.parametrize("level", ["0.05", "0.001"])
def test_without_its_state_it_finds_its_work_in_the_store(bench: Bench, level: str) -> None:
    bench.spec["analysis"] = {"metrics": [{"name": "c", "event": {"name": "click"}}], "significanceLevel": level}
    bench.drive()
    before = bench.state.experiment_status().conclusion
    bench.state.root.rename(bench.folder / "old-state")
    assert bench.drive() is Outcome.DONE
    assert bench.state.experiment_status().conclusion == before
    assert bench.starts("compare") == 1


def test_a_missed_gate_has_an_outcome_of_its_own(bench: Bench) -> None:
    bench.spec["offline"] = {"gates": [{"metric": "UAUC", "minimum": "0.9"}]}
    assert bench.drive() is Outcome.GATE_FAILED
    assert bench.state.experiment_status().conclusion is not None


def test_a_stage_that_fails_is_told_and_tried_again_by_the_next_run(bench: Bench) -> None:
    bench.order("score-new", "exit 64")
    assert bench.drive() is Outcome.FAILED
    stalled = bench.state.experiment_status().condition("Stalled")
    assert stalled is not None
    assert "score-new was told to end with 64" in stalled.message
    bench.order("score-new", "go 0")
    assert bench.drive() is Outcome.DONE
    assert bench.starts("score-old") == 1


def test_interrupted_it_goes_on_where_it_was(bench: Bench) -> None:
    bench.order("score-new", "sleep 30")

    def interrupt() -> None:
        while not bench.starts("score-new"):
            threading.Event().wait(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    assert bench.drive() is Outcome.INTERRUPTED
    bench.order("score-new", "go 0")
    assert bench.drive() is Outcome.DONE
    assert bench.starts("score-old") == 1


def test_a_model_that_is_not_in_the_manifest_is_named(bench: Bench) -> None:
    bench.manifests.pop()
    assert bench.drive() is Outcome.BAD_INPUT
    found = bench.state.experiment_status().condition("VariantsReady")
    assert found is not None
    assert "`spec.variants[1]` names the model warm" in found.message


def test_suspended_it_starts_nothing(bench: Bench) -> None:
    bench.spec["suspend"] = True
    assert bench.drive() is Outcome.SUSPENDED
    assert bench.starts("score-old") == 0


def write(folder: Path, *specs: dict[str, Any]) -> Path:
    kind = {"apiVersion": "thinkrec.io/v1alpha1", "kind": "ThinkRecExperiment"}
    bodies = [{**kind, "metadata": {"name": f"e{place}"}, "spec": spec} for place, spec in enumerate(specs)]
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump_all(bodies))
    return path


@pytest.mark.parametrize(
    ("specs", "sentence"),
    [
        ([EXPERIMENT, EXPERIMENT], "has 2 experiments (e0, e1); put each into a file of its own"),
        (
            [
                {
                    **{k: v for k, v in EXPERIMENT.items() if k != "offline"},
                    "traffic": {"mode": "Mirror", "mirrorPercent": 5},
                }
            ],
            "write `offline: {}`",
        ),
    ],
)
def test_what_a_laptop_cannot_run_is_refused_before_anything_starts(
    tmp_path: Path, specs: list[dict[str, Any]], sentence: str
) -> None:
    done = CliRunner().invoke(app, ["run", "-f", str(write(tmp_path, *specs))])
    assert done.exit_code == 64
    assert sentence in done.output.replace("\n", " ")
    assert not (tmp_path / ".thinkrec").exists()


def test_users_are_simulated_and_that_is_said(tmp_path: Path) -> None:
    spec = {**EXPERIMENT, "traffic": {"mode": "Mirror", "mirrorPercent": 5}}
    done = CliRunner().invoke(app, ["run", "-f", str(write(tmp_path, spec)), "-o", "json"])
    assert "simulated ones like what the test rows say" in done.output
    assert done.exit_code == 64
    assert "names the model movies" in done.output
    told = [json.loads(line) for line in done.output.splitlines() if line.startswith("{")]
    assert any(line.get("type") == "VariantsReady" and line["status"] == "False" for line in told)


ONLINE: dict[str, Any] = {
    "traffic": {
        "mode": "Canary",
        "steps": [{"weight": 10, "pauseSeconds": 3600}, {"weight": 50, "pauseSeconds": 7200}],
    },
    "analysis": {"metrics": [{"name": "clicks", "event": {"name": "click"}}], "periodSeconds": 1800},
}


def test_a_canary_of_hours_takes_seconds_and_looks_at_all_its_users(bench: Bench) -> None:
    bench.spec |= copy.deepcopy(ONLINE)
    assert bench.drive() is Outcome.DONE
    status = bench.state.experiment_status()
    told = status.conclusion
    assert told is not None
    assert (told.winner, told.reason, told.metric) == ("new", "SignificantWinner", "clicks")
    assert status.current_step_index == 1
    looks = status.analysis.number if status.analysis else 0
    assert looks in (6, 7), "the step begins a moment after a look, and may end a moment after another one"
    assert [bench.starts(f"{StageKind.ANALYSE}-{n}") for n in range(1, looks + 2)] == [1] * looks + [0]
    assert [bench.starts(f"events-{n}") for n in range(1, looks + 2)] == [1] * looks + [0]
    assert status.step_start_time is not None
    assert status.traffic_start_time is not None
    assert (status.step_start_time - status.traffic_start_time).total_seconds() == pytest.approx(3600, abs=60)


def test_interrupted_between_two_looks_it_goes_on_with_the_next(bench: Bench) -> None:
    bench.spec |= copy.deepcopy(ONLINE)
    bench.order(f"{StageKind.ANALYSE}-2", "sleep 30")

    def interrupt() -> None:
        while not bench.starts(f"{StageKind.ANALYSE}-2"):
            threading.Event().wait(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    assert bench.drive() is Outcome.INTERRUPTED
    bench.order(f"{StageKind.ANALYSE}-2", "go 0")
    assert bench.drive() is Outcome.DONE
    assert bench.starts("events-1") == 1
    assert bench.state.experiment_status().conclusion is not None


def test_a_changed_manifest_or_a_newer_revision_begins_anew(bench: Bench) -> None:
    assert bench.drive() is Outcome.DONE
    bench.spec["offline"] = {"metrics": [{"name": "AUC"}]}
    assert bench.drive() is Outcome.DONE
    told = bench.state.experiment_status().conclusion
    assert told is not None
    assert told.metric == "AUC"
    assert (bench.starts("score-old"), bench.starts("compare")) == (1, 2)
    before = bench.state.experiment_status().variants[1].resolved_revision
    warm = {**copy.deepcopy(SPEC), "gate": {"temperature": "0.9"}}
    assert local_run.drive(write_manifest(bench.folder, warm, name="warm"), bench.control) is Outcome.DONE
    assert bench.drive() is Outcome.DONE
    assert bench.state.experiment_status().variants[1].resolved_revision != before
    assert (bench.starts("score-old"), bench.starts("score-new"), bench.starts("compare")) == (1, 2, 3)
