# SPDX-License-Identifier: Apache-2.0
"""The local server's files: in place, or fetched from a real S3 server by the cluster's own step."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import boto3
import pytest

from support import seaweed
from support.local_run import FAKE_SERVER
from support.model_world import World
from thinkrec_crds.artifact import TerminationMessage
from thinkrec_crds.spec_serving import Artifacts
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_crds.stages import BaseModelRef
from thinkrec_operator.local.materials import NotServableHere, materials
from thinkrec_operator.local.serving import FETCH_COMMAND, LocalServing, ServingOptions
from thinkrec_operator.local.state import State, utc_now
from thinkrec_operator.plan import DeploymentChild

KEY = "b" * 40
BUNDLE = {"index.json": b'{"schemaVersion": 1}', "adapters/general/adapter_model.safetensors": b"\x00weights"}
BASE = {"config.json": b"{}", "model.safetensors": b"\x01weights"}
FETCH_FAILS = (sys.executable, "-c", "import sys; sys.exit('error: the hub is out of reach')")


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[seaweed.Seaweed]:
    """A server that holds a published bundle and a base model."""
    with seaweed.running(tmp_path_factory.mktemp("seaweed")) as server:
        client = boto3.client(
            "s3",
            endpoint_url=server.endpoint,
            region_name="us-east-1",
            aws_access_key_id=seaweed.ACCESS_KEY,
            aws_secret_access_key=seaweed.SECRET_KEY,
        )
        client.create_bucket(Bucket="models")
        bundle = {f"movies/bundle/{KEY}/{name}": body for name, body in {**BUNDLE, "manifest.json": manifest()}.items()}
        for name, body in {**bundle, **{f"base/{name}": body for name, body in BASE.items()}}.items():
            client.put_object(Bucket="models", Key=name, Body=body)
        yield server


def manifest() -> bytes:
    """The manifest of the bundle, as the protocol describes it."""
    files = [
        {"path": name, "sha256": hashlib.sha256(body).hexdigest(), "size": len(body)} for name, body in BUNDLE.items()
    ]
    lineage = {"codeVersion": "test", "seed": 0, "createdTime": "2026-01-01T00:00:00Z", "durationSeconds": 0}
    body = {"kind": "bundle", "key": KEY, "semanticsVersion": 1, "files": files}
    return json.dumps({**body, "lineage": {**lineage, "device": "cpu", "precision": "Float32"}}).encode()


DIGEST = f"sha256:{hashlib.sha256(manifest()).hexdigest()}"


def deployment(*, bundle: str, base: str, endpoint: str | None = None, digest: str = DIGEST) -> DeploymentChild:
    """The wish to serve these two."""
    world = World()
    world.run()
    assert world.deployment is not None
    return replace(
        world.deployment,
        bundle=TerminationMessage(key=KEY, kind=StageKind.BUNDLE, digest=digest),
        bundle_uri=bundle,
        base_model=BaseModelRef(storage_uri=base),
        artifacts=Artifacts(storage_uri="s3://models/movies", endpoint=endpoint),
    )


class Bench:
    """A server of this machine with its folders; credentials are in its driver's environment."""

    def __init__(self, folder: Path, fetch_command: tuple[str, ...] = FETCH_COMMAND) -> None:
        self.control = folder / "control"
        self.control.mkdir(exist_ok=True)
        environment = {
            **os.environ,
            "FAKE_STAGE_CONTROL": str(self.control),
            "THINKREC_CACHE": str(folder / "cache"),
            "AWS_ACCESS_KEY_ID": seaweed.ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": seaweed.SECRET_KEY,
            "OPENAI_API_KEY": "not-a-real-key",
        }
        self.state = State(folder / "state")
        self.serving = LocalServing(
            self.state,
            ServingOptions(
                folder,
                environment,
                cpus=1,
                command=(sys.executable, str(FAKE_SERVER)),
                fetch_command=fetch_command,
                restart_seconds=(0.05, 0.1),
            ),
        )

    def serve(self, child: DeploymentChild) -> Path:
        """Serve until it answers; return the folder of the bundle that the server was given."""
        self.serving.apply(child, utc_now())
        self.wait(lambda: self.serving.url is not None)
        return Path((self.control / "server.log").read_text().splitlines()[-1].split()[1])

    def wait(self, until: Callable[[], bool]) -> None:
        """Look at the server until something holds."""
        end = time.monotonic() + 60
        while not until():
            assert time.monotonic() < end, self.serving.log.read_text()
            self.serving.poll(utc_now())
            time.sleep(0.05)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    found = Bench(tmp_path)
    yield found
    found.serving.stop()


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_what_is_in_a_bucket_is_fetched_and_only_the_fetching_has_the_keys(
    bench: Bench, s3: seaweed.Seaweed, tmp_path: Path
) -> None:
    wish = deployment(bundle=f"s3://models/movies/bundle/{KEY}", base="s3://models/base", endpoint=s3.endpoint)
    folder = bench.serve(wish)
    assert folder == tmp_path / "state" / "fetched" / DIGEST.removeprefix("sha256:")
    assert contents(folder) == {**BUNDLE, "manifest.json": manifest()}
    base = next(path for path in folder.parent.iterdir() if path.is_dir() and path != folder)
    assert contents(base) == BASE
    variables = (bench.control / "server.variables").read_text().split()
    assert "THINKREC_MAX_CANDIDATES" in variables
    assert not {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY"} & set(variables)
    bench.serving.stop()

    again = Bench(tmp_path, fetch_command=FETCH_FAILS)  # another driver: the bundle is here, for its name is its digest
    (tmp_path / "base").mkdir()
    assert again.serve(replace(wish, base_model=BaseModelRef(storage_uri="file:base"))) == folder
    again.serving.stop()


@pytest.mark.parametrize(
    ("key", "digest", "message"),
    [
        (KEY, "sha256:" + "0" * 64, "digest"),
        ("c" * 40, DIGEST, "nothing is published"),
    ],
)
def test_what_cannot_be_fetched_ends_the_run_with_the_fetchers_own_sentence(
    bench: Bench, s3: seaweed.Seaweed, key: str, digest: str, message: str
) -> None:
    uri = f"s3://models/movies/bundle/{key}"
    bench.serving.apply(deployment(bundle=uri, base="s3://models/base", endpoint=s3.endpoint, digest=digest), utc_now())
    with pytest.raises(NotServableHere, match=rf"the bundle at {uri} cannot be fetched: .*{message}"):
        bench.wait(lambda: False)


def test_a_passing_failure_of_fetching_is_tried_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path, fetch_command=FETCH_FAILS)
    (tmp_path / "bundle").mkdir()
    wish = deployment(bundle="file:bundle", base="hf://org/base")
    bench.serving.apply(wish, utc_now())
    seen = bench.serving.observe()
    assert seen is not None
    assert seen.message == "fetches the base model from hf://org/base"
    bench.wait(lambda: bench.serving.failures == 1)
    assert "fetching the base model from hf://org/base ended with exit code 1" in bench.serving.failure
    assert "the hub is out of reach" in bench.serving.failure
    time.sleep(0.1)
    bench.serving.apply(wish, utc_now())
    bench.wait(lambda: bench.serving.failures == 2)


def test_files_of_this_machine_stay_in_place(tmp_path: Path) -> None:
    for name in ("bundle", "base"):
        (tmp_path / name).mkdir()
    found = materials(deployment(bundle="file:bundle", base="file:base"), folder=tmp_path, fetched=tmp_path / "fetched")
    assert (found.bundle, found.base_model, found.fetches) == (tmp_path / "bundle", tmp_path / "base", ())


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    with pytest.raises(NotServableHere, match=rf"the base model at file:base does not exist: there is no {tmp_path}"):
        materials(deployment(bundle="file:bundle", base="file:base"), folder=tmp_path, fetched=tmp_path)


@pytest.mark.parametrize(("revision", "fixed"), [("main", False), ("0123456789abcdef0123456789abcdef01234567", True)])
def test_only_a_commit_is_fetched_once_and_for_all(tmp_path: Path, revision: str, fixed: bool) -> None:
    (tmp_path / "bundle").mkdir()
    wish = deployment(bundle="file:bundle", base="")
    wish = replace(wish, base_model=BaseModelRef(storage_uri="hf://org/base", revision=revision))
    [fetch] = materials(wish, folder=tmp_path, fetched=tmp_path).fetches
    fetch.keep()
    assert fetch.command[0] == f"hf://org/base@{revision}"
    assert fetch.done is fixed
