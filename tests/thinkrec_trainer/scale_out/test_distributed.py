# SPDX-License-Identifier: Apache-2.0
"""Two real processes under torchrun train what one trains; they stop together, fail together and resume."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from support import seaweed
from support.llm_stages import basic_artifacts
from thinkrec_crds.artifact import ArtifactManifest, Progress, TerminationMessage
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_crds.stages import (
    AdapterParameters,
    BaseModelRef,
    CheckpointOptions,
    ComputeOptions,
    ExpertParameters,
    InputRef,
    KeywordsParameters,
    LoopParameters,
    LoraParameters,
    Parameters,
    ProjectorParameters,
    StageSpec,
    stage_key,
)
from thinkrec_trainer.context import LocalArtifact
from thinkrec_trainer.launch import judge
from thinkrec_trainer.store import describe_files, open_blobs, publish, read_manifest
from thinkrec_trainer.termination import Note

LOOP = LoopParameters(
    steps=6,
    learning_rate=0.02,
    warmup_steps=2,
    history_block=4,
    blocks_per_step=3,
    evaluate_every_steps=3,
    validation_users=5,
)
"""Three blocks for two processes: one has two, the other one."""
CLOSE = {"rtol": 1e-3, "atol": 2e-5}
"""Adam's first steps divide by gradients near zero, which magnifies the last bit of a sum."""


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str
    message: TerminationMessage | None


@dataclass
class Store:
    """A store with everything before the adapter, in which stages run as processes."""

    root: Path
    base: BaseModelRef

    def add(self, kind: StageKind, folder: Path) -> InputRef:
        """Publish what lies in `folder`."""
        key = stage_key(KeywordsParameters(), kind, 0, ())
        blobs = open_blobs(str(self.root / "store" / kind.value / key))
        if (found := read_manifest(blobs)) is None:
            found = publish(blobs, folder, self._manifest(kind, key, folder))
        return InputRef(name=kind.value, kind=kind, key=key, uri=blobs.uri, digest=found.digest)

    def spec(self, parameters: Parameters, inputs: Mapping[str, InputRef], *, name: str, **changes: Any) -> StageSpec:
        kind = StageKind(parameters.stage)
        key = stage_key(parameters, kind, 3, ((name, "0"),))
        return StageSpec(
            kind=kind,
            name=kind.value,
            key=key,
            semantics_version=1,
            seed=3,
            parameters=parameters,
            inputs=tuple(inputs.values()),
            output_uri=(self.root / "store" / kind.value / key).as_uri(),
            compute=ComputeOptions(device="Cpu", precision="Float32", threads=1),
            **changes,
        )

    def start(self, spec: StageSpec, *command: str, name: str, **environment: str) -> subprocess.Popen[str]:
        place = self.root / name
        place.mkdir(exist_ok=True)
        (place / "stage.json").write_text(spec.to_json())
        own = {
            "THINKREC_TERMINATION_PATH": str(place / "message"),
            "THINKREC_CACHE": str(self.root / "cache"),
            "OMP_NUM_THREADS": "1",
        }
        return subprocess.Popen(
            [sys.executable, "-m", *command, str(place / "stage.json")],
            env={**os.environ, **own, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, process: subprocess.Popen[str], name: str) -> Ended:
        out, err = process.communicate(timeout=120)
        path = self.root / name / "message"
        message = TerminationMessage.from_json(path.read_bytes()) if path.is_file() else None
        return Ended(process.returncode, out, err, message)

    def run(self, spec: StageSpec, *command: str, name: str, **environment: str) -> Ended:
        return self.end(self.start(spec, *command, name=name, **environment), name)

    def _manifest(self, kind: StageKind, key: str, folder: Path) -> ArtifactManifest:
        lineage = {"codeVersion": "t", "seed": 0, "createdTime": "2026-01-01T00:00:00Z", "durationSeconds": 0}
        blobs = open_blobs(str(folder))
        files = [entry.model_dump(by_alias=True) for entry in describe_files(folder, blobs)]
        return ArtifactManifest.model_validate(
            {
                "kind": kind.value,
                "key": key,
                "semanticsVersion": 1,
                "files": files,
                "lineage": {**lineage, "device": "cpu", "precision": "Float32"},
            }
        )


RUN = ("thinkrec_trainer", "run")
TORCHRUN = ("thinkrec_trainer", "torchrun")
TWO = {"PET_NPROC_PER_NODE": "2"}


@pytest.fixture(scope="module")
def store(tiny_llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("distributed"), BaseModelRef(storage_uri=str(tiny_llama_dir)))


@pytest.fixture(scope="module")
def inputs(store: Store) -> dict[str, InputRef]:
    made: dict[str, LocalArtifact] = basic_artifacts(store.root / "artifacts")
    return {name: store.add(StageKind(name), artifact.path) for name, artifact in made.items()}


def adapter(store: Store, **loop: Any) -> AdapterParameters:
    lora = LoraParameters(rank=4, alpha=8, dropout=0.1)
    return AdapterParameters(
        base_model=store.base, lora=lora, loop=LOOP.model_copy(update=loop), history_length=4, trace_share=0.4
    )


def folder_of(spec: StageSpec) -> Path:
    return Path(spec.output_uri.removeprefix("file://"))


def curve(spec: StageSpec) -> list[dict[str, float]]:
    points = json.loads((folder_of(spec) / "curve.json").read_text())
    return [{name: value for name, value in point.items() if name != "seconds"} for point in points]


def same_training(one: StageSpec, other: StageSpec, file: str) -> None:
    """Weights and curves agree up to the order of additions."""
    weights, others = (load_file(folder_of(spec) / file) for spec in (one, other))
    assert sorted(weights) == sorted(others)
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, others[name], **CLOSE, msg=lambda text, name=name: f"{name}: {text}")
    assert [point["step"] for point in curve(one)] == [point["step"] for point in curve(other)]
    for mine, theirs in zip(curve(one), curve(other), strict=True):
        assert mine == pytest.approx(theirs, abs=1e-3)


@pytest.fixture(scope="module")
def adapters(store: Store, inputs: dict[str, InputRef]) -> tuple[StageSpec, StageSpec, Ended]:
    """The adapter of one process and of two, and how the two ended."""
    picked = {name: inputs[name] for name in ("dataset", "keywords", "traces")}
    one, two = (store.spec(adapter(store), picked, name=name) for name in ("one", "two"))
    alone = store.run(one, *RUN, name="one")
    assert alone.code == 0, alone.err
    return one, two, store.run(two, *TORCHRUN, name="two", **TWO)


def test_two_processes_train_the_adapter_of_one(adapters: tuple[StageSpec, StageSpec, Ended]) -> None:
    """With dropout, traces, and blocks that do not divide evenly."""
    one, two, ended = adapters
    assert ended.code == 0, ended.err
    same_training(one, two, "adapter_model.safetensors")


def test_one_process_alone_speaks_and_publishes(adapters: tuple[StageSpec, StageSpec, Ended]) -> None:
    _, two, ended = adapters
    published = read_manifest(open_blobs(two.output_uri))
    assert published is not None
    assert ended.message is not None
    assert ended.message.digest == published.digest
    steps = [Progress.from_json(line).step for line in ended.out.splitlines()]
    assert steps == sorted(set(steps)), "one stream, no step twice"
    assert steps[-1] == LOOP.steps
    assert not list((folder_of(two).parent / ".checkpoints").glob(f"{two.key}/*"))


def test_a_published_key_needs_no_other_process(store: Store, adapters: tuple[StageSpec, StageSpec, Ended]) -> None:
    """A pod that is started again finds the artifact, not its peers."""
    _, two, first = adapters
    many = {"PET_NNODES": "2", "PET_NODE_RANK": "1", "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": "9"}
    again = store.run(two, *TORCHRUN, name="two", **many)
    assert again.code == 0, again.err
    assert again.message == first.message


def test_projector_and_expert_of_two_pods(
    store: Store, inputs: dict[str, InputRef], adapters: tuple[StageSpec, StageSpec, Ended]
) -> None:
    """Two pods with one process each, which meet at an address, as in an Indexed Job."""
    made = {name: inputs[name] for name in ("dataset", "keywords", "collaborative", "gate")}
    made["adapter"] = _published(adapters[0])
    loop = LOOP.model_copy(update={"steps": 4, "blocks_per_step": 2})
    given: list[tuple[Parameters, str]] = [
        (ProjectorParameters(base_model=store.base, hidden_multiplier=4, loop=loop, history_length=4), "projector"),
        (ExpertParameters(base_model=store.base, group=1, name="e", loop=loop, history_length=4), "adapter_model"),
    ]
    for parameters, file in given:
        one, two = (store.spec(parameters, made, name=name) for name in ("one", "two"))
        alone = store.run(one, *RUN, name=f"{parameters.stage}-one")
        assert alone.code == 0, alone.err
        ended = two_pods(store, two)
        assert [pod.code for pod in ended] == [0, 0], ended[0].err + ended[1].err
        assert [pod.out == "" for pod in ended] == [False, True]
        messages = [pod.message for pod in ended]
        assert messages[0] is not None
        assert messages[0].digest is not None
        assert messages[1] is None
        same_training(one, two, f"{file}.safetensors")
        made |= {parameters.stage: _published(one)}


def two_pods(store: Store, spec: StageSpec) -> list[Ended]:
    [port] = seaweed.free_ports(1)
    meeting = {"PET_NNODES": "2", "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(port)}
    names = [f"{spec.kind.value}-pod-{index}" for index in range(2)]
    started = [
        store.start(spec, *TORCHRUN, name=name, JOB_COMPLETION_INDEX=str(index), **meeting)
        for index, name in enumerate(names)
    ]
    return [store.end(process, name) for process, name in zip(started, names, strict=True)]


def test_a_signal_stops_all_after_a_checkpoint_from_which_they_go_on(store: Store, inputs: dict[str, InputRef]) -> None:
    """The run that was stopped ends with the weights of the one that was not."""
    picked = {name: inputs[name] for name in ("dataset", "keywords", "traces")}
    steps = 30  # seconds of work after the first one, for the signal to come in time
    whole, stopped = (
        store.spec(adapter(store, steps=steps, patience=99), picked, name=n) for n in ("whole", "stopped")
    )
    assert store.run(whole, *TORCHRUN, name="whole", **TWO).code == 0
    process = store.start(stopped, *TORCHRUN, name="stopped", **TWO)
    assert process.stdout is not None
    first = Progress.from_json(process.stdout.readline())
    process.send_signal(signal.SIGTERM)
    ended = store.end(process, "stopped")
    assert ended.code == 143, ended.err
    assert ended.message is not None
    assert "stopped by a signal" in (ended.message.error or "")
    [saved] = (folder_of(stopped).parent / ".checkpoints" / stopped.key).glob("*/run.json")
    step = json.loads(saved.read_text())["cursor"]["step"]
    assert first.step <= step < steps
    again = store.run(stopped, *TORCHRUN, name="stopped", **TWO)
    assert again.code == 0, again.err
    assert Progress.from_json(again.out.splitlines()[0]).step == step + 1
    one, other = (load_file(folder_of(spec) / "adapter_model.safetensors") for spec in (whole, stopped))
    assert all(torch.equal(one[name], other[name]) for name in one), "a resumed run is the same, bit by bit"


def test_a_killed_process_takes_the_others_along_and_is_temporary(store: Store, inputs: dict[str, InputRef]) -> None:
    picked = {name: inputs[name] for name in ("dataset", "keywords", "traces")}
    spec = store.spec(adapter(store, steps=5000), picked, name="killed", checkpoint=CheckpointOptions(period_seconds=1))
    process = store.start(spec, *TORCHRUN, name="killed", **TWO)
    assert process.stdout is not None
    process.stdout.readline()
    [victim] = [pid for pid in _descendants(process.pid) if b"RANK=1\0" in _environment(pid)]
    os.kill(victim, signal.SIGKILL)
    begun = time.monotonic()
    ended = store.end(process, "killed")
    assert ended.code == 75, ended.err
    assert time.monotonic() - begun < 30
    assert ended.message is not None
    assert ended.message.digest is None


def test_pods_that_do_not_find_each_other_are_temporary(store: Store, inputs: dict[str, InputRef]) -> None:
    """Nobody listens where pod 0 should be."""
    picked = {name: inputs[name] for name in ("dataset", "keywords", "traces")}
    spec = store.spec(adapter(store), picked, name="lonely")
    [port] = seaweed.free_ports(1)
    meeting = {"PET_NNODES": "2", "PET_NODE_RANK": "1", "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(port)}
    ended = store.run(spec, *TORCHRUN, name="lonely", THINKREC_RENDEZVOUS_SECONDS="2", **meeting)
    assert ended.code == 75, ended.err
    assert ended.message is not None
    assert f"127.0.0.1:{port} within 2 s" in (ended.message.error or "")


def test_processes_that_do_not_find_each_other_are_temporary(store: Store, inputs: dict[str, InputRef]) -> None:
    """Without our parent: the second of two never comes."""
    picked = {name: inputs[name] for name in ("dataset", "keywords", "traces")}
    spec = store.spec(adapter(store), picked, name="lonely")
    [port] = seaweed.free_ports(1)
    own = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ended = store.run(spec, *RUN, name="alone", THINKREC_RENDEZVOUS_SECONDS="2", **own)
    assert ended.code == 75, ended.err
    assert "did not meet the others" in (ended.message.error or "" if ended.message else "")


def test_more_processes_than_blocks_is_bad_input(store: Store, inputs: dict[str, InputRef]) -> None:
    picked = {name: inputs[name] for name in ("dataset", "keywords", "traces")}
    spec = store.spec(adapter(store, blocks_per_step=1), picked, name="few")
    ended = store.run(spec, *TORCHRUN, name="few", **TWO)
    assert ended.code == 64, ended.err
    assert ended.message is not None
    assert "Raise blocksPerStep to at least 2" in (ended.message.error or "")


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"PET_NPROC_PER_NODE": "many"}, "PET_NPROC_PER_NODE is 'many'"),
        ({"PET_NNODES": "1:4"}, "PET_NNODES is '1:4'"),
        ({"PET_NNODES": "2"}, "PET_MASTER_ADDR, PET_MASTER_PORT are needed"),
    ],
)
def test_settings_that_make_no_sense(
    store: Store, inputs: dict[str, InputRef], environment: dict[str, str], told: str
) -> None:
    spec = store.spec(adapter(store), {"dataset": inputs["dataset"]}, name="wrong")
    ended = store.run(spec, *TORCHRUN, name="wrong", **environment)
    assert ended.code == 64, ended.err
    assert ended.message is not None
    assert told in (ended.message.error or "")


def test_a_stage_of_one_process_is_refused(store: Store, inputs: dict[str, InputRef]) -> None:
    spec = store.spec(KeywordsParameters(), {"dataset": inputs["dataset"]}, name="wrong")
    for command, environment in ((TORCHRUN, TWO), (RUN, {"WORLD_SIZE": "2", "RANK": "0"})):
        ended = store.run(spec, *command, name="keywords", **environment)
        assert ended.code == 64, ended.err
        assert ended.message is not None
        assert "runs in one; only adapter, expert, projector can" in (ended.message.error or "")


@pytest.mark.parametrize(
    ("codes", "signalled", "expected"),
    [
        ([75, 64], False, 64),
        ([143, 1], False, 1),
        ([75, 143], False, 75),
        ([75, 143], True, 143),
        ([64, 143], True, 64),
        ([], True, 143),
        ([], False, 75),
    ],
)
def test_the_code_that_explains_best_is_handed_on(
    store: Store, codes: list[int], signalled: bool, expected: int
) -> None:
    notes = [Note(rank, code, f"of {rank}") for rank, code in enumerate(codes)]
    outcome = judge(store.spec(adapter(store), {}, name="x"), 1, notes, signalled=signalled)
    assert outcome.code == expected
    if codes:
        assert outcome.message == f"of {codes.index(expected)}"


def _published(spec: StageSpec) -> InputRef:
    found = read_manifest(open_blobs(spec.output_uri))
    assert found is not None
    return InputRef(name=spec.kind.value, kind=spec.kind, key=spec.key, uri=spec.output_uri, digest=found.digest)


def _descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [one for child in map(int, children) for one in (child, *_descendants(child))]


def _environment(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()
