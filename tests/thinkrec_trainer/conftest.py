# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the trainer's tests: a real S3 server, and a store of either kind."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest

from support import seaweed
from thinkrec_crds.stages import StoreOptions
from thinkrec_trainer.store import Blobs, open_blobs

OpenStore = Callable[[str], Blobs]


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[seaweed.Seaweed]:
    """A SeaweedFS with the bucket `artifacts`; its credentials are in the environment while it runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", seaweed.ACCESS_KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", seaweed.SECRET_KEY)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with seaweed.running(tmp_path_factory.mktemp("seaweed")) as server:
            boto3.client("s3", endpoint_url=server.endpoint, region_name="us-east-1").create_bucket(Bucket="artifacts")
            yield server


@pytest.fixture(params=["file", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, StoreOptions]:
    """An empty storage URI of either kind, and how to reach it."""
    if request.param == "file":
        return (tmp_path / "store").as_uri(), StoreOptions()
    server: seaweed.Seaweed = request.getfixturevalue("s3_server")
    return f"s3://artifacts/{uuid.uuid4().hex}", StoreOptions(endpoint=server.endpoint)


@pytest.fixture
def open_store(storage: tuple[str, StoreOptions]) -> OpenStore:
    """Open blobs below the storage URI; each call makes a client of its own, as another process would."""
    uri, options = storage
    return lambda name: open_blobs(f"{uri}/{name}", options)
