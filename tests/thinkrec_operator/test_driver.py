# SPDX-License-Identifier: Apache-2.0
"""The local driver with real processes: runs, interruptions, kills, limits. Stages are processes of known behaviour."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from support import local_run
from support.local_run import SPEC, drive, state_of, write_manifest
from support.model_world import STAGES
from support.waiting import has_ended, wait_for
from thinkrec_operator.graph import build_graph
from thinkrec_operator.local.outcome import Outcome
from thinkrec_operator.local.records import JobRecord
from thinkrec_operator.local.state import State, StateDamaged, StateLocked, utc_now
from thinkrec_operator.names import job_name
from thinkrec_operator.observed import JobState


class Bench:
    """A manifest, the orders for its stages, and drivers that a test may signal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.control = folder / "control"
        self.control.mkdir()
        self.spec: dict[str, Any] = copy.deepcopy(SPEC)
        self.manifest = write_manifest(folder, self.spec)
        self._started: list[subprocess.Popen[str]] = []

    def edit(self, **changes: Any) -> None:
        self.spec.update(changes)
        write_manifest(self.folder, self.spec)

    def order(self, stage: str, text: str) -> None:
        (self.control / stage).write_text(text)

    def starts(self) -> Counter[str]:
        return Counter({path.stem: len(path.read_text().splitlines()) for path in self.control.glob("*.starts")})

    def drive(self, **options: Any) -> Outcome:
        return drive(self.manifest, self.control, **options)

    @property
    def state(self) -> State:
        return state_of(self.manifest)

    def condition(self, kind: str) -> tuple[str, str]:
        found = self.state.status().condition(kind)
        return (found.status, found.reason) if found else ("absent", "")

    def start(self, cpus: int = 2, *, serve: bool = False) -> subprocess.Popen[str]:
        """Start a driver in a process of its own."""
        command = [sys.executable, local_run.__file__, str(self.manifest), str(self.control), str(cpus)]
        command.append("serve" if serve else "train")
        environment = {**os.environ, "PYTHONPATH": str(Path(local_run.__file__).parents[1])}
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
        )
        self._started.append(process)
        return process

    def running(self, stage: str) -> JobRecord | None:
        found = [r for r in self.state.job_records() if r.title == stage and r.process is not None]
        return found[0] if found else None

    def close(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    found = Bench(tmp_path)
    yield found
    found.close()


def test_a_run_from_nothing_and_a_second_that_has_nothing_to_do(bench: Bench) -> None:
    assert bench.drive() is Outcome.DONE
    assert bench.starts() == Counter(dict.fromkeys(STAGES, 1))
    assert bench.condition("Evaluated") == ("True", "GatesPassed")
    assert bench.condition("TrainingSucceeded")[0] == "True"
    revisions = bench.state.revisions()
    assert [record.name for record in revisions] == [bench.state.status().latest_revision]
    assert bench.drive() is Outcome.DONE
    assert bench.starts() == Counter(dict.fromkeys(STAGES, 1))
    assert bench.state.revisions() == revisions


def test_stages_run_in_the_manifests_folder_with_the_threads_they_were_given(bench: Bench) -> None:
    bench.drive(cpus=2)
    key, threads, openmp, folder = (bench.control / "adapter.starts").read_text().split()
    assert (threads, openmp) == ("2", "2")
    assert Path(folder) == bench.folder
    assert (bench.folder / ".thinkrec" / "store" / "adapter" / key / "manifest.json").is_file()
    assert (bench.control / "gate.starts").read_text().split()[1] == "1"


def test_without_its_state_it_finds_its_work_in_the_store(bench: Bench) -> None:
    bench.drive()
    shutil.rmtree(bench.state.root)
    assert bench.drive() is Outcome.DONE
    assert bench.starts() == Counter(dict.fromkeys(STAGES, 1))
    assert {row.state for row in bench.state.status().stages} == {"Reused"}


def test_an_artifact_that_was_removed_is_made_again_and_nothing_else(bench: Bench) -> None:
    bench.drive()
    shutil.rmtree(bench.folder / ".thinkrec" / "store" / "bundle")
    assert bench.drive() is Outcome.DONE
    assert bench.starts() == Counter({**dict.fromkeys(STAGES, 1), "bundle": 2})


def test_an_edit_trains_what_reads_it(bench: Bench) -> None:
    bench.drive()
    first = bench.state.status().latest_revision
    bench.edit(gate={"temperature": "0.3"})
    assert bench.drive() is Outcome.DONE
    assert bench.starts() == Counter({**dict.fromkeys(STAGES, 1), "bundle": 2, "evaluate": 2})
    status = bench.state.status()
    assert status.observed_generation == 2
    assert status.latest_revision != first
    assert [record.number for record in bench.state.revisions()] == [1, 2]


def test_automatic_k_is_chosen_by_the_gate(bench: Bench) -> None:
    bench.edit(experts={"auto": {"min": 2, "max": 5}})
    assert bench.drive() is Outcome.DONE
    assert bench.state.status().expert_count == 3
    assert bench.starts()["expert-2"] == 1


def test_a_passing_failure_is_tried_again(bench: Bench) -> None:
    bench.order("traces", "fail-times 2")
    assert bench.drive() is Outcome.DONE
    assert bench.starts()["traces"] == 3


def test_bad_input_is_not_tried_again_until_someone_runs_it_again(bench: Bench) -> None:
    bench.order("dataset", "exit 64")
    assert bench.drive() is Outcome.BAD_INPUT
    assert bench.starts() == Counter({"dataset": 1})
    assert bench.condition("Stalled") == ("True", "DatasetInvalid")
    assert "was told to end with 64" in bench.state.status().condition("Stalled").message  # type: ignore[union-attr]
    bench.order("dataset", "go 0")
    assert bench.drive() is Outcome.DONE


def test_a_refused_command_line_is_not_tried_again(bench: Bench) -> None:
    bench.order("dataset", "exit 2")
    assert bench.drive() is Outcome.BAD_INPUT
    assert bench.starts() == Counter({"dataset": 1})


def test_used_up_retries_fail_the_run_and_only_that_expert_runs_again(bench: Bench) -> None:
    bench.edit(training={"backoffLimit": 1})
    bench.order("expert-1", "exit 1")
    assert bench.drive() is Outcome.FAILED
    assert bench.starts()["expert-1"] == 2
    assert bench.condition("TrainingSucceeded") == ("False", "BackoffLimitExceeded")
    bench.order("expert-1", "go 0")
    assert bench.drive() is Outcome.DONE
    assert bench.starts() == Counter({**dict.fromkeys(STAGES, 1), "expert-1": 3})


def test_success_without_a_word_is_no_success(bench: Bench) -> None:
    bench.order("dataset", "silent 0")
    assert bench.drive() is Outcome.FAILED
    assert "stage protocol" in bench.state.status().condition("Stalled").message  # type: ignore[union-attr]


def test_more_memory_than_the_limit_ends_the_stage(bench: Bench) -> None:
    bench.edit(training={"backoffLimit": 0, "resources": {"limits": {"memory": "150Mi"}}})
    bench.order("dataset", "memory 300")
    assert bench.drive() is Outcome.FAILED
    assert bench.condition("TrainingSucceeded") == ("False", "OOMKilled")


def test_a_deadline_ends_the_stage(bench: Bench) -> None:
    bench.edit(training={"activeDeadlineSeconds": 1})
    bench.order("dataset", "hang 0")
    assert bench.drive() is Outcome.FAILED
    assert bench.condition("TrainingSucceeded") == ("False", "DeadlineExceeded")


def test_a_deadline_does_not_count_the_time_between_two_runs(bench: Bench) -> None:
    bench.edit(training={"activeDeadlineSeconds": 60})
    stage = build_graph(local_run.load(bench.manifest).spec).find("dataset")
    assert stage is not None
    name = job_name("movies", stage.title, stage.key)
    last_year = datetime(2020, 1, 5, tzinfo=UTC)
    bench.state.write_job(
        JobRecord(
            name=name, key=stage.key, kind=stage.kind, title=stage.title, generation=1, attempts=1, start_time=last_year
        )
    )
    assert bench.drive() is Outcome.DONE
    assert bench.starts()["dataset"] == 1


def test_a_gate_that_is_missed_has_an_outcome_of_its_own(bench: Bench) -> None:
    bench.edit(evaluation={"gates": [{"metric": "AUC", "minimum": "0.9"}]})
    assert bench.drive() is Outcome.GATE_FAILED
    assert bench.condition("Stalled") == ("True", "GateFailed")
    bench.edit(evaluation={"gates": [{"metric": "AUC", "minimum": "0.6"}]})
    assert bench.drive() is Outcome.DONE
    assert bench.starts() == Counter(dict.fromkeys(STAGES, 1))


def test_suspended_is_an_end(bench: Bench) -> None:
    bench.edit(suspend=True)
    assert bench.drive() is Outcome.SUSPENDED
    assert bench.starts() == Counter()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_goes_on_where_it_was(bench: Bench, number: signal.Signals) -> None:
    bench.order("adapter", "hang 0")
    driver = bench.start()
    wait_for(lambda: bench.running("adapter") and (bench.control / "adapter.starts").is_file(), "the adapter to begin")
    stage = bench.running("adapter")
    assert stage is not None
    assert stage.process is not None
    driver.send_signal(number)
    out, _ = driver.communicate(timeout=20)
    assert out.strip() == "Interrupted"
    assert not psutil.pid_exists(stage.process.pid)
    left = next(record for record in bench.state.job_records() if record.title == "adapter")
    assert (left.state, left.failures) == (JobState.PENDING, 0)
    bench.order("adapter", "go 0")
    assert bench.drive() is Outcome.DONE
    assert bench.starts() == Counter({**dict.fromkeys(STAGES, 1), "adapter": 2})


def test_a_second_interrupt_ends_a_stage_that_does_not_listen(bench: Bench) -> None:
    bench.order("dataset", "deaf 0")
    driver = bench.start()
    wait_for(lambda: (bench.control / "dataset.starts").is_file(), "the dataset to begin")
    wait_for(lambda: bench.running("dataset"), "its record")
    stage = bench.running("dataset")
    assert stage is not None
    assert stage.process is not None
    driver.send_signal(signal.SIGINT)
    time.sleep(0.6)
    assert driver.poll() is None
    assert psutil.pid_exists(stage.process.pid)
    driver.send_signal(signal.SIGINT)
    out, _ = driver.communicate(timeout=20)
    assert out.strip() == "Interrupted"
    assert not psutil.pid_exists(stage.process.pid)


@pytest.mark.parametrize("stage", ["dataset", "expert-0"])
def test_a_killed_driver_leaves_no_process_and_its_successor_goes_on(bench: Bench, stage: str) -> None:
    bench.order(stage, "hang 0")
    driver = bench.start()
    wait_for(lambda: bench.running(stage) and (bench.control / f"{stage}.starts").is_file(), f"{stage} to begin")
    child = bench.running(stage)
    assert child is not None
    assert child.process is not None
    driver.kill()
    driver.wait()
    pid = child.process.pid
    wait_for(lambda: has_ended(pid), "the stage to end with its driver", seconds=10)
    bench.order(stage, "go 0")
    assert bench.drive() is Outcome.DONE
    assert bench.starts() == Counter({**dict.fromkeys(STAGES, 1), stage: 2})


def test_killed_again_and_again_it_still_ends_and_finished_keys_run_once(bench: Bench) -> None:
    for stage in STAGES:
        bench.order(stage, "sleep 0.3")
    for pause in (0.9, 1.4, 1.9):
        driver = bench.start()
        time.sleep(pause)
        driver.kill()
        driver.wait()
    before = {path.parent.parent.name for path in bench.folder.glob(".thinkrec/store/*/*/manifest.json")}
    done_before = Counter({name: count for name, count in bench.starts().items() if name in before})
    assert bench.drive() is Outcome.DONE
    for name in done_before:
        assert bench.starts()[name] == done_before[name], f"{name} was published and ran again"
    assert bench.condition("Evaluated") == ("True", "GatesPassed")


def test_two_drivers_do_not_share_a_folder(bench: Bench) -> None:
    with (
        bench.state.locked(command="run", now=utc_now()),
        pytest.raises(StateLocked, match=rf"in use by process {os.getpid()} \(`thinkrec run`"),
        bench.state.locked(command="serve", now=utc_now()),
    ):
        pass
    with bench.state.locked(command="run", now=utc_now()):  # and it is free again
        pass


def test_a_damaged_record_is_named_with_a_remedy(bench: Bench) -> None:
    bench.drive()
    record = next(bench.state.root.glob("jobs/*/record.json"))
    record.write_text('{"name": 1}')
    with pytest.raises(StateDamaged, match=r"record\.json cannot be used .* `thinkrec clean`"):
        bench.drive()


def test_a_damaged_status_is_written_anew(bench: Bench) -> None:
    bench.drive()
    bench.state.status_file.write_text("status: [")
    assert bench.drive() is Outcome.DONE
    assert bench.condition("Evaluated") == ("True", "GatesPassed")


def test_status_is_valid_for_the_contract_and_events_are_told_once(bench: Bench) -> None:
    bench.drive()
    lines = [json.loads(line) for line in (bench.state.root / "events.jsonl").read_text().splitlines()]
    reasons = Counter(line["reason"] for line in lines)
    assert reasons["RevisionCreated"] == 1
    assert reasons["StageSucceeded"] == len(STAGES)
    bench.drive()
    assert len((bench.state.root / "events.jsonl").read_text().splitlines()) == len(lines)


def test_a_served_model_is_ready_and_nothing_is_left_when_it_stops(bench: Bench) -> None:
    (bench.folder / "base").mkdir()
    driver = bench.start(serve=True)
    wait_for(lambda: bench.condition("Ready") == ("True", "Serving"), "the model to be served", seconds=60)
    status, serving = bench.state.status(), bench.state.serving()
    assert serving is not None
    assert serving.ready
    assert (status.url, status.serving_revision) == (serving.url, status.latest_revision)
    pid, bundle, candidates = (bench.control / "server.log").read_text().split()
    assert Path(bundle) == next(bench.folder.glob(".thinkrec/store/bundle/*"))
    assert candidates == "200"
    driver.terminate()
    out, _ = driver.communicate(timeout=20)
    assert out.strip() == "Interrupted"
    assert not psutil.pid_exists(int(pid))
    assert bench.state.serving() is None
    assert bench.condition("Ready") == ("False", "ServingNotReady")
    assert bench.condition("Available")[0] == "False"
    assert bench.state.status().url is None


def test_a_server_that_dies_is_started_again(bench: Bench) -> None:
    (bench.folder / "base").mkdir()
    driver = bench.start(serve=True)
    wait_for(lambda: bench.condition("Ready")[0] == "True", "the model to be Ready", seconds=60)
    os.kill(int((bench.control / "server.log").read_text().split()[0]), signal.SIGKILL)
    wait_for(lambda: len((bench.control / "server.log").read_text().splitlines()) == 2, "a second server")
    wait_for(lambda: bench.state.serving() and bench.state.serving().ready, "it to answer")  # type: ignore[union-attr]
    driver.terminate()
    assert driver.communicate(timeout=20)[0].strip() == "Interrupted"


def test_a_server_that_never_starts_fails_the_run_with_its_last_words(bench: Bench) -> None:
    (bench.folder / "base").mkdir()
    bench.order("server", "exit 3")
    assert bench.drive(serve=True) is Outcome.FAILED
    assert len((bench.control / "server.log").read_text().splitlines()) == 3
    ready = bench.state.status().condition("ServingReady")
    assert ready is not None
    assert ready.reason == "CrashLoopBackOff"
    assert "exit code 3: cannot load the model: too little memory" in ready.message
