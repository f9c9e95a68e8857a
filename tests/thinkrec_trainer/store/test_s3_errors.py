# SPDX-License-Identifier: Apache-2.0
"""Failures of S3, provoked at the real server or at a real socket: which error follows and what it tells the user."""

from __future__ import annotations

import dataclasses
import datetime
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest

from support import seaweed
from thinkrec_crds.conditions import Reason
from thinkrec_crds.stages import SOURCE_PREFIX, StoreOptions
from thinkrec_trainer.delivery import deliver
from thinkrec_trainer.errors import BadInput, Temporary
from thinkrec_trainer.fetch import fetch_source
from thinkrec_trainer.store import open_blobs
from thinkrec_trainer.store.location import S3Location
from thinkrec_trainer.store.s3_blobs import S3Blobs, open_s3


def options(server: seaweed.Seaweed) -> StoreOptions:
    return StoreOptions(endpoint=server.endpoint)


def test_missing_bucket_names_the_bucket_and_the_remedy(s3_server: seaweed.Seaweed, tmp_path: Path) -> None:
    blobs = open_blobs("s3://no-such-bucket/x", options(s3_server))
    (tmp_path / "f").write_text("x")
    with pytest.raises(BadInput, match=r"s3://no-such-bucket/x.*create the bucket") as caught:
        blobs.upload("f", tmp_path / "f")
    assert caught.value.reason is Reason.DATASET_NOT_FOUND


def test_missing_credentials(s3_server: seaweed.Seaweed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(BadInput, match=r"no S3 credentials for s3://artifacts/x: set AWS_ACCESS_KEY_ID") as caught:
        open_blobs("s3://artifacts/x", options(s3_server)).read("f")
    assert caught.value.reason is Reason.CREDENTIALS_INVALID


def test_wrong_secret_is_bad_input_and_is_not_shown(
    s3_server: seaweed.Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-wrong-secret-value")
    with pytest.raises(BadInput, match="correct AWS_SECRET_ACCESS_KEY") as caught:
        open_blobs("s3://artifacts/x", options(s3_server)).list()
    assert "a-wrong-secret-value" not in str(caught.value)
    assert caught.value.reason is Reason.CREDENTIALS_INVALID


def test_outside_sources_have_credentials_of_their_own(
    s3_server: seaweed.Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a pod whose store and base model have a Secret each: the second one's variables have a prefix."""
    (tmp_path / "f").write_text("weights")
    open_blobs("s3://artifacts/source", options(s3_server)).upload("f", tmp_path / "f")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"{SOURCE_PREFIX}{name}", os.environ[name])
        monkeypatch.setenv(name, "of-another-store")
    found = fetch_source("s3://artifacts/source/f", options(s3_server), tmp_path / "cache")
    assert found.read_text() == "weights"
    deliver("s3://artifacts/source", tmp_path / "mount", options(s3_server))
    assert (tmp_path / "mount" / "f").read_text() == "weights"
    with pytest.raises(BadInput, match="AWS_ACCESS_KEY_ID"):
        open_blobs("s3://artifacts/source", options(s3_server)).list()


def test_unknown_access_key(s3_server: seaweed.Seaweed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    with pytest.raises(BadInput, match="correct AWS_ACCESS_KEY_ID"):
        open_blobs("s3://artifacts/x", options(s3_server)).list()


def test_endpoint_out_of_reach_is_temporary(s3_server: seaweed.Seaweed) -> None:
    closed = f"http://127.0.0.1:{seaweed.free_ports(1)[0]}"
    with pytest.raises(Temporary, match="out of reach"):
        open_blobs("s3://artifacts/x", StoreOptions(endpoint=closed)).read("f")


@pytest.mark.parametrize("endpoint", ["not a url", "127.0.0.1:8333"])
def test_unusable_endpoint_is_bad_input(s3_server: seaweed.Seaweed, endpoint: str) -> None:
    with pytest.raises(BadInput, match=r"write http\(s\)://host:port"):
        open_blobs("s3://artifacts/x", StoreOptions(endpoint=endpoint))


def test_server_errors_are_retried_then_temporary(s3_server: seaweed.Seaweed) -> None:
    """A server that always answers 503: five attempts, then Temporary."""
    seen: list[str] = []

    class Unavailable(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Unavailable)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with pytest.raises(Temporary, match="HTTP 503"):
            open_blobs("s3://artifacts/x", StoreOptions(endpoint=f"http://127.0.0.1:{server.server_port}")).read("f")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert len(seen) == 5


def test_large_file_goes_in_parts_and_comes_back_whole(s3_server: seaweed.Seaweed, tmp_path: Path) -> None:
    """One byte more than a part; the pattern would show swapped or repeated parts."""
    part = 5 * 1024 * 1024
    blobs = dataclasses.replace(open_s3(S3Location("artifacts", "large"), options(s3_server)), part_bytes=part)
    data = b"".join(i.to_bytes(4, "big") for i in range(part // 4)) + b"!"
    (tmp_path / "big").write_bytes(data)
    blobs.upload("big", tmp_path / "big")
    blobs.download("big", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data


def test_parts_of_a_killed_upload_are_aborted_once_stale(
    s3_server: seaweed.Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload that was begun and never ended: kept while fresh (its writer may live), gone when a day old."""
    client = boto3.client("s3", endpoint_url=s3_server.endpoint, region_name="us-east-1")
    client.create_multipart_upload(Bucket="artifacts", Key="parts/abc/model.bin")
    blobs = open_blobs("s3://artifacts/parts", options(s3_server))
    assert isinstance(blobs, S3Blobs)

    def pending() -> int:
        return len(client.list_multipart_uploads(Bucket="artifacts", Prefix="parts/").get("Uploads", []))

    blobs.abort_stale_uploads(now=datetime.datetime.now(datetime.UTC))
    assert pending() == 1
    blobs.abort_stale_uploads(now=datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=25))
    assert pending() == 0


def test_listing_and_deletion_go_beyond_one_page(s3_server: seaweed.Seaweed) -> None:
    """Ten objects, three a page."""
    blobs = open_s3(S3Location("artifacts", "pages"), options(s3_server))
    paged = dataclasses.replace(blobs, page_size=3)
    names = [f"{number:05d}" for number in range(10)]
    for name in names:
        paged.create(name, b"x")
    assert [blob.name for blob in paged.list()] == names
    paged.delete(names)
    assert blobs.list() == []
