# SPDX-License-Identifier: Apache-2.0
"""Which URI means which place."""

from __future__ import annotations

from pathlib import Path

import pytest

from thinkrec_trainer.errors import BadInput
from thinkrec_trainer.store import join, parent, parse_location
from thinkrec_trainer.store.location import FileLocation, S3Location


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///data/a%20b", "/data/a b"),
        ("file://localhost/data", "/data"),
        ("file:/data", "/data"),
        ("/data/x", "/data/x"),
        ("file:store/x", "CWD/store/x"),
        ("file:./store", "CWD/store"),
        ("store", "CWD/store"),
    ],
)
def test_files(uri: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_location(uri) == FileLocation(Path(path.replace("CWD", str(tmp_path))))


@pytest.mark.parametrize(
    ("uri", "bucket", "prefix"), [("s3://b", "b", ""), ("s3://b/", "b", ""), ("s3://b/a/b/", "b", "a/b")]
)
def test_s3(uri: str, bucket: str, prefix: str) -> None:
    assert parse_location(uri) == S3Location(bucket, prefix)


@pytest.mark.parametrize("uri", ["gs://b/x", "http://x/y", "s3://", "file://host/share", "", "file:"])
def test_others_are_refused_with_the_value(uri: str) -> None:
    with pytest.raises(BadInput, match="storage URI") as caught:
        parse_location(uri)
    assert repr(uri) in str(caught.value)


def test_join_and_parent() -> None:
    assert join("s3://b/a/", "k", "x") == "s3://b/a/k/x"
    assert parent("s3://b/kind/key/") == "s3://b/kind"
    assert parent("file:store/kind") == "file:store"
